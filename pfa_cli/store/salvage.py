"""``pfa db salvage``: what can still be read of a damaged database, in a new one. The damaged one is only read.

A run keeps its number, so that its checkpoints still belong to it, and its epochs up to the first that is missing
or incomplete. One that lost epochs counts as interrupted there: `pfa run` computes the rest again.
"""

import shutil
import sqlite3
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Engine,
    StaticPool,
    Table,
    create_engine,
    false,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.exc import SQLAlchemyError

from pfa_cli import files
from pfa_cli.errors import UsageError
from pfa_cli.store import checksums
from pfa_cli.store.checksums import Row
from pfa_cli.store.engine import Store, database_file, open_store
from pfa_cli.store.errors import StoreError, no_results
from pfa_cli.store.schema import attempts, benchmarks, epochs, layers, runs, simulations
from pfa_cli.store.sqlite import log_of
from pfa_cli.wording import count

_UNREADABLE = (
    SQLAlchemyError,
    sqlite3.Error,
    ValueError,
    TypeError,
)  # the latter two: values that make no sense
# Where to stop looking for runs if the database does not say how many there are, and if the number may be damaged.
_MANY_RUNS, _MOST_RUNS = 1 << 12, 1 << 16


@dataclass
class SalvageReport:
    """What was saved: how many runs as they were, and a line for all that is shorter now or lost."""

    out: Path
    whole: int = 0
    losses: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([f"{self.out}: {count(self.whole, 'whole run')} saved", *self.losses])


def salvage(db: str | None, out: Path) -> SalvageReport:
    """Saves what can be read of the database that ``db`` names in the new database ``out``.

    Raises NoResults if there is no database, StoreError if no run can be read or ``out`` cannot be written, and
    UsageError if ``out`` exists or the database is not a file.
    """
    path = database_file(db)
    if path is None:
        raise UsageError("only a database in a file can be salvaged.")
    if out.exists():
        raise UsageError(f"{out} exists already; name a new file.")
    try:
        files.refuse_special(path)
        if not path.exists():
            raise no_results(str(path))
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.absolute().parent) as folder:
            damaged, saved = _copy_of(path, Path(folder)), Path(folder, "saved.db")
            try:
                report = _save(damaged, path, saved, out)
            finally:
                damaged.dispose()
            saved.rename(out)
            return report
    except OSError as error:
        raise StoreError(
            f"cannot save {path} in {out} ({error.strerror or error}). Name a file in a folder where you may write "
            "and there is room, and see that you may read the database."
        ) from error


def _save(damaged: Engine, path: Path, saved: Path, out: Path) -> SalvageReport:
    """Fills ``saved``, which is to be called ``out``."""
    found = whole = _read(damaged, runs)
    if whole is None and _read(damaged, runs, false()) is not None:  # the schema can be read
        found = _readable(damaged, runs, runs.c.id, 1, _last_run(damaged))
    if not found:
        raise StoreError(f"no run can be read of {path}. Take an older copy, or compute the runs again.")
    report = SalvageReport(out)
    if whole is None:
        report.losses.append(f"some runs cannot be read and are lost; {count(len(found), 'run')} left")
    with open_store(str(saved), write=True) as store:
        store.name = str(out)
        for run in found:
            _save_run(damaged, store, run, report)
        for table in (simulations, benchmarks):
            _save_table(damaged, store, table, report)
    return report


def _copy_of(path: Path, folder: Path) -> Engine:
    """A copy, for SQLite to work on. One that was cut off is filled up, or SQLite would refuse it as a whole."""
    copy = folder / "copy.db"
    shutil.copyfile(path, copy)
    log = log_of(path)
    if log.exists():
        shutil.copyfile(log, folder / "copy.db-wal")
    with copy.open("rb") as file:
        header = file.read(100)
    page_size, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
    if copy.stat().st_size < page_size * pages < 1 << 36:
        with copy.open("r+b") as file:
            file.truncate(page_size * pages)
    return create_engine("sqlite://", creator=lambda: sqlite3.connect(copy), poolclass=StaticPool)


