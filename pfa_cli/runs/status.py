"""Where every run stands: rows for `pfa status`, read without disturbing any run and without torch."""

import json
import math
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.text import Text
from sqlalchemy import func, select

from pfa_cli.errors import PfaError
from pfa_cli.registry import ALGORITHMS, flat, in_order
from pfa_cli.runs.liveness import PRUNED, look_up, shown_state
from pfa_cli.runs.plan import EpochSeconds
from pfa_cli.runs.slurm import queued
from pfa_cli.signals import Stopped
from pfa_cli.store.engine import Store
from pfa_cli.store.owner import Job, Owner
from pfa_cli.store.queries import RunRow, runs
from pfa_cli.store.schema import attempts
from pfa_cli.terminal import Column, FittingTable, can_redraw
from pfa_cli.wording import count, duration, in_number_order, percent, rate, setting

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# With one epoch alone an estimate would mostly be of how long things take to start.
_EPOCHS_FOR_ETA = 2

STYLES = {
    "done": "green",
    "running": "cyan",
    "stale": "yellow",
    "interrupted": "yellow",
    PRUNED: "magenta",
    "failed": "red",
    "queued": "dim",
}
_LONGEST_STATE = 12  # "interrupted,"; its number may stand on the line before
_NAME = 30  # characters of a run's name, in one line
_STATE = 12  # characters of its state: "done, diverged in epoch 1" is broken before a column goes
_TABLE_FRAME = 4  # lines of a table beside its rows
# Where there is no room for all columns, these go first. Validation, by which one chooses, stays longer than test.
_SPARED = ("tries", "images/s", "host", "job", "train %", "tags", "left")
_SPARED_GROUPED = ("epochs", "mean test %")


@dataclass(frozen=True)
class StatusRow:
    """One run. Accuracies are those of the last stored epoch; ``eta_seconds`` is the work left on one worker.

    ``variant`` names the settings in which it differs from other runs of its recipe and algorithm.
    """

    run_id: int
    recipe: str
    algorithm: str
    seed: int
    config_hash: str
    variant: str
    state: str  # queued, running, stale, done, failed, interrupted
    epochs_done: int
    epochs_total: int
    train_accuracy_percent: float | None
    validation_accuracy_percent: float | None
    test_accuracy_percent: float | None
    images_per_second: float | None
    eta_seconds: float | None
    attempts: int
    host: str | None
    pid: int | None
    job: str | None  # Slurm's, of the process that works on it or did so last: 123, or 123_4 of an array
    queue: str | None  # what squeue says of that job; None if it is not in the queue, or nobody can tell
    heartbeat_at: datetime | None
    diverged_epoch: int | None
    error: str | None
    tags: list[str]
    note: str | None
    settings: Mapping[str, Any]  # all of its settings and options


def rows(store: Store, recipe: str | None = None) -> list[StatusRow]:
    """Every run (of one recipe) with its state now: "stale" where the database says running still."""
    found = runs(store, recipe)
    look_up(found)
    tries = _attempts(store)
    seconds = EpochSeconds(found)
    variants = _variants(found)
    # As in Table 1, rather than alphabetical.
    order = {name: place for place, name in enumerate(in_order(row.algorithm for row in found))}
    found.sort(
        key=lambda row: (row.recipe, order[row.algorithm], in_number_order(variants[row.id]), row.seed)
    )
    return [_status(row, variants[row.id], tries.get(row.id, 0), seconds) for row in found]


def as_json(found: Iterable["DataclassInstance"]) -> str:
    """The rows as a JSON list; NaN and infinities, which JSON has not, are the texts "nan", "inf", "-inf"."""
    return json.dumps(
        [{name: _plain(value) for name, value in asdict(row).items()} for row in found], indent=2
    )


