"""Bringing the results of another machine into this database.

What is new is added. Where both have a run, the longer one is kept if it goes on from exactly the epochs of
the other; else the two contradict each other, ours is kept, and the report says where they part. Merging
again changes nothing.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, and_, insert, select, update

from pfa_cli.errors import UsageError
from pfa_cli.store import checksums
from pfa_cli.store.check import broken_pages
from pfa_cli.store.checksums import Row, rows
from pfa_cli.store.engine import open_store
from pfa_cli.store.errors import DamagedDatabase, NoResults
from pfa_cli.store.schema import attempts, benchmarks, epochs, layers, runs, simulations

_CELL = ("recipe", "algorithm", "seed", "config_hash")
_PROGRESS = (
    "state",
    "error",
    "epochs_done",
    "diverged_epoch",
    "started_at",
    "finished_at",
    "host",
    "heartbeat_at",
    "pid_namespace",
    "sources",
)
_TIMINGS = {
    "run_id",
    "attempt_id",
    "seconds",
    "images_per_second",
    "checksum",
}  # may differ between equal epochs


@dataclass
class MergeReport:
    """What a merge did: counts of runs, simulations and benchmark values, and a line per contradiction."""

    added: int = 0
    extended: int = 0
    unchanged: int = 0
    simulations: int = 0
    benchmarks: int = 0
    conflicts: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = f"{self.added} runs added, {self.extended} extended, {self.unchanged} unchanged"
        others = f"{self.simulations} simulations and {self.benchmarks} benchmark values added"
        return "\n".join([f"{counts}; {others}", *(f"conflict: {line}" for line in self.conflicts)])


@dataclass(frozen=True)
class _History:
    """All that one database knows of one run."""

    run: Row
    attempts: list[Row]
    epochs: list[Row]
    layers: list[Row]

    @property
    def last_epoch(self) -> int:
        return self.epochs[-1]["epoch"] if self.epochs else -1

    @property
    def title(self) -> str:
        return "{recipe} {algorithm} seed {seed} (configuration {config_hash})".format(**self.run)


def merge(db: str | None, other_db: str) -> MergeReport:
    """Brings runs, simulations and benchmarks of ``other_db`` into ``db``, made if missing; the other is only read.

    Each run is one transaction, so a merge that is interrupted can simply be repeated. Checkpoints stay where
    they are: a run that was not finished there starts from the beginning if it is continued here. A run that
    is running there counts as interrupted here.

    Raises NoResults or StoreError (see ``open_store``), and UsageError if both are the same database.
    """
    report = MergeReport()
    try:
        there = open_store(other_db, write=False)
    except NoResults:
        raise NoResults(f"no results at {other_db} to bring in: name the other machine's database.") from None
    with there as other, open_store(db, write=True) as store:
        if _same(store.path, other.path):
            raise UsageError(f"{other.name} is the database to merge into; name another one.")
        for what in other.read(broken_pages) if other.path else []:
            raise DamagedDatabase(other.name, what)
        other.read(checksums.verify)
        known = set(store.read(_fingerprints).values()) - {None}
        for run_id, fingerprint in other.read(_fingerprints).items():
            if fingerprint in known:
                report.unchanged += 1
                continue
            theirs = other.read(partial(_history, which=runs.c.id == run_id))
            if theirs and (theirs.epochs or theirs.run["state"] != "queued"):
                with store.write() as connection:
                    _merge_run(connection, theirs, report)
        with store.write() as connection:
            _merge_simulations(connection, other.read(lambda c: rows(c, simulations)), report)
            _merge_benchmarks(connection, other.read(lambda c: rows(c, benchmarks)), report)
    return report


def _fingerprints(connection: Connection) -> dict[int, tuple[Any, ...] | None]:
    """By run: what it is, its state and its epochs' checksums; None where an epoch has none. Equal ones are the same run."""
    every = select(runs.c.id, *(runs.c[name] for name in (*_CELL, "state")), epochs.c.checksum)
    query = every.join_from(runs, epochs, isouter=True).order_by(runs.c.id, epochs.c.epoch)
    found: dict[int, tuple[Any, ...] | None] = {}
    for run_id, group in groupby(connection.execute(query), key=lambda row: int(row[0])):
        of_run = [tuple(row) for row in group]
        of_epochs = [row[-1] for row in of_run]
        found[run_id] = None if None in of_epochs else (*of_run[0][1:-1], *of_epochs)
    return found


def _merge_run(connection: Connection, theirs: _History, report: MergeReport) -> None:
    if theirs.run["state"] == "running":
        theirs.run["state"] = "interrupted"
    ours = _history(connection, and_(*(runs.c[name] == theirs.run[name] for name in _CELL)))
    if ours is None:
        row = {name: value for name, value in theirs.run.items() if name != "id"}
        row |= {"token": None, "checkpoint": None, "checkpoint_dir": None}
        run_id = connection.execute(insert(runs).values(row).returning(runs.c.id)).scalar_one()
        _append(connection, run_id, theirs, known=[], after=-1)
        report.added += 1
        return
    difference = _first_difference(ours, theirs)
    if difference is not None:
        report.conflicts += (f"{theirs.title}: {difference}; kept ours",)
        return
    finished_there = theirs.run["state"] == "done" and ours.run["state"] != "done"
    if theirs.last_epoch <= ours.last_epoch and not (theirs.last_epoch == ours.last_epoch and finished_there):
        report.unchanged += 1
    elif ours.run["state"] == "running":
        report.conflicts += (f"{theirs.title}: is running here; kept ours, merge again when it has ended",)
    else:
        state = {name: theirs.run[name] for name in _PROGRESS}
        connection.execute(update(runs).where(runs.c.id == ours.run["id"]).values(state))
        _append(
            connection, ours.run["id"], _of_cell(theirs, ours.run), known=ours.attempts, after=ours.last_epoch
        )
        report.extended += 1


