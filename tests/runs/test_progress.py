"""What `pfa run` shows: a table on a terminal, plain lines anywhere else."""

import io
import re
from dataclasses import dataclass

import pytest

from pfa_cli.records import EpochRecord
from pfa_cli.runs.events import Ended, EpochDone, Note, Started, Step
from pfa_cli.runs.progress import LiveTable, PlainLines, view
from pfa_cli.terminal import Terminal


@dataclass(frozen=True)
class Cell:
    algorithm: str
    state: str = "queued"
    epochs_done: int = 0
    epochs_total: int = 40

    @property
    def name(self) -> str:
        return f"{self.algorithm} seed 0"

    @property
    def label(self) -> str:
        return f"mnist {self.name}"


CELLS = [Cell("bp", "done", 40), Cell("pfa"), Cell("pfa-o", "interrupted", 10)]


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(width: int = 80) -> tuple[io.StringIO, Terminal]:
    out = Screen()
    return out, Terminal(file=out, width=width, height=24, force_terminal=True, color_system=None)


def epoch(n: int, seconds: float = 10.0) -> EpochRecord:
    return EpochRecord(
        n,
        train_loss=0.5,
        train_accuracy_percent=95.0,
        test_accuracy_percent=96.789,
        seconds=seconds,
        images_per_second=1e4,
    )


def frame(table: LiveTable, console: Terminal) -> list[str]:
    with console.capture() as captured:
        console.print(table.render())
    return [line.rstrip() for line in captured.get().splitlines() if line.strip()]


def test_a_pipe_gets_one_line_per_epoch() -> None:
    out = io.StringIO()
    with view(Terminal(file=out, width=40), CELLS, 2) as lines:
        assert isinstance(lines, PlainLines)
        lines.handle(Started(1, 0))
        lines.handle(Step(1, 0.5, 90.0, 1000.0))
        lines.handle(EpochDone(1, EpochRecord(0, test_accuracy_percent=9.8, seconds=0.25)))
        lines.handle(EpochDone(1, epoch(1)))
        lines.handle(Note(1, "damaged checkpoint passed over: [x]"))
        lines.handle(
            EpochDone(1, EpochRecord(2, train_loss=float("nan"), test_accuracy_percent=9.8, diverged=True))
        )
        lines.handle(Ended(1, "done", diverged_epoch=2))
        lines.handle(Ended(2, "failed", "it [broke]"))
    assert out.getvalue().splitlines() == [
        "mnist pfa seed 0 begins",
        "mnist pfa seed 0 epoch 0/40 test 9.80 % 0.2 s",
        "mnist pfa seed 0 epoch 1/40 test 96.79 % loss 0.5000 10.0 s",
        "mnist pfa seed 0: damaged checkpoint passed over: [x]",
        "mnist pfa seed 0 epoch 2/40 test 9.80 % loss nan DIVERGED",
        "mnist pfa seed 0 done, diverged in epoch 2",
        "mnist pfa-o seed 0 failed: it [broke]",
    ]


@pytest.mark.parametrize(
    "variables", [{"FORCE_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": "unknown"}, {"TERM": "xterm"}]
)
def test_the_live_table_is_only_for_a_terminal_that_can_redraw_it(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "TERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with view(Terminal(file=io.StringIO()), CELLS, 2) as lines:
        assert isinstance(lines, PlainLines)
    with view(Terminal(file=Screen()), CELLS, 2) as table:
        assert isinstance(table, LiveTable) == (variables.get("TERM") not in ("dumb", "unknown"))


def test_validation_and_test_accuracy_are_told_apart() -> None:
    out = io.StringIO()
    lines = PlainLines(Terminal(file=out, width=200).say, CELLS)
    lines.handle(EpochDone(1, EpochRecord(1, validation_accuracy_percent=70.0, test_accuracy_percent=60.0)))
    assert out.getvalue() == "mnist pfa seed 0 epoch 1/40 validation 70.00 % test 60.00 %\n"


def test_the_table_shows_progress_accuracy_speed_and_time_left() -> None:
    _, console = terminal()
    table = LiveTable(console, CELLS, workers=2)
    table.handle(Started(1, 0))
    table.handle(Started(2, 10))
    table.handle(EpochDone(1, epoch(1)))
    head, *_, pfa, pfa_o = frame(table, console)
    assert head.startswith("1/3 cells") and "left" not in head  # one epoch is no measure
    assert pfa.split()[:3] == ["pfa", "seed", "0"] and pfa_o.split()[:3] == ["pfa-o", "seed", "0"]
    table.handle(EpochDone(1, epoch(2, seconds=20.0)))
    table.handle(Step(1, 0.5, 97.0, 12345.6))
    head, *_, pfa, pfa_o = frame(table, console)
    # pfa: 37.5 epochs of 15 s; pfa-o has none of its own: 30 of 15 s
    assert re.search(r"2/40 .* 97\.00 +96\.79 +12,346 +9 min 22 s$", pfa)
    assert re.search(r"10/40 .* 7 min 30 s$", pfa_o)
    assert head.endswith("9 min 22 s left")  # no less than the longest cell


def test_the_table_fits_eighty_columns() -> None:
    _, console = terminal()
    cells = [Cell(f"pfa expansion={n}") for n in (1, 100)]
    table = LiveTable(console, cells, workers=2)
    for number in range(2):
        table.handle(Started(number, 0))
        table.handle(EpochDone(number, epoch(1, seconds=9999.0)))
        table.handle(Step(number, 0.5, 100.0, 123456.0))
    lines = frame(table, console)
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "…" in line]


@pytest.mark.parametrize("width", [40, 60, 66, 70])
def test_on_a_narrow_terminal_columns_go_before_names_break(width: int) -> None:
    _, console = terminal(width)
    cells = [Cell(f"pfa expansion={n}") for n in (1, 100)]
    table = LiveTable(console, cells, workers=2)
    for number in range(2):
        table.handle(Started(number, 0))
        table.handle(EpochDone(number, epoch(1, seconds=1000.0)))
        table.handle(Step(number, 0.5, 97.0, 123456.0))
    lines = frame(table, console)
    assert max(map(len, lines)) <= width
    *_, first, second = lines
    assert first.split()[:4] == ["pfa", "expansion=1", "seed", "0"] and "1/40" in first
    assert second.split()[:4] == ["pfa", "expansion=100", "seed", "0"] and "1/40" in second
    heads = [column for column in ("train %", "test %", "images/s", "left") if f" {column}" in lines[-4]]
    assert heads == {40: [], 60: ["test %", "left"]}.get(width, ["train %", "test %", "left"])


def test_how_cells_ended_stays_on_the_screen() -> None:
    out, console = terminal(width=100)
    with view(console, CELLS, 2) as table:
        assert isinstance(table, LiveTable)
        table.handle(Started(1, 0))
        table.handle(EpochDone(1, epoch(40)))
        table.handle(Ended(1, "done"))
        table.handle(Ended(2, "failed", "it [broke]"))
    assert "mnist pfa seed 0 done, test 96.79 %" in out.getvalue()
    assert "mnist pfa-o seed 0 failed: it [broke]" in out.getvalue()
    assert frame(table, console)[0].startswith("3/3 cells")


def test_a_cell_whose_worker_died_is_running_again() -> None:
    _, console = terminal()
    table = LiveTable(console, CELLS, workers=2)
    table.handle(Started(1, 0))
    table.handle(EpochDone(1, epoch(1)))
    table.handle(Step(1, 0.9, 97.0, 1.0))
    table.handle(Started(1, 1))
    assert " 1/40 " in frame(table, console)[-1]
