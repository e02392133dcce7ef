"""Bringing the results of other machines into this database.

What is new is added. Where both have a run, the longer one is kept if it goes on from exactly the epochs of
the other; else the two contradict each other, ours is kept, and the report says where they part. Merging
again changes nothing.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, insert, select, update

from pfa_cli.errors import PfaError, UsageError
from pfa_cli.store import checksums
from pfa_cli.store.check import broken_pages
from pfa_cli.store.checksums import Row, rows, stored_values
from pfa_cli.store.engine import Store, database_name, databases_in, empty_in_memory, open_store
from pfa_cli.store.errors import DamagedDatabase, NoResults, StoreError, no_results
from pfa_cli.store.schema import attempts, benchmarks, epochs, layers, runs, simulations
from pfa_cli.store.server import copy_in, identity, lock_table

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
    """What a merge did: counts of runs, simulations and benchmark values, and a line per contradiction.

    ``notes``: runs that other numbers of processes trained, so that they differ. ``left_out``: why a database was not
    brought in. A line for each.
    """

    added: int = 0
    extended: int = 0
    unchanged: int = 0
    simulations: int = 0
    benchmarks: int = 0
    conflicts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = f"{self.added} runs added, {self.extended} extended, {self.unchanged} unchanged"
        others = f"{self.simulations} simulations and {self.benchmarks} benchmark values added"
        conflicts = (f"conflict: {line}" for line in self.conflicts)
        left_out = (f"left out: {line}" for line in self.left_out)
        return "\n".join([f"{counts}; {others}", *conflicts, *self.notes, *left_out])


@dataclass(frozen=True)
class _History:
    """All that one database knows of one run's epochs, with every value checked."""

    epochs: list[Row]
    layers: list[Row]

    @property
    def last_epoch(self) -> int:
        return self.epochs[-1]["epoch"] if self.epochs else -1


def merge(db: str | None, *others: str) -> MergeReport:
    """Brings runs, simulations and benchmarks of ``others`` into ``db``, made if missing; the others are only read.

    A folder stands for the databases in it (``*.db``). Each run is one transaction, so a merge that is interrupted can
    simply be repeated. Checkpoints stay where they are: a run that was not finished there starts from the beginning if
    it is continued here. A run that is running there counts as interrupted here.

    Of several others, one that is damaged, empty or none of pfa's is named in the report and left out. Of a single one,
    raises what is wrong with it: NoResults or StoreError (see ``open_store``), UsageError if both are the same database.
    """
    names = [name for other in others for name in databases_in(other)]
    report = MergeReport()
    if len(names) == 1:
        _open_other(names[0]).close()  # before ours is made
    with open_store(db, write=True) as store:
        known = set(store.read(_fingerprints).values()) - {None}
        for name in names:
            try:
                other = _open_whole(name, store)
            except PfaError as error:
                if len(names) == 1:
                    raise
                report.left_out += (str(error),)
                continue
            with other:
                _merge_database(store, other, known, report)
    return report


def open_to_look(db: str | None = None) -> Store:
    """The results database open for reading; those in a folder (``*.db``) united in memory, if ``db`` names one.

    Raises what `open_store` raises, also if one of several is damaged, and StoreError if two contradict each other.
    """
    name = database_name(db)
    if not Path(name).is_dir():
        return open_store(db, write=False)
    store = empty_in_memory(Path(name))
    report = MergeReport()
    known: set[tuple[Any, ...] | None] = set()
    try:
        for each in databases_in(name):
            try:
                other = _open_whole(each, store)
            except NoResults:  # one whose run has only begun
                continue
            with other:
                _merge_database(store, other, known, report, live=True)
        if report.conflicts:
            raise StoreError(f"the databases in {name} contradict each other: {report.conflicts[0]}")
        if not known and not report.added:
            raise no_results(name)
    except BaseException:
        store.close()
        raise
    store.writable = False
    return store


def _open_other(name: str) -> Store:
    try:
        return open_store(name, write=False)
    except NoResults:
        raise NoResults(f"no results at {name} to bring in: name the other machine's database.") from None