def _save_run(damaged: Engine, store: Store, run: Row, report: SalvageReport) -> None:
    title = f"run {run['id']} ({run['recipe']} {run['algorithm']} seed {run['seed']})"
    total = run["epochs_total"] = run["configuration"].get("epochs", run["epochs_total"])
    tries = _read(damaged, attempts, attempts.c.run_id == run["id"])
    stored = _readable(damaged, epochs, epochs.c.epoch, 0, total, epochs.c.run_id == run["id"])
    parts = _readable(damaged, layers, layers.c.epoch, 0, total, layers.c.run_id == run["id"])
    n_stored = 0 if run["epochs_done"] is None else run["epochs_done"] + 1
    n_whole = min(_whole_epochs(run, stored, parts), n_stored)
    diverged = next((epoch["epoch"] for epoch in stored[:n_whole] if epoch["diverged"]), None)
    row = run | {"token": None, "epochs_done": n_whole - 1 if n_whole else None, "diverged_epoch": diverged}
    if n_whole < n_stored:
        row |= {"state": "interrupted", "finished_at": None}
    elif run["state"] not in ("done", "failed", "queued") or (
        run["state"] == "done" and n_whole <= total and diverged is None
    ):
        row["state"] = "interrupted"
    known = {None, *(attempt["id"] for attempt in tries or [])}
    lost_tries = tries is None or any(epoch["attempt_id"] not in known for epoch in stored)
    for epoch in stored:
        epoch["attempt_id"] = epoch["attempt_id"] if epoch["attempt_id"] in known else None
    try:
        with store.write() as connection:
            connection.execute(insert(runs).values(row))
            for table, rows in ((attempts, tries or []), (epochs, stored[:n_whole]), (layers, parts)):
                kept = [each for each in rows if table is attempts or each["epoch"] < n_whole]
                if kept:
                    connection.execute(insert(table), kept)
    except _UNREADABLE:
        report.losses.append(f"{title} could not be saved")
        return
    if n_whole < n_stored:
        report.losses.append(f"{title} lost epochs: {n_whole} of {n_stored} saved")
    if lost_tries:
        report.losses.append(f"{title} lost attempts: when and on what machine it ran")
    if n_whole == n_stored and not lost_tries:
        report.whole += 1


def _whole_epochs(run: Row, stored: list[Row], parts: list[Row]) -> int:
    """How many epochs, from 0 on, are there with all their layers, as they were stored; without a layer none is whole."""
    wrong = checksums.wrong_epochs(run, stored, parts)
    n_layers = Counter(part["epoch"] for part in parts)
    complete = max(n_layers.values(), default=1)
    n_whole = 0
    for row in stored:
        if row["epoch"] != n_whole or n_layers[n_whole] != complete or n_whole in wrong:
            break
        n_whole += 1
    return n_whole


def _save_table(damaged: Engine, store: Store, table: Table, report: SalvageReport) -> None:
    found = _read(damaged, table)
    kept = [row for row in found or [] if not checksums.is_wrong(row)]
    if found is None:
        report.losses.append(f"the {table.name} could not be saved")
    elif len(kept) < len(found):
        report.losses.append(f"{table.name}: {len(found) - len(kept)} of {len(found)} damaged and lost")
    if kept:
        with store.write() as connection:
            connection.execute(insert(table), kept)


def _last_run(damaged: Engine) -> int:
    try:
        with damaged.connect() as connection:
            last = connection.execute(select(func.max(runs.c.id))).scalar()
    except _UNREADABLE:
        return _MANY_RUNS
    return min(last or 0, _MOST_RUNS)


def _readable(
    damaged: Engine, table: Table, column: Column[Any], low: int, high: int, *conditions: ColumnElement[bool]
) -> list[Row]:
    """All rows with ``low`` ≤ ``column`` ≤ ``high`` that can be read: the range is halved until it can be."""
    rows = _read(damaged, table, column.between(low, high), *conditions)
    if rows is not None or low >= high:
        return rows or []
    middle = (low + high) // 2
    return [
        *_readable(damaged, table, column, low, middle, *conditions),
        *_readable(damaged, table, column, middle + 1, high, *conditions),
    ]


def _read(damaged: Engine, table: Table, *conditions: ColumnElement[bool]) -> list[Row] | None:
    """The rows that meet the conditions, None if they cannot all be read. A column that an older pfa had not is empty."""
    try:
        with damaged.connect() as connection:
            there = {row[1] for row in connection.execute(text(f"PRAGMA table_info({table.name})"))}
            columns = [column for column in table.columns if column.name in there]
            query = select(*columns).select_from(table).where(*conditions).order_by(*table.primary_key)
            empty = dict.fromkeys(table.columns.keys())
            return [empty | row._asdict() for row in connection.execute(query)]
    except _UNREADABLE:
        return None
