"""Where every run stands: rows for `pfa status`, read without disturbing any run and without torch."""

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text
from sqlalchemy import func, select

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.errors import PfaError
from pfa_cli.runs.liveness import shown_state
from pfa_cli.runs.status_table import StatusTable
from pfa_cli.runs.timing import EpochSeconds
from pfa_cli.runs.wording import in_number_order, setting
from pfa_cli.store.engine import Store
from pfa_cli.store.queries import RunRow, runs
from pfa_cli.store.schema import attempts

# With one epoch alone an estimate would mostly be of how long things take to start.
_EPOCHS_FOR_ETA = 2


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
    heartbeat_at: datetime | None
    diverged_epoch: int | None
    error: str | None


def rows(store: Store, recipe: str | None = None) -> list[StatusRow]:
    """Every run (of one recipe) with its state now: "stale" where the database says running still."""
    found = runs(store, recipe)
    tries = _attempts(store)
    seconds = EpochSeconds(found)
    variants = _variants(found)
    order = {name: place for place, name in enumerate(ALGORITHMS)}  # rather than alphabetical
    found.sort(
        key=lambda row: (
            row.recipe,
            order.get(row.algorithm, len(order)),
            in_number_order(variants[row.id]),
            row.seed,
        )
    )
    return [_status(row, variants[row.id], tries.get(row.id, 0), seconds) for row in found]


def table(found: Sequence[StatusRow]) -> StatusTable:
    """The rows for a person; on a terminal too low for one line per run, by algorithm and variant."""
    return StatusTable(found)


def as_json(found: Iterable[StatusRow]) -> str:
    """The rows as a JSON list; NaN and infinities, which JSON has not, are the texts "nan", "inf", "-inf"."""
    return json.dumps(
        [{name: _plain(value) for name, value in asdict(row).items()} for row in found], indent=2
    )


def watch(open_store: Callable[[], Store], console: Console, interval: float) -> None:
    """Shows the table anew every ``interval`` seconds until Ctrl-C; on a pipe, one table after the other."""

    def now() -> StatusTable | Text:
        try:
            with open_store() as store:
                return table(rows(store))
        except PfaError as error:
            return Text(str(error))

    try:
        if not console.is_terminal:
            while True:
                console.print(now())
                time.sleep(interval)
        with Live(now(), console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(now(), refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:
        if console.is_terminal:
            console.print(now())


def _attempts(store: Store) -> dict[int, int]:
    query = select(attempts.c.run_id, func.count()).group_by(attempts.c.run_id)
    return store.read(lambda connection: {int(run): int(n) for run, n in connection.execute(query)})


def _status(row: RunRow, variant: str, tries: int, seconds: EpochSeconds) -> StatusRow:
    state = shown_state(row)
    per_epoch = seconds.about(row.config_hash, row.recipe, row.algorithm, least=_EPOCHS_FOR_ETA)
    done = row.epochs_done or 0
    left = (
        None
        if per_epoch is None or state not in ("running", "queued")
        else per_epoch * (row.epochs_total - done)
    )
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
        heartbeat_at=row.heartbeat_at,
        diverged_epoch=row.diverged_epoch,
        error=row.error,
    )


def _variants(found: Iterable[RunRow]) -> dict[int, str]:
    """By run id, the settings that are not the same in all runs of its recipe and algorithm."""
    groups: dict[tuple[str, str], list[RunRow]] = defaultdict(list)
    for row in found:
        groups[row.recipe, row.algorithm].append(row)
    variants = {}
    for group in groups.values():
        settings = {row.id: _flat(row.configuration) for row in group}
        values: dict[str, Counter[str]] = defaultdict(Counter)
        for own in settings.values():
            for name, value in own.items():
                values[name][repr(value)] += 1
        differing = [name for name, seen in values.items() if max(seen.values()) < len(group)]
        if "epochs" in differing and "milestones" in differing:
            differing.remove("milestones")  # they scale with the epochs
        for run_id, own in settings.items():
            variants[run_id] = " ".join(setting(name, own[name]) for name in differing if name in own)
    return variants


def _flat(configuration: dict[str, Any]) -> dict[str, Any]:
    options = configuration.get("options", {})
    return {name: value for name, value in configuration.items() if name != "options"} | options


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
