"""Bringing the results of other machines into this database.

What is new is added. Where both have a run, the longer one is kept if it goes on from exactly the epochs of
the other; else the two contradict each other, ours is kept, and the report says where they part. A value that one
of them lacks, such as a metric that an older pfa did not measure, contradicts nothing, and ours gets it. Merging again
changes nothing.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, Table, func, insert, select, update

from pfa_cli.errors import PfaError, UsageError
from pfa_cli.store import checksums
from pfa_cli.store.check import broken_pages
from pfa_cli.store.checksums import Row, Tables, rows, stored_values
from pfa_cli.store.engine import Store, database_name, databases_in, empty_in_memory, open_store
from pfa_cli.store.errors import DamagedValue, NoResults, StoreError, no_results
from pfa_cli.store.schema import attempts, benchmarks, epochs, layers, metadata, runs, simulations
from pfa_cli.store.server import copy_in, identity, lock_table, reading
from pfa_cli.wording import count

_CELL = ("recipe", "algorithm", "seed", "config_hash")
_PROGRESS = ["state", "error", "epochs_done", "diverged_epoch", "started_at", "finished_at", "sources"]
_PROGRESS += ["host", "pid", "pid_namespace", "process_started", "heartbeat_at", "job"]
# What may differ between equal epochs.
_TIMINGS = ("run_id", "attempt_id", "seconds", "images_per_second", "checksum")
_ATTACHED: Tables = {
    name: table.to_metadata(other)
    for other in [MetaData(schema="other")]
    for name, table in metadata.tables.items()
}


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

    def add(self, other: "MergeReport") -> None:
        """Adds what another merge did."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def __str__(self) -> str:
        counts = f"{count(self.added, 'run')} added, {self.extended} extended, {self.unchanged} unchanged"
        others = (
            f"{count(self.simulations, 'simulation')} and {count(self.benchmarks, 'benchmark value')} added"
        )
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


_Fingerprint = tuple[Any, ...]
"""What tells a run with its results from all others."""


@dataclass(frozen=True)
class _Other:
    """One state of the database to bring in. ``attached``: on the connection to ours, as another schema."""

    connection: Connection
    attached: bool

    @property
    def tables(self) -> Tables:
        return _ATTACHED if self.attached else metadata.tables

    def rows(self, name: str, run_id: int | None = None) -> list[Row]:
        """The rows of a table (of a run), every value checked."""
        table = self.tables[name]
        of_run = [] if run_id is None else [table.c["id" if name == "runs" else "run_id"] == run_id]
        return rows(self.connection, table, *of_run)

    def history(self, run_id: int) -> _History:
        return _History(self.rows("epochs", run_id), self.rows("layers", run_id))

    def verify(self, fingerprints: Mapping[int, _Fingerprint | None]) -> None:
        """Raises DamagedValue, or what the database's driver raises, if it is damaged."""
        if self.connection.dialect.name == "sqlite":
            for what in broken_pages(self.connection, "other" if self.attached else "main"):
                raise DamagedValue(what)
        checksums.verify(self.connection, self.tables)
        self.rows("attempts")
        of_runs, of_epochs = self.tables["runs"], self.tables["epochs"]
        gaps = (
            select(of_runs.c.id)
            .outerjoin(of_epochs, of_epochs.c.run_id == of_runs.c.id)
            .group_by(of_runs.c.id)
            .having(func.count(of_epochs.c.epoch) != func.coalesce(of_runs.c.epochs_done + 1, 0))
        )
        for run_id in self.connection.execute(gaps).scalars():
            raise DamagedValue(f"run {run_id} lacks an epoch")
        for run_id, fingerprint in fingerprints.items():
            if fingerprint is None:  # without checksums, only the values' types tell damage
                self.history(run_id)

    def fingerprints(self) -> dict[int, _Fingerprint | None]:
        """By run: what it is, its state and its epochs' checksums; None where an epoch has none."""
        stored = stored_values(self.connection, self.tables["epochs"], ["run_id", "checksum"])
        sums = {
            run_id: [row[1] for row in group] for run_id, group in groupby(stored, key=lambda row: row[0])
        }
        names = (*_CELL, "state")
        return {
            run["id"]: None
            if None in sums.get(run["id"], [])
            else (*(run[name] for name in names), *sums.get(run["id"], []))
            for run in self.rows("runs")
        }

    def processes(self, run_id: int) -> str:
        """How many processes trained the run together, in words: "1 process", or "1 and 2 processes" one after the other."""
        counts = sorted({row["ranks"] or 1 for row in self.rows("attempts", run_id)}) or [1]
        return f"{' and '.join(map(str, counts))} process{'' if counts == [1] else 'es'}"


