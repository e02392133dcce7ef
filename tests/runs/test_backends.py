"""A back end is one class: another one from outside trains the cells, and nothing else changes."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import run_cases

from pfa_cli.ranks import Ranks
from pfa_cli.runs import launch
from pfa_cli.runs.backend import Backend, Report, Setup, Task
from pfa_cli.runs.distributed import Distributed
from pfa_cli.runs.events import Broken, Ended, Said
from pfa_cli.runs.gpu import Gpu
from pfa_cli.runs.processes import Processes
from pfa_cli.runs.worker import work
from pfa_cli.signals import StopRequest


class Backwards(Backend):
    """Trains the cells from the last to the first; leaves every second one for a second round."""

    rounds: list[list[int]] = []  # noqa: RUF012 (the test looks at it)
    closed = 0

    @classmethod
    def fits(cls, setup: Setup) -> bool:
        return setup.device == "cpu"

    def workers(self, tasks: Sequence[Task]) -> int:
        return 1

    def run(self, tasks: Sequence[Task], report: Report, stop: StopRequest) -> None:
        self.rounds.append([task.cell for task in tasks])
        report(Said(f"{len(tasks)} to train"))
        later = [task for task in tasks if task.cell % 2] if len(self.rounds) == 1 else []
        work(self.setup, [task for task in reversed(tasks) if task not in later], report, lambda: bool(stop))
        for task in later:
            report(Ended(task.cell, "busy"))

    def close(self) -> None:
        type(self).closed += 1


def test_a_back_end_from_outside_is_one_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "BACKENDS", (Backwards, *launch.BACKENDS))
    plan = run_cases.plan(["bp", "fa", "dfa"], epochs=1)
    code, said = run_cases.train(tmp_path / "pfa.db", plan)
    assert code == 0
    assert Backwards.rounds == [[0, 1, 2], [1]] and Backwards.closed == 1
    bp, _, dfa = (cell.label for cell in plan.cells)
    assert said.index("3 to train") < said.index(f"{dfa} done") < said.index(f"{bp} done")
    assert run_cases.states(tmp_path / "pfa.db") == ["done"] * 3


def test_what_breaks_a_back_end_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaks(Backwards):
        def run(self, tasks: Sequence[Task], report: Report, stop: StopRequest) -> None:
            report(Broken("the queue is gone"))

    monkeypatch.setattr(launch, "BACKENDS", (Breaks,))
    with pytest.raises(launch.PfaError, match="the queue is gone"):
        run_cases.train(tmp_path / "pfa.db", run_cases.plan(["bp"], epochs=1))


@pytest.mark.parametrize(
    ("device", "ranks", "expected"),
    [
        ("cpu", Ranks(), Processes),
        ("cuda:0", Ranks(), Gpu),
        ("cpu", Ranks(0, 2), Distributed),
        ("cuda:0", Ranks(0, 2), Distributed),
    ],
)
def test_the_first_back_end_that_fits_is_chosen(device: str, ranks: Ranks, expected: type[Backend]) -> None:
    assert type(launch.choose_backend(Setup(None, device, Path(), ranks=ranks))) is expected
