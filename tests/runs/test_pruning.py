"""`pfa run --prune`: the median rule, and that what it stopped is said, skipped, and goes on without it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import run_cases
from command_line import Call
from run_cases import add_run
from sqlalchemy import select, update

from pfa_cli.data import default_data_dir
from pfa_cli.recipes import load_recipe
from pfa_cli.runs import worker
from pfa_cli.runs.backend import Setup, Task
from pfa_cli.runs.events import Ended
from pfa_cli.runs.pruning import LEAST_RUNS, behind
from pfa_cli.runs.worker import Worker
from pfa_cli.store import schema, writer
from pfa_cli.store.engine import Store, open_store
from pfa_cli.store.errors import ServerLost

RATES = (0.1, 0.2, 0.3, 0.4)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Four learning rates whose best validation accuracies after epochs 1 to 8 are 60 to 90 %, median 75 %."""
    store = open_store(str(tmp_path / "pfa.db"), write=True)
    for number, rate in enumerate(RATES):
        settings = {"learning_rate": rate}
        add_run(
            store, "bp", epochs=8, total=8, settings=settings, validation_accuracy_percent=60 + 10 * number
        )
    return store


def judged(store: Store, accuracy: float, *, epoch: int = 4, total: int = 8, **settings: float) -> str | None:
    """The verdict on another run that has ``accuracy`` after every epoch up to ``epoch``."""
    settings = {"learning_rate": 0.01, "epochs": total} | settings
    run_id = add_run(store, "bp", epochs=epoch, settings=settings, validation_accuracy_percent=accuracy)
    with store.write() as connection:
        stored = connection.execute(
            select(schema.runs.c.configuration).where(schema.runs.c.id == run_id)
        ).scalar_one()
    overrides = {key: stored[key] for key in ("hidden_sizes", "batch_size", "train_images", "test_images")}
    configuration = load_recipe("mnist").configuration("bp", overrides | settings)
    assert configuration.hash == store.read(
        lambda c: c.execute(select(schema.runs.c.config_hash).where(schema.runs.c.id == run_id)).scalar_one()
    )
    return behind(store, run_id, configuration, epoch)


def test_what_is_below_the_median_of_the_others_stops(store: Store) -> None:
    assert judged(store, 74.9) == (
        "pruned after epoch 4: its best validation accuracy, 74.90 %, is below the median of 4 runs with other "
        "settings, 75.00 %"
    )


@pytest.mark.parametrize(
    ("accuracy", "where"),
    [
        (75.1, {}),
        (10.0, {"epoch": 1}),  # the first quarter
        (10.0, {"epoch": 8}),  # the last epoch
        (10.0, {"total": 20, "epoch": 8}),  # others are as long as it
    ],
)
def test_what_goes_on(store: Store, accuracy: float, where: dict[str, int]) -> None:
    assert judged(store, accuracy, **where) is None


def test_nan_is_the_worst_and_few_others_judge_nothing(store: Store) -> None:
    assert "accuracy, nan %" in str(judged(store, math.nan))
    with store.write() as connection:
        connection.execute(
            update(schema.runs).where(schema.runs.c.id > LEAST_RUNS - 1).values(algorithm="fa")
        )
    assert judged(store, 10.0, weight_decay=0.0) is None


GRID = [
    "run", "mnist", "--algos=bp", "--set=learning_rate=0.05,0.04,0.06,0.03,1e-9", "--set=validation_images=64",
    "--set=train_images=320", "--set=test_images=20", "--set=hidden_sizes=[16]", "--epochs=4", "--jobs=1",
]  # fmt: skip


def test_a_pruned_cell_is_said_and_skipped_and_goes_on_without_prune(call: Call) -> None:
    first = call(*GRID, "--prune")
    assert first.code == 0, first
    assert "learning_rate=1e-09 validation_images=64 seed 0 pruned after epoch 1: " in first.out.replace(
        "hidden_sizes=[16] ", ""
    )
    assert "5 cells: 4 done, 1 pruned; pruned ones go on without --prune" in first.out
    rows = {row["state"]: row for row in json.loads(call("status", "--json").out)}
    assert (rows["pruned"]["epochs_done"], rows["pruned"]["settings"]["learning_rate"]) == (1, 1e-9)
    assert rows["pruned"]["error"].startswith("pruned after epoch 1: its best validation accuracy")
    assert "1 pruned" in call("status", "--state=pruned").out
    dry = call(*GRID, "--prune", "--dry-run")
    assert "4 cells, 0 to train" in dry.out and "1 pruned cell left out" in dry.out
    again = call(*GRID, "--prune")
    assert again.code == 0 and "nothing to do: 5 cells done or pruned already" in again.out
    without = call(*GRID)
    assert without.code == 0 and "5 cells: 5 done" in without.out


@pytest.mark.parametrize("prune", [True, False])
def test_a_cell_that_another_command_pruned_meanwhile_is_left_so(tmp_path: Path, prune: bool) -> None:
    """Commands that share a grid, as the jobs of an array, have made their plans before the first cell is pruned."""
    (cell,) = run_cases.plan(["bp"], validation_images=64).cells
    with open_store(str(tmp_path / "pfa.db"), write=True) as store:
        reason = "pruned after epoch 2: others are better"
        settings = cell.configuration.model_dump(include={"validation_images"})
        run_id = add_run(store, "bp", state="interrupted", error=reason, epochs=2, total=4, settings=settings)
        setup = Setup(store.name, "cpu", default_data_dir(), prune=prune)
        ended = Worker(store, setup, lambda event: None, lambda: False).run(
            Task(0, run_id, cell.configuration, 0)
        )
    assert ended == (Ended(0, "interrupted", reason) if prune else Ended(0, "done"))


def test_a_cell_is_not_judged_by_an_epoch_that_is_not_stored_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is away when epoch 1 is to be stored: it is stored after epoch 2, before that one."""
    judged, store_epoch = [], writer.record_epoch

    def record_epoch(store: Store, claim: writer.Claim, record: Any, name: str, *, wait: bool = True) -> None:
        if record.epoch == 1 and not wait:
            raise ServerLost("the server does not answer")
        store_epoch(store, claim, record, name)

    def behind(store: Store, run_id: int, configuration: object, epoch: int) -> None:
        judged.append(epoch)

    monkeypatch.setattr(writer, "record_epoch", record_epoch)
    monkeypatch.setattr(worker, "behind", behind)
    cell = run_cases.plan(["bp"], epochs=3, validation_images=64)
    code, said = run_cases.train(tmp_path / "new.db", cell, prune=True)
    assert code == 0 and "stores epoch 1 after the next" in said
    assert judged == [0, 2, 3]


def test_prune_needs_validation_images(call: Call) -> None:
    for command in (["run"], ["submit", "--print"]):
        refused = call(*command, "mnist", "--algos=bp", "--prune")
        assert refused.code == 2 and "--set validation_images=5000" in refused.err
