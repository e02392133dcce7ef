"""Runs for the store's tests: real configurations, made-up measurements."""

import math
import multiprocessing
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pfa_cli.configuration import Configuration
from pfa_cli.recipes import load_recipe
from pfa_cli.records import EpochRecord, LayerRecord
from pfa_cli.store.engine import Store, open_store
from pfa_cli.store.owner import Owner
from pfa_cli.store.tables import table
from pfa_cli.store.writer import Claim, claim, ensure_run, finish, record_epoch, start_attempt

OWNER = Owner("here", 1, 1.0)
PROCESSES = multiprocessing.get_context("forkserver")  # fresh processes that need not import it all again
PROCESSES.set_forkserver_preload(["store_cells", "pfa_cli.store.migrations"])


def configuration(algorithm: str = "pfa", **overrides: Any) -> Configuration:
    """The mnist recipe's, of three epochs unless told otherwise."""
    return load_recipe("mnist").configuration(algorithm, {"epochs": 3} | overrides)


def record(epoch: int, *, accuracy: float = 90.0, diverged: bool = False) -> EpochRecord:
    """An epoch of two layers; the loss of a diverged one is NaN."""
    return EpochRecord(
        epoch,
        learning_rate=0.01 if epoch else None,
        train_loss=math.nan if diverged else 1 / (epoch + 1),
        test_accuracy_percent=accuracy + epoch,
        seconds=2.0 + epoch,
        diverged=diverged,
        layers=tuple(LayerRecord(i, f"layer{i + 1}", 1.5, path_angle_degrees=20.0 + i) for i in range(2)),
    )


def claimed(
    store: Store, *, algorithm: str = "pfa", seed: int = 0, owner: Owner = OWNER, epochs: int = 3
) -> Claim:
    """A new run that ``owner`` works on."""
    run_id = ensure_run(store, configuration(algorithm, epochs=epochs), seed)
    mine = claim(store, run_id, owner, is_alive=lambda row: True)
    assert mine is not None
    start_attempt(store, mine, {"device": "cpu", "argv": ["pfa", "run", "mnist"]})
    return mine


def run_to_end(
    store: Store, *, algorithm: str = "pfa", seed: int = 0, epochs: int = 4, accuracy: float = 90.0
) -> int:
    """A run with ``epochs`` stored epochs; done if these are all."""
    mine = claimed(store, algorithm=algorithm, seed=seed)
    for epoch in range(epochs):
        record_epoch(store, mine, record(epoch, accuracy=accuracy), f"checkpoint-{epoch}")
    finish(store, mine, "done" if epochs == 4 else "interrupted")
    return mine.run_id


def new_database(path: Path, *, seeds: int = 1) -> Path:
    """A database of finished runs at ``path``, at rest."""
    with open_store(str(path), write=True) as store:
        for seed in range(seeds):
            run_to_end(store, seed=seed)
    return path


def stored(store: Store, name: str) -> Sequence[Any]:
    """The rows of a tidy table."""
    return store.read(lambda connection: connection.execute(table(name)).all())


def change(path: Path, statements: str) -> None:
    """Changes a database past all that pfa takes care of."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)


def beside(path: Path) -> list[str]:
    """What lies in the folder of ``path``."""
    return sorted(file.name for file in path.parent.iterdir())


def together(*work: tuple[Callable[..., None], tuple[Any, ...]], seconds: float = 60) -> None:
    """Runs each function with its arguments in a process of its own; all of them must end well."""
    processes = [PROCESSES.Process(target=function, args=arguments) for function, arguments in work]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * len(processes)