def merge(db: str | None, *others: str) -> MergeReport:
    """Brings runs, simulations and benchmarks of ``others`` into ``db``, made if missing; the others are only read.

    A folder stands for the databases in it (``*.db``), but not for ``db`` itself. Each run is one transaction, so a
    merge that is interrupted can simply be repeated. Checkpoints stay where they are: a run that was not finished there
    starts from the beginning if it is continued here. A run that is running there counts as interrupted here.

    Of several others, one that is damaged, empty or none of pfa's is named in the report and left out. Of a single one,
    raises what is wrong with it: NoResults or StoreError (see ``open_store``), UsageError if both are the same database.
    """
    names, report = [], MergeReport()
    for other in others:
        try:
            names += databases_in(other)
        except NoResults as error:
            if len(others) == 1:
                raise
            report.left_out += (str(error),)
    if len(names) == 1:
        _open_other(names[0]).close()  # before ours is made
    with open_store(db, write=True) as store:
        here = store.read(lambda c: _Other(c, attached=False).fingerprints())
        known = {fingerprint for fingerprint in here.values() if fingerprint is not None}
        for name in names:
            try:
                with _open_other(name) as opened:
                    if name in others or not _same(store, opened):
                        _bring_in(store, opened, known, report)
            except PfaError as error:
                if len(names) == len(others) == 1 or getattr(error, "place", None) == store.name:
                    raise
                report.left_out += (str(error),)
    return report


def open_to_look(*names: str) -> Store:
    """The results database open for reading; several, or those in a folder (``*.db``), are united in memory.

    Raises what `open_store` raises, also if one of several is damaged, and StoreError if two contradict each other.
    """
    if len(names) < 2 and not Path(database_name(*names)).is_dir():
        return open_store(*names, write=False)
    names = names or (database_name(),)
    store = empty_in_memory(Path(names[0]))
    store.name = ", ".join(names)
    report = MergeReport()
    known: set[_Fingerprint] = set()
    try:
        for name in names:
            for one in databases_in(name):
                try:
                    with open_store(one, write=False) as other:
                        _bring_in(store, other, known, report, live=True)
                except NoResults:
                    if one == name:
                        raise
        if report.conflicts:
            raise StoreError(f"the databases in {store.name} contradict each other: {report.conflicts[0]}")
        if not report.added:
            raise no_results(store.name)
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


def _bring_in(
    store: Store, other: Store, known: set[_Fingerprint], report: MergeReport, *, live: bool = False
) -> None:
    """Adds to ``report``, and to ``known``, the fingerprints of the runs in ``store``.

    Every run is a transaction: those who train into a server's database, or into a file, wait as long as that takes.

    ``live``: to look at the runs: queued and running ones are brought in as they are, and their numbers are not held
    against their checksums, as is done when they are read. All of them are one transaction, in memory.
    """
    if _same(store, other):
        raise UsageError(f"{other.name} is the database to merge into; name another one.")

    def look(check: Callable[[], None]) -> tuple[dict[int, _Fingerprint | None], list[Row], list[Row]]:
        with _alone(other) as theirs, other.explained():
            fingerprints = theirs.fingerprints()
            if not live:
                theirs.verify(fingerprints)
            return fingerprints, theirs.rows("simulations"), theirs.rows("benchmarks")

    fingerprints, of_simulations, of_benchmarks = other.of_one_state(look)
    todo = [run_id for run_id, fingerprint in fingerprints.items() if fingerprint not in known]
    report.unchanged += len(fingerprints) - len(todo)
    attach = _can_attach(store, other)
    for ids in [todo] if live else [[run_id] for run_id in todo]:
        of_runs, same = other.of_one_state(partial(_bring_in_runs, store, other, attach, ids, live))
        report.add(of_runs)
        known |= {fingerprint for run_id in same if (fingerprint := fingerprints[run_id]) is not None}
    if of_simulations or of_benchmarks:
        of_others = MergeReport()
        with store.write() as ours:
            lock_table(ours, simulations)  # another merge may bring in the same
            _merge_simulations(ours, of_simulations, of_others)
            _merge_benchmarks(ours, of_benchmarks, of_others)
        report.add(of_others)