def _open_whole(name: str, store: Store) -> Store:
    """The database to bring into ``store``; PfaError if it is the same, or damaged."""
    other = _open_other(name)
    try:
        if _same(store, other):
            raise UsageError(f"{other.name} is the database to merge into; name another one.")
        for what in other.read(broken_pages) if other.path else []:
            raise DamagedDatabase(other.name, what)
        other.read(checksums.verify)
        for run_id, fingerprint in other.read(_fingerprints).items():
            if fingerprint is None:  # without checksums, only the values' types tell damage
                other.read(partial(_history, run_id=run_id))
    except BaseException:
        other.close()
        raise
    return other


def _merge_database(
    store: Store,
    other: Store,
    known: set[tuple[Any, ...] | None],
    report: MergeReport,
    *,
    live: bool = False,
) -> None:
    """``known``: the fingerprints of the runs in ``store``, to which those that are added are added.

    ``live``: queued and running runs are brought in as they are, to look at them.
    """
    for run_id, fingerprint in other.read(_fingerprints).items():
        if fingerprint in known:
            report.unchanged += 1
            continue
        (theirs,) = other.read(partial(_run, run_id=run_id))
        if theirs["state"] == "running" and not live:
            theirs["state"] = "interrupted"
        if live or theirs["state"] != "queued" or theirs["epochs_done"] is not None:
            with store.write() as connection:
                lock_table(connection, runs)  # another merge may bring in the same
                if _merge_run(connection, other, theirs, report) and fingerprint is not None:
                    known.add(fingerprint)
    with store.write() as connection:
        lock_table(connection, simulations)
        _merge_simulations(connection, other.read(lambda c: rows(c, simulations)), report)
        _merge_benchmarks(connection, other.read(lambda c: rows(c, benchmarks)), report)


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


def _merge_run(connection: Connection, other: Store, theirs: Row, report: MergeReport) -> bool:
    """Whether both databases hold the same of the run now. ``theirs``: its row in the other."""
    cell = select(runs).where(*(runs.c[name] == theirs[name] for name in _CELL))
    found = connection.execute(cell).mappings().one_or_none()
    if found is None:
        row = {name: value for name, value in theirs.items() if name != "id"}
        row |= {"token": None, "checkpoint": None, "checkpoint_dir": None}
        run_id = connection.execute(insert(runs).values(row).returning(runs.c.id)).scalar_one()
        _append(connection, run_id, other, theirs["id"])
        report.added += 1
        return True
    ours = dict(found)
    here = _history(connection, ours["id"])
    there = other.read(lambda c: _history(c, theirs["id"]))
    title = "{recipe} {algorithm} seed {seed} (configuration {config_hash})".format(**theirs)
    difference = _first_difference(here, there)
    processes = _processes(connection, ours["id"]), other.read(lambda c: _processes(c, theirs["id"]))
    if difference is not None and processes[0] != processes[1]:
        report.notes += (
            f"{title}: {processes[0]} trained it here and {processes[1]} there, which differ by rounding; kept ours",
        )
        report.unchanged += 1
        return False
    if difference is not None:
        report.conflicts += (f"{title}: {difference}; kept ours",)
        return False
    finished_there = theirs["state"] == "done" and ours["state"] != "done"
    if there.last_epoch <= here.last_epoch and not (there.last_epoch == here.last_epoch and finished_there):
        report.unchanged += 1
        return False
    if ours["state"] == "running":
        report.conflicts += (f"{title}: is running here; kept ours, merge again when it has ended",)
        return False
    state = {name: theirs[name] for name in _PROGRESS}
    connection.execute(update(runs).where(runs.c.id == ours["id"]).values(state))
    _append(connection, ours["id"], other, theirs["id"], here.last_epoch, _for_cell(there, theirs, ours))
    report.extended += 1
    return True


