"""The runs as a person wants to see them: one line each where there is room, else one line per algorithm."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

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
_TABLE_FRAME = 4  # lines of a table beside its rows
_GAP = 3  # columns of the terminal between two of a table
_SPARED = ("tries", "images/s", "train %", "host")  # where there is no room for all, these go first


class StatusTable:
    """Renders by the room at hand: a terminal shows what fits, a pipe gets every run."""

    def __init__(self, rows: "Sequence[StatusRow]") -> None:
        self.rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.rows:
            yield Text("no runs yet: `pfa run mnist` starts some")
            return
        troubles = _troubles(self.rows)
        yield _summary(self.rows)
        lines = len(self.rows) + _TABLE_FRAME + sum(len(t) // options.max_width + 1 for t in troubles)
        room = console.size.height - 2  # the summary, and the prompt below
        if not console.is_terminal or lines <= room:
            yield _runs_table(self.rows, options.max_width)
            yield from troubles
            return
        grouped = _grouped_table(self.rows)
        yield grouped
        room -= grouped.row_count + _TABLE_FRAME
        running = [row for row in self.rows if row.state == "running"]
        shown = min(len(running), room - _TABLE_FRAME - len(troubles))
        if shown > 0:
            yield _runs_table(running[:shown], options.max_width)
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


def _runs_table(rows: "Sequence[StatusRow]", width: int) -> Table:
    """One line per run; columns that have nothing to tell, or no room beside weightier ones, are left out."""
    several_recipes = len({row.recipe for row in rows}) > 1
    columns: list[tuple[str, str, list[RenderableType]]] = [
        ("run", "left", [Text(_name(row, with_recipe=several_recipes)) for row in rows]),
        ("state", "left", [_state(row) for row in rows]),
        ("epochs", "right", [f"{row.epochs_done}/{row.epochs_total}" for row in rows]),
        ("train %", "right", [percent(row.train_accuracy_percent) for row in rows]),
        ("valid. %", "right", [percent(row.validation_accuracy_percent) for row in rows]),
        ("test %", "right", [percent(row.test_accuracy_percent) for row in rows]),
        ("images/s", "right", [rate(row.images_per_second) for row in rows]),
        ("left", "right", [duration(row.eta_seconds) if row.state == "running" else "" for row in rows]),
        ("tries", "right", [str(row.attempts) if row.attempts > 1 else "" for row in rows]),
    ]
    if len({row.host for row in rows if row.host}) > 1:
        columns.append(("host", "left", [Text(row.host or "") for row in rows]))
    columns = [column for column in columns if any(map(str, column[2]))]
    for heading in _SPARED:
        if sum(max(map(len, (column[0], *map(str, column[2])))) + _GAP for column in columns) > width:
            columns = [column for column in columns if column[0] != heading]
    return _table(columns)


def _grouped_table(rows: "Sequence[StatusRow]") -> Table:
    """One line per recipe, algorithm and variant."""
    groups: dict[tuple[str, str, str], list[StatusRow]] = defaultdict(list)
    for row in rows:
        groups[row.recipe, row.algorithm, row.variant].append(row)
    several_recipes = len({row.recipe for row in rows}) > 1
    columns: list[tuple[str, str, list[RenderableType]]] = [
        (
            "runs",
            "left",
            [Text(" ".join(filter(None, key[0 if several_recipes else 1 :]))) for key in groups],
        ),
        ("states", "left", [_states(group) for group in groups.values()]),
        ("epochs", "right", [_epochs(group) for group in groups.values()]),
        (
            "mean valid. %",
            "right",
            [_mean(r.validation_accuracy_percent for r in group) for group in groups.values()],
        ),
        (
            "mean test %",
            "right",
            [_mean(r.test_accuracy_percent for r in group) for group in groups.values()],
        ),
    ]
    return _table([column for column in columns if any(map(str, column[2]))])


def _table(columns: list[tuple[str, str, list[RenderableType]]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, justify, _ in columns:
        table.add_column(
            heading, justify="right" if justify == "right" else "left", no_wrap=justify == "right"
        )
    for cells in zip(*(values for _, _, values in columns), strict=True):
        table.add_row(*cells)
    return table


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