def watch(
    open_store: Callable[[], Store],
    console: Console,
    interval: float,
    choose: Callable[[list[StatusRow]], list[StatusRow]] = lambda found: found,
) -> None:
    """Shows what ``choose`` leaves anew every ``interval`` seconds until Ctrl-C; on a pipe, one table after the other."""

    def now() -> StatusTable | Text:
        try:
            with open_store() as store:
                return StatusTable(choose(rows(store)))
        except PfaError as error:
            return Text(str(error))

    try:
        if not can_redraw(console):
            while True:
                console.print(now())
                time.sleep(interval)
        with Live(now(), console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(now(), refresh=True)
                time.sleep(interval)
    except (KeyboardInterrupt, Stopped) as stop:
        if can_redraw(console):
            console.print(now())
        if isinstance(stop, Stopped) and stop.number != signal.SIGINT:
            raise


def _attempts(store: Store) -> dict[int, int]:
    query = select(attempts.c.run_id, func.count()).group_by(attempts.c.run_id)
    return store.read(lambda connection: {int(run): int(n) for run, n in connection.execute(query)})


def _status(row: RunRow, variant: str, tries: int, seconds: EpochSeconds) -> StatusRow:
    state = shown_state(row)
    job = Job.stored(row.job)
    queue = queued(job) if job and state not in ("done", "queued") else None
    per_epoch = seconds.about(row.config_hash, row.recipe, row.algorithm, least=_EPOCHS_FOR_ETA)
    done = row.epochs_done or 0
    left = None
    if per_epoch is not None and state in ("running", "queued"):
        left = per_epoch * (row.epochs_total - done)
    return StatusRow(
        run_id=row.id,
        recipe=row.recipe,
        algorithm=row.algorithm,
        seed=row.seed,
        config_hash=row.config_hash,
        variant=variant,
        state=state,
        epochs_done=done,
        epochs_total=row.epochs_total,
        train_accuracy_percent=row.train_accuracy_percent,
        validation_accuracy_percent=row.validation_accuracy_percent,
        test_accuracy_percent=row.test_accuracy_percent,
        images_per_second=row.images_per_second,
        eta_seconds=left,
        attempts=tries,
        host=row.host,
        pid=row.pid,
        job=job.name if job else None,
        queue=str(queue) if queue else None,
        heartbeat_at=row.heartbeat_at,
        diverged_epoch=row.diverged_epoch,
        error=row.error,
        tags=row.tags or [],
        note=row.note,
        settings=_settings(row),
    )


def _settings(row: RunRow) -> dict[str, Any]:
    """All settings of a run; an option that came after the run has its default."""
    entry = ALGORITHMS.get(row.algorithm)
    defaults = {name: option.default for name, option in entry.options.items()} if entry else {}
    return defaults | _differing(flat(row.configuration))


def _variants(found: Iterable[RunRow]) -> dict[int, str]:
    """By run id, the settings that are not the same in all runs of its recipe and algorithm.

    How many images a trial has is named, too, where it is not the same in all runs of the recipe: their accuracies stand
    in one column.
    """
    groups: dict[tuple[str, str], list[RunRow]] = defaultdict(list)
    images: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in found:
        groups[row.recipe, row.algorithm].append(row)
        for name in ("train_images", "test_images"):
            images[row.recipe, name].add(repr(flat(row.configuration).get(name)))
    variants: dict[int, str] = {}
    for group in groups.values():
        settings = {row.id: _differing(flat(row.configuration)) for row in group}
        # Some runs are of before a setting came, others of after it.
        if len({frozenset(own) for own in settings.values()}) > 1:
            from pfa_cli.configuration import Configuration  # pydantic takes a while to import

            settings = {row.id: Configuration.settings_of(row.configuration) for row in group}
        values: dict[str, Counter[str]] = defaultdict(Counter)
        for own in settings.values():
            for name, value in own.items():
                values[name][repr(value)] += 1
        differing = [
            name
            for name, seen in values.items()
            if max(seen.values()) < len(group) or len(images[group[0].recipe, name]) > 1
        ]
        # Milestones scale with the epochs.
        shorter = _named(settings, [name for name in differing if name != "milestones"])
        unique = len({(shorter[row.id], row.seed) for row in group}) == len(group)
        variants |= shorter if "epochs" in differing and unique else _named(settings, differing)
    return variants


def _named(settings: Mapping[int, Mapping[str, Any]], names: Sequence[str]) -> dict[int, str]:
    return {
        run_id: " ".join(setting(name, own[name]) for name in names if name in own)
        for run_id, own in settings.items()
    }


def _differing(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in which runs of a recipe and algorithm can differ."""
    return {
        name: value
        for name, value in settings.items()
        if value is not None and name not in ("recipe", "algorithm")
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


class StatusTable:
    """Renders by the room at hand: every run if a terminal has the lines, or to a pipe, or if ``whole``.

    On a lower terminal one line per recipe, algorithm and variant, or, where these are too many, per recipe and algorithm;
    below them the runs in training and the reasons of failures, as many as there is room for.
    """

    def __init__(self, rows: Sequence[StatusRow], *, filtered: bool = False, whole: bool = False) -> None:
        self.rows, self.filtered, self.whole = rows, filtered, whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self.rows:
            yield Text("no such runs" if self.filtered else "no runs yet: `pfa run mnist` starts some")
            return

        def lines(shown: RenderableType) -> int:
            return len(console.render_lines(shown, options.reset_height()))

        troubles = _troubles(self.rows)
        summary = _summary(self.rows)
        yield summary
        room = console.size.height - lines(summary) - 1  # the prompt below
        every_run = Group(_runs_table(self.rows, whole=self.whole), *troubles)
        if self.whole or not console.is_terminal or lines(every_run) <= room:
            yield every_run
            return
        hint = Text(
            "`pfa status | less` shows every run; --recipe, --algos, --state, --where some", style="dim"
        )
        hint.no_wrap, hint.overflow = True, "ellipsis"
        grouped: RenderableType = _grouped_table(self.rows)
        if lines(grouped) > room:
            grouped = Group(_counts_table(self.rows), hint)
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


def _summary(rows: Sequence[StatusRow]) -> Text:
    """How many runs are in which state, and when the workers will be through with what they have to do."""
    line = Text(count(len(rows), "run"), style="bold")
    running = sum(row.state == "running" for row in rows)
    todo = [row for row in rows if row.state in ("running", "queued")]
    etas = [row.eta_seconds for row in todo if row.eta_seconds is not None]
    if running and len(etas) == len(todo):
        line.append(f", {duration(max(sum(etas) / running, *etas))} left", style="cyan")
    return line.append(": ").append_text(_states(rows))


def _states(rows: Iterable[StatusRow]) -> Text:
    numbers = Counter(row.state for row in rows)
    states = dict.fromkeys((*STYLES, *sorted(numbers)))  # those of a later pfa last
    parts = [Text(f"{numbers[s]} {s}", style=STYLES.get(s, "")) for s in states if numbers[s]]
    return Text(", ").join(parts)


def _runs_table(rows: Sequence[StatusRow], *, whole: bool = False) -> FittingTable:
    """One line per run. ``whole``: with its note, and never without its number, by which `pfa runs` is told of it."""
    several_recipes = len({row.recipe for row in rows}) > 1
    hosts = {row.host for row in rows if row.host}
    columns = [
        Column("id", [str(row.run_id) for row in rows], right=True),
        Column("run", [Text(_name(row, with_recipe=several_recipes)) for row in rows], wraps_to=_NAME),
        Column("state", [_state(row) for row in rows], wraps_to=_STATE),
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
        Column("job", [Text(_job(row)) for row in rows]),
        Column("tags", [Text(", ".join(row.tags)) for row in rows]),
        Column("note", [Text(row.note or "") if whole else "" for row in rows], wraps_to=16),
    ]
    columns = _telling(columns)
    validated = any(column.heading == "valid. %" for column in columns)
    spared = (*_SPARED, "epochs" if whole else "id")
    return FittingTable(columns, (*spared, "test %") if validated else spared)


def _grouped_table(rows: Sequence[StatusRow]) -> FittingTable:
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


def _counts_table(rows: Sequence[StatusRow]) -> FittingTable:
    """One line per recipe and algorithm."""
    groups: dict[tuple[str, str], list[StatusRow]] = defaultdict(list)
    for row in rows:
        groups[row.recipe, row.algorithm].append(row)
    columns = [
        Column("runs", [Text(" ".join(key)) for key in groups]),
        Column(
            "settings",
            [str(len({row.config_hash for row in group})) for group in groups.values()],
            right=True,
        ),
        Column("states", [_states(group) for group in groups.values()], wraps_to=_LONGEST_STATE),
        Column("epochs", [_epochs(group) for group in groups.values()], right=True),
    ]
    return FittingTable(columns, ("epochs",))


def _telling(columns: Iterable[Column]) -> list[Column]:
    """The columns that have something to tell."""
    return [column for column in columns if any(map(str, column.cells))]


def _name(row: StatusRow, *, with_recipe: bool) -> str:
    return " ".join(
        filter(None, (row.recipe if with_recipe else "", row.algorithm, row.variant, f"seed {row.seed}"))
    )


def _state(row: StatusRow) -> Text:
    note = f", diverged in epoch {row.diverged_epoch}" if row.diverged_epoch is not None else ""
    return Text(row.state + note, style=STYLES.get(row.state, ""))


def _job(row: StatusRow) -> str:
    """The job of a run that is not done: 123_4 RUNNING."""
    return " ".join(filter(None, (row.job, row.queue))) if row.queue or row.state == "running" else ""


def _epochs(group: Sequence[StatusRow]) -> str:
    return f"{sum(row.epochs_done for row in group)}/{sum(row.epochs_total for row in group)}"


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return percent(sum(known) / len(known)) if known else ""


def _troubles(rows: Sequence[StatusRow]) -> list[Text]:
    """A line for each reason why runs need a person, with the runs that it concerns."""
    several_recipes = len({row.recipe for row in rows}) > 1
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        name = _name(row, with_recipe=several_recipes)
        if row.state == "failed":
            groups["failed", row.error or "no reason stored"].append(name)
        elif row.state == "stale":
            cure = "; `pfa run` resumes it"
            if row.host != Owner.current().host:
                cure = ", unless its clock is behind: `pfa run` looks before it takes a run over"
            groups["stale", f"no process of {row.host} is at work on it{cure}"].append(name)
    return [
        Text(f"{state}: {_listed(names)}: {reason}", style=STYLES[state])
        for (state, reason), names in groups.items()
    ]


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"