def _bring_in_runs(
    store: Store, other: Store, attach: bool, ids: Sequence[int], live: bool, check: Callable[[], None]
) -> tuple[MergeReport, list[int]]:
    """One transaction, and those of the runs of which both databases hold the same now; ``check``: see ``of_one_state``."""
    report, same = MergeReport(), []
    # To look, nothing but memory is written: any damage is the other's.
    with _both(store, other, attach) as (ours, theirs), other.explained() if live else nullcontext():
        with other.explained():
            found = [run for run_id in ids for run in theirs.rows("runs", run_id)]
        lock_table(ours, runs)  # another merge may bring in the same
        for run in found:
            if run["state"] == "running" and not live:
                run["state"] = "interrupted"
            wanted = live or run["state"] != "queued" or run["epochs_done"] is not None
            if wanted and _merge_run(ours, theirs, run, report, live):
                same.append(run["id"])
        check()
    return report, same


@contextmanager
def _both(store: Store, other: Store, attach: bool) -> Iterator[tuple[Connection, _Other]]:
    """A transaction of ours in which all that is read of the other is of one state; ``attach``: see `_can_attach`."""
    if attach:
        with store.write(other.path) as ours:
            yield ours, _Other(ours, attached=True)
    else:
        with store.write() as ours, _alone(other) as theirs:
            yield ours, theirs


@contextmanager
def _alone(other: Store) -> Iterator[_Other]:
    with other.engine.connect() as connection:
        yield _Other(reading(connection), attached=False)


def _can_attach(store: Store, other: Store) -> bool:
    """Whether the other's file can be attached to ours, so that SQLite copies its rows by itself, in a quarter of the time.

    It does so only where both store texts in the same encoding.
    """
    files = store.path is not None and other.path is not None and not other.in_memory
    return files and store.read(_encoding) == other.read(_encoding)


def _encoding(connection: Connection) -> str:
    return str(connection.exec_driver_sql("PRAGMA encoding").scalar_one())


def _merge_run(connection: Connection, other: _Other, theirs: Row, report: MergeReport, live: bool) -> bool:
    """Whether both databases hold the same of the run now. ``theirs``: its row in the other. ``live``: see `_bring_in`."""
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
    mine = _Other(connection, attached=False)
    here, there = mine.history(ours["id"]), other.history(theirs["id"])
    title = "{recipe} {algorithm} seed {seed} (configuration {config_hash})".format(**theirs)
    difference = _first_difference(here, there)
    processes = mine.processes(ours["id"]), other.processes(theirs["id"])
    if difference is not None and processes[0] != processes[1]:
        report.notes += (
            f"{title}: {processes[0]} trained it here and {processes[1]} there, which differ by rounding; kept ours",
        )
        report.unchanged += 1
        return False
    if difference is not None:
        report.conflicts += (f"{title}: {difference}; kept ours",)
        return False
    rank = {"done": 2, "running": 1 if live else 0}  # of two states after the same epoch
    longer = (there.last_epoch, rank.get(theirs["state"], 0)) > (here.last_epoch, rank.get(ours["state"], 0))
    if ours["state"] == "running" and not live:
        if longer:
            report.conflicts += (f"{title}: is running here; kept ours, merge again when it has ended",)
        else:
            report.unchanged += 1
        return False
    if not (_fill(connection, ours, here, there) or longer):
        report.unchanged += 1
        return False
    report.extended += 1
    if not longer:
        return True
    state = {name: theirs[name] for name in _PROGRESS}
    connection.execute(update(runs).where(runs.c.id == ours["id"]).values(state))
    _append(connection, ours["id"], other, theirs["id"], here.last_epoch, _for_cell(there, theirs, ours))
    return True


def _fill(connection: Connection, run: Row, here: _History, there: _History) -> bool:
    """Gives our run the values that it lacks and the other has, of the epochs that both have; whether there are any."""
    filled = set()
    for table, ours, theirs in ((epochs, here.epochs, there.epochs), (layers, here.layers, there.layers)):
        for row, other in zip(ours, theirs, strict=False):
            new = {name: other[name] for name in row if row[name] is None and name not in _TIMINGS}
            new = {name: value for name, value in new.items() if value is not None}
            if new:
                key = [column == row[column.name] for column in table.primary_key]
                connection.execute(update(table).where(*key).values(new))
                row |= new
                filled.add(row["epoch"])
    for epoch, checksum in (_checksums(here, run) if filled else {}).items():
        if epoch in filled:
            of_epoch = (epochs.c.run_id == run["id"], epochs.c.epoch == epoch)
            connection.execute(update(epochs).where(*of_epoch).values(checksum=checksum))
    return bool(filled)


def _for_cell(there: _History, theirs: Row, ours: Row) -> dict[int, str]:
    """The epochs' checksums for our run; a later pfa may describe the same configuration by more settings."""
    return {} if checksums.of_cell(ours) == checksums.of_cell(theirs) else _checksums(there, ours)


