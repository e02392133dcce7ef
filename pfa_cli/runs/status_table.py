"""The runs as a person wants to see them: one line each where there is room, else one line per variant."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from pfa_cli.columns import Column, FittingTable
from pfa_cli.runs.wording import count, duration, percent, rate

if TYPE_CHECKING:
    from pfa_cli.runs.status import StatusRow

STYLES = {
    "done": "green",
    "running": "cyan",
    "stale": "yellow",
    "interrupted": "yellow",
    "failed": "red",
    "queued": "dim",
}
_ORDER = tuple(STYLES)
_LONGEST_STATE = 12  # "interrupted,"; its number may stand on the line before
_TABLE_FRAME = 4  # lines of a table beside its rows
# Where there is no room for all columns, these go first.
_SPARED = ("tries", "images/s", "train %", "host", "left", "valid. %")
_SPARED_GROUPED = ("mean valid. %", "epochs", "mean test %")


class StatusTable:
    """Renders by the room at hand: every run if a terminal has the lines, or to a pipe.

    On a lower terminal every recipe, algorithm and variant, however low it is; below them the runs in training and
    the reasons of failures, as many as there is room for.
    """

    def __init__(self, rows: "Sequence[StatusRow]") -> None:
        self.rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.rows:
            yield Text("no runs yet: `pfa run mnist` starts some")
            return

        def lines(shown: RenderableType) -> int:
            return len(console.render_lines(shown, options.reset_height()))

        troubles = _troubles(self.rows)
        summary = _summary(self.rows)
        yield summary
        room = console.size.height - lines(summary) - 1  # the prompt below
        every_run = Group(_runs_table(self.rows), *troubles)
        if not console.is_terminal or lines(every_run) <= room:
            yield every_run
            return
        grouped = _grouped_table(self.rows)
        yield grouped
        room -= lines(grouped)
        running = [row for row in self.rows if row.state == "running"]
        shown = min(len(running), room - _TABLE_FRAME - len(troubles))
        if shown > 0:
            yield _runs_table(running[:shown])
            room -= shown + _TABLE_FRAME
        for trouble in troubles[: max(room, 1)]:
            trouble.no_wrap, trouble.overflow = True, "ellipsis"
            yield trouble


def _summary(rows: "Sequence[StatusRow]") -> Text:
    """How many runs are in which state, and when the workers will be through with what they have to do."""
    line = Text(count(len(rows), "run"), style="bold")
    running = sum(row.state == "running" for row in rows)
    todo = [row for row in rows if row.state in ("running", "queued")]
    etas = [row.eta_seconds for row in todo if row.eta_seconds is not None]
    if running and len(etas) == len(todo):
        line.append(f", {duration(max(sum(etas) / running, *etas))} left", style="cyan")
    return line.append(": ").append_text(_states(rows))


def _states(rows: "Iterable[StatusRow]") -> Text:
    numbers = Counter(row.state for row in rows)
    parts = [Text(f"{numbers[state]} {state}", style=STYLES[state]) for state in _ORDER if numbers[state]]
    return Text(", ").join(parts)


def _runs_table(rows: "Sequence[StatusRow]") -> FittingTable:
    """One line per run."""
    several_recipes = len({row.recipe for row in rows}) > 1
    hosts = {row.host for row in rows if row.host}
    columns = [
        Column("run", [Text(_name(row, with_recipe=several_recipes)) for row in rows]),
        Column("state", [_state(row) for row in rows]),
        Column("epochs", [f"{row.epochs_done}/{row.epochs_total}" for row in rows], right=True),
        Column("train %", [percent(row.train_accuracy_percent) for row in rows], right=True),
        Column("valid. %", [percent(row.validation_accuracy_percent) for row in rows], right=True),
        Column("test %", [percent(row.test_accuracy_percent) for row in rows], right=True),
        Column("images/s", [rate(row.images_per_second) for row in rows], right=True),
        Column(
            "left", [duration(row.eta_seconds) if row.state == "running" else "" for row in rows], right=True
        ),
        Column("tries", [str(row.attempts) if row.attempts > 1 else "" for row in rows], right=True),
        Column("host", [Text(row.host or "") if len(hosts) > 1 else "" for row in rows]),
    ]
    return FittingTable(_telling(columns), _SPARED)


def _grouped_table(rows: "Sequence[StatusRow]") -> FittingTable:
    """One line per recipe, algorithm and variant."""
    groups: dict[tuple[str, str, str], list[StatusRow]] = defaultdict(list)
    for row in rows:
        groups[row.recipe, row.algorithm, row.variant].append(row)
    first = 0 if len({row.recipe for row in rows}) > 1 else 1
    columns = [
        Column("runs", [Text(" ".join(filter(None, key[first:]))) for key in groups]),
        Column("states", [_states(group) for group in groups.values()], wraps_to=_LONGEST_STATE),
        Column("epochs", [_epochs(group) for group in groups.values()], right=True),
        Column(
            "mean valid. %",
            [_mean(row.validation_accuracy_percent for row in group) for group in groups.values()],
            right=True,
        ),
        Column(
            "mean test %",
            [_mean(row.test_accuracy_percent for row in group) for group in groups.values()],
            right=True,
        ),
    ]
    return FittingTable(_telling(columns), _SPARED_GROUPED)


def _telling(columns: Iterable[Column]) -> list[Column]:
    """The columns that have something to tell."""
    return [column for column in columns if any(map(str, column.cells))]


def _name(row: "StatusRow", *, with_recipe: bool) -> str:
    return " ".join(
        filter(None, (row.recipe if with_recipe else "", row.algorithm, row.variant, f"seed {row.seed}"))
    )


def _state(row: "StatusRow") -> Text:
    note = f", diverged in epoch {row.diverged_epoch}" if row.diverged_epoch is not None else ""
    return Text(row.state + note, style=STYLES[row.state])


def _epochs(group: "Sequence[StatusRow]") -> str:
    return f"{sum(row.epochs_done for row in group)}/{sum(row.epochs_total for row in group)}"


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return percent(sum(known) / len(known)) if known else ""


def _troubles(rows: "Sequence[StatusRow]") -> list[Text]:
    """A line for each reason why runs need a person, with the runs that it concerns."""
    several_recipes = len({row.recipe for row in rows}) > 1
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        name = _name(row, with_recipe=several_recipes)
        if row.state == "failed":
            groups["failed", row.error or "no reason stored"].append(name)
        elif row.state == "stale":
            groups["stale", f"no process of {row.host} is at work on it; `pfa run` resumes it"].append(name)
    return [
        Text(f"{state}: {_listed(names)}: {reason}", style=STYLES[state])
        for (state, reason), names in groups.items()
    ]


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"
