"""Makes the database to keep of the current schema: ``python tests/store/kept/make_kept_database.py``, once per revision.

A user's database of that revision looks like it: a run that is done, one that diverged, one that was interrupted and
resumed and is to be continued, a queued one, a simulation, a benchmark. Never make one again for a revision that has
been released: what counts is that databases written then can be read now.
"""

import math
import sqlite3
from pathlib import Path

from pfa_cli.recipes import load_recipe
from pfa_cli.records import EpochRecord, LayerRecord
from pfa_cli.store.engine import Store, open_store
from pfa_cli.store.owner import Owner
from pfa_cli.store.schema import SCHEMA_REVISION
from pfa_cli.store.writer import (
    Claim,
    Measurement,
    claim,
    ensure_run,
    finish,
    record_benchmark,
    record_epoch,
    record_simulation,
    start_attempt,
)

OWNER = Owner("kept", 1, 1.0)


def make(path: Path) -> None:
    """Fills a new database at ``path``."""
    with open_store(str(path), write=True) as store:
        mine = _start(store, "pfa", 0)
        for epoch in range(4):
            record_epoch(store, mine, _record(epoch), f"epoch-{epoch}")
        finish(store, mine, "done")
        mine = _start(store, "pal", 0)
        for epoch in range(4):
            record_epoch(store, mine, _record(epoch, diverged=epoch > 1), f"epoch-{epoch}")
        finish(store, mine, "done")
        mine = _start(store, "bp", 0)
        record_epoch(store, mine, _record(0), "epoch-0")
        finish(store, mine, "interrupted")
        mine = _start(store, "bp", 0)
        record_epoch(store, mine, _record(1), "epoch-1")
        finish(store, mine, "interrupted", checkpoint="epoch-1-step-100")
        ensure_run(store, load_recipe("mnist").configuration("fa", {"epochs": 3}), 0)
        record_simulation(
            store, "path", {"expansion": 10, "draws": 2}, {"path_angle_degrees": [17.4, math.nan]}
        )
        record_benchmark(store, {"cpu": "any"}, "mnist", [Measurement("epoch", 2.5, "seconds", "bp")])
    with sqlite3.connect(path) as connection:
        connection.execute("VACUUM")
    connection.close()


def _start(store: Store, algorithm: str, seed: int) -> Claim:
    configuration = load_recipe("mnist").configuration(algorithm, {"epochs": 3})
    mine = claim(store, ensure_run(store, configuration, seed), OWNER, is_alive=lambda row: False)
    assert mine is not None
    start_attempt(
        store, mine, {"git_sha": "abc", "git_dirty": False, "argv": ["pfa", "run", "mnist"], "device": "cpu"}
    )
    return mine


def _record(epoch: int, *, diverged: bool = False) -> EpochRecord:
    layers = tuple(LayerRecord(i, f"layer{i + 1}", 20.0, weight_angle_degrees=90.0 - epoch) for i in range(3))
    return EpochRecord(
        epoch,
        learning_rate=0.01 if epoch else None,
        train_loss=math.inf if diverged else 0.5,
        test_loss=math.nan if diverged else 0.25,
        test_accuracy_percent=90.0 + epoch,
        seconds=1.5,
        diverged=diverged,
        layers=layers,
    )


if __name__ == "__main__":
    make(Path(__file__).with_name(f"schema_{SCHEMA_REVISION}.db"))