def _for_cell(there: _History, theirs: Row, ours: Row) -> dict[int, str]:
    """The epochs' checksums for our run; a later pfa may describe the same configuration by more settings."""
    cell = checksums.of_cell(ours)
    if cell == checksums.of_cell(theirs):
        return {}
    return {
        row["epoch"]: checksums.of_epoch(
            cell, row, [layer for layer in there.layers if layer["epoch"] == row["epoch"]]
        )
        for row in there.epochs
        if row["checksum"] is not None
    }


def _append(
    connection: Connection,
    run_id: int,
    other: Store,
    other_id: int,
    after: int = -1,
    new_checksums: Mapping[int, str] | None = None,
) -> None:
    """Adds their epochs after ``after``, and their attempts; those that are here (by their token) may have ended since."""
    known = rows(connection, attempts, attempts.c.run_id == run_id)
    ids = {attempt["token"]: attempt["id"] for attempt in known}
    new_ids: dict[int | None, int | None] = {None: None}
    for attempt in other.read(lambda c: rows(c, attempts, attempts.c.run_id == other_id)):
        if attempt["token"] in ids:
            ending = {name: attempt[name] for name in ("ended_at", "outcome")}
            connection.execute(update(attempts).where(attempts.c.id == ids[attempt["token"]]).values(ending))
        else:
            row = {name: value for name, value in attempt.items() if name != "id"} | {"run_id": run_id}
            query = insert(attempts).values(row).returning(attempts.c.id)
            ids[attempt["token"]] = connection.execute(query).scalar_one()
        new_ids[attempt["id"]] = ids[attempt["token"]]
    changed = new_checksums or {}
    names = ["epoch", "attempt_id", "checksum"]
    names += [name for name in epochs.columns.keys() if name not in ("run_id", *names)]  # noqa: SIM118
    _add(
        connection,
        epochs,
        ["run_id", *names],
        (
            # No attempt: a changed bit in its number, which is no result.
            (run_id, epoch, new_ids.get(attempt), changed.get(epoch, checksum), *measured)
            for epoch, attempt, checksum, *measured in other.read(
                lambda c: list(stored_values(c, epochs, names, other_id))
            )
            if epoch > after
        ),
    )
    names = ["epoch", *(name for name in layers.columns.keys() if name not in ("run_id", "epoch"))]  # noqa: SIM118
    of_layers = other.read(lambda c: list(stored_values(c, layers, names, other_id)))
    _add(connection, layers, ["run_id", *names], ((run_id, *row) for row in of_layers if row[0] > after))


def _add(connection: Connection, table: Table, names: Sequence[str], new: Iterable[tuple[Any, ...]]) -> None:
    """Adds rows of values as SQLite stores them, by the driver: ten times as fast as one by one through SQLAlchemy."""
    if connection.dialect.name != "sqlite":
        copy_in(connection, table, names, new)
        return
    raw: Any = connection.connection.driver_connection
    raw.executemany(
        f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", new
    )


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


def _run(connection: Connection, run_id: int) -> list[Row]:
    return rows(connection, runs, runs.c.id == run_id)


def _history(connection: Connection, run_id: int) -> _History:
    return _History(*(rows(connection, table, table.c.run_id == run_id) for table in (epochs, layers)))


def _processes(connection: Connection, run_id: int) -> str:
    """How many processes trained the run together, in words: "1 process", or "1 and 2 processes" one after the other."""
    query = select(attempts.c.ranks).where(attempts.c.run_id == run_id)
    counts = sorted({ranks or 1 for ranks in connection.execute(query).scalars()}) or [1]
    return f"{' and '.join(map(str, counts))} process{'' if counts == [1] else 'es'}"


def _insert(connection: Connection, table: Table, new: Iterable[Row]) -> None:
    several = list(new)
    if several:
        connection.execute(insert(table), several)


def _equal(a: Any, b: Any) -> bool:
    """Whether they are the same up to rounding, in which CPUs differ: 1e-9 of them, or 1e-12 where they are near 0."""
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


def _same(a: Store, b: Store) -> bool:
    if a.path is None or b.path is None:
        return a.path is b.path and a.read(identity) == b.read(identity)
    return a.path.samefile(b.path)
