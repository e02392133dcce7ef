"""Cells side by side in threads, as on a GPU; here they share the CPU, and their numbers must not know of one another."""

import threading
from pathlib import Path

import pytest
import run_cases
import torch

from pfa_cli.data import default_data_dir, load_dataset
from pfa_cli.runs.backend import Setup, Task
from pfa_cli.runs.events import Broken, Ended, EpochDone, Event
from pfa_cli.runs.fill import Trial, cells_at_a_time
from pfa_cli.runs.lanes import Lanes
from pfa_cli.runs.plan import Plan
from pfa_cli.signals import StopRequest
from pfa_cli.store import writer
from pfa_cli.store.engine import open_store

CPU = torch.device("cpu")


def train(
    db: Path, plan: Plan, lanes: int, stop: StopRequest, on_event: object = None
) -> list[Event | Broken]:
    with open_store(str(db), write=True) as store:
        tasks = [
            Task(n, writer.ensure_run(store, cell.configuration, cell.seed), cell.configuration, cell.seed)
            for n, cell in enumerate(plan.cells)
        ]
    told: list[Event | Broken] = []

    def report(event: Event | Broken) -> None:
        assert threading.current_thread() is threading.main_thread()
        told.append(event)
        if callable(on_event):
            on_event(event)

    Lanes(Setup(str(db), "cpu", default_data_dir()), lanes, report, stop).run(tasks)
    return told


def test_cells_in_four_lanes_are_those_trained_one_by_one(tmp_path: Path, small_runs: Path) -> None:
    told = train(tmp_path / "pfa.db", run_cases.plan(), 4, StopRequest())
    assert {event.outcome for event in told if isinstance(event, Ended)} == {"done"}
    assert run_cases.results(tmp_path / "pfa.db") == run_cases.results(small_runs)


def test_a_stop_saves_every_lane(tmp_path: Path, small_runs: Path) -> None:
    stop = StopRequest()

    def ask(event: Event | Broken) -> None:
        if isinstance(event, EpochDone) and event.record.epoch == 2:
            stop._signal = 15

    db = tmp_path / "pfa.db"
    told = train(db, run_cases.plan(), 3, stop, ask)
    outcomes = [event.outcome for event in told if isinstance(event, Ended)]
    assert "interrupted" in outcomes and len(outcomes) <= 5
    train(db, run_cases.plan(), 3, StopRequest())
    assert run_cases.results(db) == run_cases.results(small_runs)


def test_a_database_that_is_gone_ends_all_lanes(tmp_path: Path) -> None:
    db = tmp_path / "pfa.db"

    def remove(event: Event | Broken) -> None:
        db.unlink(missing_ok=True)

    told = train(db, run_cases.plan(), 2, StopRequest(), remove)
    assert any(isinstance(event, Broken) for event in told)


@pytest.mark.parametrize(
    ("speeds", "most", "expected"),
    [
        ({1: 100, 2: 190, 4: 350, 8: 360}, 45, 4),  # the eighth is not worth it
        ({1: 100, 2: 190, 4: 350}, 5, 4),  # there are only five
        ({1: 100, 2: 105}, 45, 1),
        ({1: 100}, 1, 1),
    ],
)
def test_doubling_ends_where_it_is_not_worth_it(speeds: dict[int, float], most: int, expected: int) -> None:
    assert cells_at_a_time(speeds.__getitem__, most) == expected


def test_doubling_ends_where_memory_does() -> None:
    def throughput(cells: int) -> float:
        if cells > 2:
            raise torch.OutOfMemoryError
        return 100.0 * cells

    assert cells_at_a_time(throughput, 45) == 2


def test_a_trial_counts_the_steps_of_all_lanes() -> None:
    configuration = run_cases.plan(["pfa"]).cells[0].configuration
    trial = Trial(configuration, load_dataset(configuration, default_data_dir(), CPU), CPU, seconds=0.2)
    assert trial.throughput(1) > 0
    assert trial.throughput(2) > 0


def test_an_error_in_a_trial_is_not_lost() -> None:
    configuration = run_cases.plan(["bp"]).cells[0].configuration
    trial = Trial(configuration, load_dataset(configuration, default_data_dir(), CPU), CPU, seconds=0.2)
    trial._dataset.batch = lambda *request: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        trial.throughput(2)
