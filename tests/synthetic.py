"""A results database with plausible runs, written by the real writer: what the figures' tests draw."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np
from sqlalchemy import Connection

from pfa_cli.recipes import load_recipe
from pfa_cli.records import EpochRecord, LayerRecord
from pfa_cli.registry import described
from pfa_cli.store.engine import Store
from pfa_cli.store.owner import Owner
from pfa_cli.store.writer import claim, ensure_run, finish, record_epoch, start_attempt

OWNER = Owner("a-host", 1, 0.0)
LAYERS = {"mnist": ["fc1", "fc2", "fc3"], "cifar10": [f"conv{i}" for i in range(19)] + ["fc"]}
LAYERS["imagenet"] = [*LAYERS["cifar10"], "shortcut"]
DATASETS = {
    "mnist": "MNIST, 60000 train / 10000 test",
    "cifar10": "CIFAR-10, 45000 train / 5000 validation / 10000 test",
    "imagenet": "imagenette-mini (10 classes), 900 train / 300 test",
}

# What each algorithm ends with: accuracy in % by recipe, and the angle of its feedback to W in degrees.
PAPERS = ("bp", "fa", "dfa", "sf", "kp", "wm", "pal", "pfa", "pfa-o")
ACCURACY = {
    "mnist": dict(zip(PAPERS, (98.38, 98.23, 98.15, 98.25, 98.40, 98.35, 97.6, 98.39, 98.41), strict=True)),
    "cifar10": dict(zip(PAPERS, (91.4, 63.9, 30.9, 89.8, 91.3, 90.9, 70.2, 90.7, 91.4), strict=True)),
    "imagenet": dict(zip(PAPERS, (69.7, 15.0, 18.0, 64.6, 69.5, 68.0, 40.0, 68.5, 69.3), strict=True)),
}
ANGLE = dict(zip(PAPERS, (0.0, 78.0, 65.0, 30.0, 4.0, 6.0, 38.0, 17.55, 0.2), strict=True))


def add_run(
    store: Store,
    recipe: str,
    algorithm: str,
    seed: int,
    *,
    epochs: int,
    stop_after: int | None = None,
    diverge_at: int | None = None,
    **overrides: Any,
) -> int:
    """One run of ``epochs``; unfinished if it stops earlier, done if it diverges. Its id."""
    with store.write() as connection:
        whole = cast(Store, _OneTransaction(connection))
        return _add_run(whole, recipe, algorithm, seed, epochs, stop_after, diverge_at, overrides)


class _OneTransaction:
    """A store whose transactions are parts of one: forty waits for the disk are most of a test's time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def read(self, query: Callable[[Connection], Any]) -> Any:
        return query(self._connection)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        yield self._connection

    def insist(self, work: Callable[[], Any], *, briefly: bool = False) -> Any:
        return work()


def _add_run(
    store: Store,
    recipe: str,
    algorithm: str,
    seed: int,
    epochs: int,
    stop_after: int | None,
    diverge_at: int | None,
    overrides: dict[str, Any],
) -> int:
    configuration = load_recipe(recipe).configuration(algorithm, {"epochs": epochs, **overrides})
    run = ensure_run(store, configuration, seed)
    owned = claim(store, run, OWNER, is_alive=lambda row: False)
    assert owned is not None
    start_attempt(store, owned, {"dataset": DATASETS[recipe]})
    expansion = configuration.options.get("expansion")
    rng = np.random.default_rng([seed, *algorithm.encode(), *recipe.encode()])
    last = min(stop_after if stop_after is not None else epochs, diverge_at or epochs)
    for epoch in range(last + 1):
        measured = _epoch(recipe, algorithm, epoch, epoch == diverge_at, expansion, rng)
        if configuration.validation_images and measured.validation_accuracy_percent is None:
            measured = replace(measured, validation_accuracy_percent=measured.test_accuracy_percent)
        record_epoch(store, owned, measured)
    finish(store, owned, "done" if last == epochs or diverge_at else "interrupted")
    return run


def add_grid(
    store: Store, recipe: str, algorithms: Iterable[str], seeds: Iterable[int], *, epochs: int
) -> None:
    """Finished runs of every algorithm with every seed."""
    for algorithm in algorithms:
        for seed in seeds:
            add_run(store, recipe, algorithm, seed, epochs=epochs)


def _epoch(
    recipe: str, algorithm: str, epoch: int, diverged: bool, expansion: Any, rng: np.random.Generator
) -> EpochRecord:
    final = ACCURACY[recipe].get(algorithm, 97.0) + rng.normal(0, 0.05)
    start = 10.0 if epoch == 0 else final - 5 * math.exp(-epoch / 6)
    accuracy = 9.8 if diverged else start if epoch == 0 else start + rng.normal(0, 0.1)
    names = LAYERS[recipe]
    layers = [
        _layer(algorithm, i, len(names), name, epoch, diverged, expansion, rng)
        for i, name in enumerate(names)
    ]
    return EpochRecord(
        epoch,
        train_loss=math.nan if diverged else 0.1,
        validation_accuracy_percent=accuracy + 0.3 if recipe == "cifar10" else None,
        test_accuracy_percent=accuracy,
        diverged=diverged,
        layers=tuple(layers),
    )


def _layer(
    algorithm: str,
    i: int,
    count: int,
    name: str,
    epoch: int,
    diverged: bool,
    expansion: Any,
    rng: np.random.Generator,
) -> LayerRecord:
    norm = 20.0 + i
    if diverged:
        return LayerRecord(i, name, math.inf, math.nan, math.nan, None, None, math.nan)
    if algorithm == "bp":
        return LayerRecord(i, name, norm, 0.0, 1.0, None, None, 0.0)
    floor = ANGLE.get(algorithm, 45.0)
    if algorithm == "pfa":
        floor = math.degrees(math.acos(1 / math.sqrt(1 + 1 / expansion)))
    if algorithm in ("fa", "dfa", "sf"):
        floor += 10 * (1 - 2 * i / (count - 1))
    decay = math.exp(-epoch / 3)
    angle = (
        floor
        + (90 - floor) * decay
        + 3 * math.exp(-epoch / 20) * i / count
        + rng.normal(0, 0.4) * (1 - decay)
    )
    ratio = (1 + 0.5 * (i / count - 0.5)) * (1 - decay) + decay
    error = 0.0 if i == count - 1 else angle * 1.2
    if described(algorithm).measure == "path":
        return LayerRecord(
            i, name, norm, 90.0, 0.0, angle, 1 + 0.05 * (1 - decay) + rng.normal(0, 0.003), error
        )
    return LayerRecord(
        i, name, norm, None if algorithm == "dfa" and i < count - 1 else angle, ratio, None, None, error
    )