def _checksums(history: _History, run: Row) -> dict[int, str]:
    """The checksums of these epochs as those of ``run``, of those that have one."""
    cell = checksums.of_cell(run)
    return {
        row["epoch"]: checksums.of_epoch(
            cell, row, [layer for layer in history.layers if layer["epoch"] == row["epoch"]]
        )
        for row in history.epochs
        if row["checksum"] is not None
    }


def _append(
    connection: Connection,
    run_id: int,
    other: _Other,
    other_id: int,
    after: int = -1,
    new_checksums: Mapping[int, str] | None = None,
) -> None:
    """Adds their epochs after ``after``, and their attempts; those that are here (by their token) may have ended since."""
    known = rows(connection, attempts, attempts.c.run_id == run_id)
    ids = {attempt["token"]: attempt["id"] for attempt in known}
    new_ids: dict[int | None, int | None] = {None: None}
    for attempt in other.rows("attempts", other_id):
        if attempt["token"] in ids:
            ending = {name: attempt[name] for name in ("ended_at", "outcome")}
            connection.execute(update(attempts).where(attempts.c.id == ids[attempt["token"]]).values(ending))
        else:
            row = {name: value for name, value in attempt.items() if name != "id"} | {"run_id": run_id}
            query = insert(attempts).values(row).returning(attempts.c.id)
            ids[attempt["token"]] = connection.execute(query).scalar_one()
        new_ids[attempt["id"]] = ids[attempt["token"]]
    changed = new_checksums or {}
    names = ["epoch", "attempt_id", "checksum", *_others(epochs, "run_id", "epoch", "attempt_id", "checksum")]
    of_epochs = stored_values(other.connection, other.tables["epochs"], names, [other_id])
    _add(
        connection,
        epochs,
        ["run_id", *names],
        (
            # No attempt: a changed bit in its number, which is no result.
            (run_id, epoch, new_ids.get(attempt), changed.get(epoch, checksum), *measured)
            for epoch, attempt, checksum, *measured in of_epochs
            if epoch > after
        ),
    )
    names = ["epoch", *_others(layers, "run_id", "epoch")]
    if other.attached:
        values = ", ".join(names)
        connection.exec_driver_sql(
            f"INSERT INTO layers (run_id, {values}) SELECT {run_id}, {values} FROM other.layers "
            f"WHERE run_id = {other_id} AND epoch > {after}"
        )
    else:
        of_layers = stored_values(other.connection, layers, names, [other_id])
        _add(connection, layers, ["run_id", *names], ((run_id, *row) for row in of_layers if row[0] > after))


def _others(table: Table, *names: str) -> list[str]:
    return [name for name in table.columns.keys() if name not in names]  # noqa: SIM118


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
    """Where the epochs that both have differ, timings and values that one lacks aside; None if they do not."""
    last = min(ours.last_epoch, theirs.last_epoch)
    for here, there in ((ours.epochs, theirs.epochs), (ours.layers, theirs.layers)):
        a = [row for row in here if row["epoch"] <= last]
        b = [row for row in there if row["epoch"] <= last]
        for row, other in zip(a, b, strict=False):
            for name in row:
                if None in (row[name], other[name]) or name in _TIMINGS:
                    continue
                if not _equal(row[name], other[name], name):
                    layer = f", layer {row['layer']}" if "layer" in row else ""
                    return f"epoch {row['epoch']}{layer}: {name} is {row[name]} here and {other[name]} there"
        if len(a) != len(b):
            return f"rows up to epoch {last}: {len(a)} here and {len(b)} there"
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
        elif own is None or not _equal(own["value"], row["value"], row["quantity"]):
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


def _insert(connection: Connection, table: Table, new: Iterable[Row]) -> None:
    several = list(new)
    if several:
        connection.execute(insert(table), several)


def _equal(a: Any, b: Any, quantity: str = "") -> bool:
    """Whether they are the same up to rounding, in which CPUs differ: 1e-9 of them, or 1e-12 where they are near 0.

    Angles are the same up to 1e-5°: near 0° they are those of vectors that differ by rounding alone.
    """
    if isinstance(a, float) and isinstance(b, float):
        near_zero = 1e-5 if quantity.endswith("_degrees") else 1e-12
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=near_zero) or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


def _same(a: Store, b: Store) -> bool:
    if a.in_memory:
        return False
    if a.path is None or b.path is None:
        return a.path is b.path and a.read(identity) == b.read(identity)
    return a.path.samefile(b.path)
