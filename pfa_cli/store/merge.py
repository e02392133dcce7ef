"""Bringing the results of other machines into this database.

What is new is added. Where both have a run, the longer one is kept if it goes on from exactly the epochs of
the other; else the two contradict each other, ours is kept, and the report says where they part. A value that one
of them lacks, such as a metric that an older pfa did not measure, contradicts nothing, and ours gets it. Merging again
changes nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, Table, insert

from pfa_cli.errors import PfaError, UsageError
from pfa_cli.store.checksums import Row, rows
from pfa_cli.store.engine import Store, database_name, databases_in, empty_in_memory, open_store
from pfa_cli.store.errors import NoResults, StoreError, no_results
from pfa_cli.store.merge_run import MergeReport, equal, merge_run
from pfa_cli.store.other_database import Fingerprint, Other
from pfa_cli.store.schema import benchmarks, runs, simulations
from pfa_cli.store.server import identity, lock_table, reading


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
        here = store.read(lambda c: Other(c, attached=False).fingerprints())
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
    known: set[Fingerprint] = set()
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
    store: Store, other: Store, known: set[Fingerprint], report: MergeReport, *, live: bool = False
) -> None:
    """Adds to ``report``, and to ``known``, the fingerprints of the runs in ``store``.

    Every run is a transaction: those who train into a server's database, or into a file, wait as long as that takes.

    ``live``: to look at the runs: queued and running ones are brought in as they are, and their numbers are not held
    against their checksums, as is done when they are read. All of them are one transaction, in memory.
    """
    if _same(store, other):
        raise UsageError(f"{other.name} is the database to merge into; name another one.")

    def look(check: Callable[[], None]) -> tuple[dict[int, Fingerprint | None], list[Row], list[Row]]:
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
            if wanted and merge_run(ours, theirs, run, report, live):
                same.append(run["id"])
        check()
    return report, same


@contextmanager
def _both(store: Store, other: Store, attach: bool) -> Iterator[tuple[Connection, Other]]:
    """A transaction of ours in which all that is read of the other is of one state; ``attach``: see `_can_attach`."""
    if attach:
        with store.write(other.path) as ours:
            yield ours, Other(ours, attached=True)
    else:
        with store.write() as ours, _alone(other) as theirs:
            yield ours, theirs


@contextmanager
def _alone(other: Store) -> Iterator[Other]:
    with other.engine.connect() as connection:
        yield Other(reading(connection), attached=False)


def _can_attach(store: Store, other: Store) -> bool:
    """Whether the other's file can be attached to ours, so that SQLite copies its rows by itself, in a quarter of the time.

    It does so only where both store texts in the same encoding.
    """
    files = store.path is not None and other.path is not None and not other.in_memory
    return files and store.read(_encoding) == other.read(_encoding)


def _encoding(connection: Connection) -> str:
    return str(connection.exec_driver_sql("PRAGMA encoding").scalar_one())


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
        elif own is None or not equal(own["value"], row["value"], row["quantity"]):
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


def _same(a: Store, b: Store) -> bool:
    if a.in_memory:
        return False
    if a.path is None or b.path is None:
        return a.path is b.path and a.read(identity) == b.read(identity)
    return a.path.samefile(b.path)
