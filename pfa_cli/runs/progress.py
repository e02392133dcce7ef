"""What `pfa run` shows while it runs: a live table on a terminal, one plain line per epoch anywhere else."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pfa_cli.records import EpochRecord
from pfa_cli.runs.events import Ended, EpochDone, Event, Note, Started, Step
from pfa_cli.runs.plan import Cell
from pfa_cli.terminal import Column, FittingTable, Terminal, can_redraw
from pfa_cli.wording import count, duration, percent, rate

_DROP_FIRST = ("", "images/s", "train %", "left", "test %")  # columns, on a narrow terminal


class View(Protocol):
    """Something that follows the events of a run."""

    def handle(self, event: Event) -> None: ...
    def say(self, message: str) -> None: ...


@contextmanager
def view(
    console: Terminal, cells: Sequence[Cell], workers: int, ended: Collection[str] = ("done",)
) -> Iterator[View]:
    """The live table on a terminal that can redraw it, else plain lines. ``ended``: states of cells that are not trained."""
    if not can_redraw(console):
        yield PlainLines(console.say, cells)
        return
    table = LiveTable(console, cells, workers, ended)
    with Live(console=console, get_renderable=table.render, refresh_per_second=4, transient=True):
        yield table


def epoch_line(cell: Cell, record: EpochRecord) -> str:
    """One epoch as one line that `grep` and `awk` can work with."""
    parts = [f"{cell.label} epoch {record.epoch}/{cell.epochs_total}"]
    if record.validation_accuracy_percent is not None:
        parts.append(f"validation {percent(record.validation_accuracy_percent)} %")
    if record.test_accuracy_percent is not None:
        parts.append(f"test {percent(record.test_accuracy_percent)} %")
    if record.train_loss is not None:
        parts.append(f"loss {record.train_loss:.4f}")
    if record.seconds is not None:
        parts.append(f"{record.seconds:.1f} s")
    return " ".join(parts) + (" DIVERGED" if record.diverged else "")


def ended_line(cell: Cell, event: Ended) -> str:
    """How a cell ended, in one line."""
    match event.outcome:
        case "done" if event.diverged_epoch is not None:
            return f"{cell.label} done, diverged in epoch {event.diverged_epoch}"
        case "failed":
            return f"{cell.label} failed: {event.error}"
        case "busy":
            return f"{cell.label} is being trained by another process: left to it"
        case "lost":
            return f"{cell.label} was taken over by another process: left to it"
        case "interrupted" if event.error:
            return f"{cell.label} {event.error}; without --prune it goes on"
        case "interrupted":
            return f"{cell.label} interrupted, saved; the same command continues it"
    return f"{cell.label} done"


class PlainLines:
    """One line for the start, every epoch and the end of a cell; no control characters, for files and pipes."""

    def __init__(self, say: Callable[[str], None], cells: Sequence[Cell]) -> None:
        self.say, self._cells = say, cells

    def handle(self, event: Event) -> None:
        match event:
            case Started(cell, epochs_done):
                how = f"continues after epoch {epochs_done}" if epochs_done else "begins"
                self.say(f"{self._cells[cell].label} {how}")
            case EpochDone(cell, record):
                self.say(epoch_line(self._cells[cell], record))
            case Ended(cell):
                self.say(ended_line(self._cells[cell], event))
            case Note(cell, message):
                self.say(f"{self._cells[cell].label}: {message}")


@dataclass
class _Progress:
    """How far one cell is."""

    epochs: float  # the running epoch counts by the part of it that is trained
    running: bool = False
    finished: bool = False
    train_accuracy: float | None = None
    test_accuracy: float | None = None
    images_per_second: float | None = None
    seconds: list[float] = field(default_factory=list)  # of each epoch measured here


class LiveTable:
    """Overall progress above one row per running cell; how cells ended scrolls by above both."""

    def __init__(
        self, console: Terminal, cells: Sequence[Cell], workers: int, ended: Collection[str] = ("done",)
    ) -> None:
        self._console, self._cells, self._workers = console, cells, workers
        same_names = len({cell.name for cell in cells}) < len(cells)  # of several recipes
        self._names = [cell.label if same_names else cell.name for cell in cells]
        self._progress = [_Progress(cell.epochs_done, finished=cell.state in ended) for cell in cells]
        self._began = time.monotonic()

    def say(self, message: str) -> None:
        self._console.print(message)

    def handle(self, event: Event) -> None:
        cell, progress = self._cells[event.cell], self._progress[event.cell]
        match event:
            case Started():
                progress.running, progress.finished, progress.epochs = True, False, event.epochs_done
            case Step():
                progress.epochs = int(progress.epochs) + min(event.fraction, 0.999)
                progress.train_accuracy = event.accuracy_percent
                progress.images_per_second = event.images_per_second or progress.images_per_second
            case EpochDone(_, record):
                progress.epochs = record.epoch
                progress.train_accuracy = record.train_accuracy_percent
                progress.test_accuracy = record.test_accuracy_percent
                progress.images_per_second = record.images_per_second
                if record.epoch > 0 and record.seconds is not None:
                    progress.seconds.append(record.seconds)
            case Note():
                self.say(f"{cell.label}: {event.message}")
            case Ended():
                progress.running = False
                progress.finished = event.outcome != "interrupted" or event.error is not None  # pruned
                if event.outcome == "done":
                    progress.epochs = cell.epochs_total
                accuracy = progress.test_accuracy
                shown = (
                    f", test {percent(accuracy)} %"
                    if event.outcome == "done" and accuracy is not None
                    else ""
                )
                self.say(ended_line(cell, event) + shown)

    def _epoch_seconds(self, algorithm: str) -> float | None:
        """Seconds of an epoch of this algorithm, else of any; None until two epochs are measured."""
        of_all = [s for progress in self._progress for s in progress.seconds]
        of_it = [
            s
            for cell, progress in zip(self._cells, self._progress, strict=True)
            if cell.algorithm == algorithm
            for s in progress.seconds
        ]
        if len(of_all) < 2:
            return None
        known = of_it or of_all
        return sum(known) / len(known)

    def _eta(self, index: int) -> float | None:
        """Seconds of work left in one cell."""
        progress, cell = self._progress[index], self._cells[index]
        per_epoch = self._epoch_seconds(cell.algorithm)
        if per_epoch is None or progress.finished:
            return None if per_epoch is None else 0.0
        return max(cell.epochs_total - progress.epochs, 0) * per_epoch

    def _total_eta(self) -> float | None:
        """Seconds until the last cell ends: the work left by workers, but no less than the longest cell."""
        etas = [eta for index in range(len(self._cells)) if (eta := self._eta(index)) is not None]
        if len(etas) < len(self._cells):
            return None
        return max(sum(etas) / self._workers, max(etas, default=0))

    def render(self) -> RenderableType:
        """The table as it is now."""
        finished = sum(progress.finished for progress in self._progress)
        total = sum(cell.epochs_total for cell in self._cells)
        reached = sum(progress.epochs for progress in self._progress)
        eta = duration(self._total_eta())
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(f"{finished}/{count(len(self._cells), 'cell')}", style="bold"),
            ProgressBar(total=max(total, 1), completed=reached, width=24),
            f"{100 * reached / max(total, 1):.1f} %",
            f"{duration(time.monotonic() - self._began)} so far",
            Text(f"{eta} left" if eta else "", style="cyan"),
        )
        running = [index for index, progress in enumerate(self._progress) if progress.running]
        return Group(head, self._table_of(running)) if running else head

    def _table_of(self, running: Sequence[int]) -> FittingTable:
        rows = [(self._cells[index], self._progress[index]) for index in running]
        epochs = [f"{int(progress.epochs)}/{cell.epochs_total}" for cell, progress in rows]
        bars = [
            ProgressBar(total=max(cell.epochs_total, 1), completed=progress.epochs, width=10)
            for cell, progress in rows
        ]
        # Of a steady width, since what comes and goes with the seconds must not move the rest.
        columns = [
            Column("cell", [Text(self._names[index]) for index in running]),
            Column(
                "epoch",
                epochs,
                right=True,
                least=max(2 * len(str(cell.epochs_total)) + 1 for cell, _ in rows),
            ),
            Column("", bars),
            Column("train %", [percent(progress.train_accuracy) for _, progress in rows], right=True),
            Column("test %", [percent(progress.test_accuracy) for _, progress in rows], right=True),
            Column("images/s", [rate(progress.images_per_second) for _, progress in rows], right=True),
            Column("left", [duration(self._eta(index)) for index in running], right=True, least=10),
        ]
        return FittingTable(columns, _DROP_FIRST)