def _of_cell(theirs: _History, run: Row) -> _History:
    """``theirs`` with checksums that fit ``run``: a later pfa may describe the same configuration by more settings."""
    cell = checksums.of_cell(run)
    if cell == checksums.of_cell(theirs.run):
        return theirs
    for row in theirs.epochs:
        if row["checksum"] is not None:
            parts = [layer for layer in theirs.layers if layer["epoch"] == row["epoch"]]
            row["checksum"] = checksums.of_epoch(cell, row, parts)
    return theirs


def _append(connection: Connection, run_id: int, theirs: _History, *, known: list[Row], after: int) -> None:
    """Adds their epochs after ``after``, and their attempts; those ``known`` (by their token) may have ended since."""
    ids = {attempt["token"]: attempt["id"] for attempt in known}
    new_ids: dict[int | None, int | None] = {None: None}
    for attempt in theirs.attempts:
        if attempt["token"] in ids:
            ending = {name: attempt[name] for name in ("ended_at", "outcome")}
            connection.execute(update(attempts).where(attempts.c.id == ids[attempt["token"]]).values(ending))
        else:
            row = {name: value for name, value in attempt.items() if name != "id"} | {"run_id": run_id}
            query = insert(attempts).values(row).returning(attempts.c.id)
            ids[attempt["token"]] = connection.execute(query).scalar_one()
        new_ids[attempt["id"]] = ids[attempt["token"]]
    _insert(
        connection,
        epochs,
        (
            row | {"run_id": run_id, "attempt_id": new_ids.get(row["attempt_id"])}  # None: a changed bit
            for row in theirs.epochs
            if row["epoch"] > after
        ),
    )
    _insert(connection, layers, (row | {"run_id": run_id} for row in theirs.layers if row["epoch"] > after))


def _first_difference(ours: _History, theirs: _History) -> str | None:
    """Where the epochs that both have differ, timings aside; None if they do not."""
    last = min(ours.last_epoch, theirs.last_epoch)
    for here, there in ((ours.epochs, theirs.epochs), (ours.layers, theirs.layers)):
        a = [row for row in here if row["epoch"] <= last]
        b = [row for row in there if row["epoch"] <= last]
        for row, other in zip(a, b, strict=False):
            for name in row:
                if name not in _TIMINGS and not _equal(row[name], other[name]):
                    layer = f", layer {row['layer']}" if "layer" in row else ""
                    return f"epoch {row['epoch']}{layer}: {name} is {row[name]} here and {other[name]} there"
        if len(a) != len(b):
            return f"up to epoch {last} there are {len(a)} rows here and {len(b)} there"
    return None


def _merge_simulations(connection: Connection, theirs: list[Row], report: MergeReport) -> None:
    key = [column.name for column in simulations.primary_key]
    ours = {tuple(row[name] for name in key): row for row in rows(connection, simulations)}
    complete = {(row["kind"], row["parameters_hash"]) for row in ours.values()}
    conflicts: dict[tuple[str, str], str] = {}
    new = []
    for row in theirs:
        own = ours.get(tuple(row[name] for name in key))
        simulation = (row["kind"], row["parameters_hash"])
        if simulation not in complete:
            new.append(row)
        elif own is None or not _equal(own["value"], row["value"]):
            conflicts[simulation] = (
                f"simulation {row['kind']} of {row['parameters']}: values differ; kept ours"
            )
    _insert(connection, simulations, new)
    report.simulations += len({(row["kind"], row["parameters_hash"]) for row in new})
    report.conflicts += tuple(conflicts.values())


def _merge_benchmarks(connection: Connection, theirs: list[Row], report: MergeReport) -> None:
    known = {_benchmark_key(row) for row in rows(connection, benchmarks)}
    new = [row for row in theirs if _benchmark_key(row) not in known]
    _insert(connection, benchmarks, ({n: v for n, v in row.items() if n != "id"} for row in new))
    report.benchmarks += len(new)


def _benchmark_key(row: Row) -> str:
    return repr(
        [
            sorted(value.items()) if name == "machine" else value
            for name, value in row.items()
            if name not in ("id", "checksum")
        ]
    )


def _history(connection: Connection, which: Any) -> _History | None:
    found = connection.execute(select(runs).where(which)).mappings().one_or_none()
    if found is None:
        return None
    tables = (rows(connection, table, table.c.run_id == found["id"]) for table in (attempts, epochs, layers))
    return _History(dict(found), *tables)


def _insert(connection: Connection, table: Table, new: Iterable[Row]) -> None:
    several = list(new)
    if several:
        connection.execute(insert(table), several)


def _equal(a: Any, b: Any) -> bool:
    """Whether they are the same up to rounding, in which CPUs differ: 1e-9 of them, or 1e-12 where they are near 0."""
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


def _same(a: Path | None, b: Path | None) -> bool:
    return a is not None and b is not None and a.samefile(b)
