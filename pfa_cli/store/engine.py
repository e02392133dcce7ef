"""Opening the results database: to write (created, brought up to date) or to read (never touched)."""

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    NullPool,
    QueuePool,
    StaticPool,
    create_engine,
    event,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import DatabaseError, DBAPIError

from pfa_cli.errors import UsageError, shown
from pfa_cli.paths import expanded_database
from pfa_cli.signals import stop_requested
from pfa_cli.store import server, sqlite
from pfa_cli.store.errors import DamagedDatabase, DamagedValue, NoResults, ServerLost, StoreError, no_results
from pfa_cli.store.schema import SCHEMA_REVISION, add_missing_columns, epochs, layers, metadata

T = TypeVar("T")

DEFAULT_DATABASE = "results/pfa.db"
PATIENCE_SECONDS = 600.0
"""How long a server that was there is waited for."""
_BRIEF_SECONDS = 2.0
_READ_ATTEMPTS = 20
# Revisions that are nothing to a viewer but columns which may be empty: to read, these are added without alembic, which
# takes 0.6 s to import.
_ONLY_COLUMNS = ("0002",)
_SQLITE_COLUMNS = (  # the type, too: a damaged one may not be UTF-8, which the driver says
    "SELECT m.name, c.name, c.type FROM sqlite_master m, pragma_table_info(m.name) c "
    "WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
)


class _Changed(Exception):
    """A writer came to a file that was at rest."""


class Store:
    """An open results database. Use it in a ``with`` block, and read and write by its two methods only.

    ``path`` is the database's file, or None where it is not a file; ``name`` is what messages call it.
    """

    def __init__(self, engine: Engine, path: Path | None, *, writable: bool, in_memory: bool = False):
        """``in_memory``: what is read is a copy of the file or of the server's database."""
        self.in_memory = in_memory
        self._whole = path is None or writable or in_memory  # a transaction sees one state
        self.engine = engine
        self.path = path
        self.writable = writable
        self.verified = False  # whether the stored numbers were found to match their checksums
        self.name = shown(path) if path else server.name_of(engine.url)
        self.opened = False  # whether it was there at the start: only then is it waited for
        # Told once when the database's server is waited for.
        self.notify: Callable[[str], None] = lambda text: None
        self._identity = self._file()

    def read(self, query: Callable[[Connection], T]) -> T:
        """What ``query`` makes of one consistent state of the database. It may be called more than once."""
        return self.insist(lambda: self._read(query))

    @contextmanager
    def write(self, other: Path | None = None) -> Iterator[Connection]:
        """One transaction: all of it is stored, or nothing. It waits its turn.

        It begins with the write lock: one that read first and wrote later would fail at once, whatever the
        timeout, if another had written in between. ``other``: a file that can be read in it, as the schema "other".
        """
        if not self.writable:
            raise StoreError(f"the database {self.name} is open for reading only")
        with self.explained(), self.engine.execution_options(write=True).connect() as connection:
            attached = (
                sqlite.attached(connection.connection.driver_connection, other) if other else nullcontext()
            )
            with attached, connection.begin():
                self._check_in_place()
                yield connection

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Errors of the database inside the block that a person can mend become StoreErrors that name it and the cure."""
        try:
            yield
        except (DamagedValue, UnicodeDecodeError) as error:  # the latter: even SQLite's message is damaged
            raise DamagedDatabase(self.name, str(error)) from error
        except (DBAPIError, sqlite3.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            explanation = None
            if isinstance(cause, sqlite3.Error):
                explanation = sqlite.explain(cause, self.name, self.path.parent if self.path else None)
            elif isinstance(error, DBAPIError):
                explanation = server.explain(error, self.name)
            if explanation is None:
                raise
            explanation.place = self.name
            raise explanation from error

    def insist(self, work: Callable[[], T], *, briefly: bool = False) -> T:
        """What ``work`` gives. While the server of the database is away, ``work`` is repeated, for ten minutes at most.

        ``briefly``: for two seconds, then ServerLost.

        ``work`` has to be one transaction that may be done twice: the answer to its COMMIT can get lost.
        """
        pause, deadline = 0.1, None
        while True:
            try:
                return work()
            except ServerLost as error:
                if deadline is None:
                    deadline = time.monotonic() + (_BRIEF_SECONDS if briefly else PATIENCE_SECONDS)
                    if self.opened and not briefly:
                        self.notify(f"{error}: waits for it, up to {PATIENCE_SECONDS / 60:.0f} minutes")
                if not self.opened or time.monotonic() > deadline or stop_requested():
                    raise
                time.sleep(pause)
                pause = min(2 * pause, 1.0)

    def of_one_state(self, work: Callable[[Callable[[], None]], T]) -> T:
        """What ``work``, which reads the file, gives; repeated if a writer came to one at rest (``sqlite.connect_to_read``).

        If it writes elsewhere what it read, it has to call its argument before it commits.
        """
        for _ in range(_READ_ATTEMPTS):
            before = self._rest()

            def check(before: tuple[int, ...] | None = before) -> None:
                if before is not None and self._rest() != before:
                    raise _Changed

            try:
                result = work(check)
                check()
                return result
            except (_Changed, DatabaseError, sqlite3.DatabaseError, DamagedValue, DamagedDatabase):
                if before is None or self._rest() == before:
                    raise
                time.sleep(0.01)
        raise StoreError(
            f"the database {self.name} changes all the time; try again when its writers are done"
        )

    def _rest(self) -> tuple[int, ...] | None:
        """What changes when a writer comes to the file at rest; None if a transaction sees one state anyway."""
        at_rest = self.path is not None and not self._whole and sqlite.at_rest(self.path)
        return sqlite.state_of(self.path) if self.path is not None and at_rest else None

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self, query: Callable[[Connection], T]) -> T:
        with self.explained():
            self._check_in_place()
            return self.of_one_state(lambda check: self._read_once(query))

    def _read_once(self, query: Callable[[Connection], T]) -> T:
        with self.engine.connect() as connection:
            return query(server.reading(connection))

    def _check_in_place(self) -> None:
        """A file that was deleted or replaced can still be written to, but what is written is lost."""
        if not self.in_memory and self._file() != self._identity:
            assert self.path is not None
            raise StoreError(
                f"the database {self.name} was deleted or replaced while it was in use. Its newest results are in "
                f"{sqlite.log_of(self.path)}: keep it. {sqlite.how_to_unite(self.path)}"
            )

    def _file(self) -> tuple[int, ...] | None:
        """Which file it is; None if it is gone, or was none."""
        state = sqlite.state_of(self.path) if self.path is not None else None
        return state and state[:2]


def database_name(db: str | None = None) -> str:
    """What names the database, a path or an SQLAlchemy URL: ``db``, else PFA_DB, else ``results/pfa.db``."""
    named = os.environ.get("PFA_DB")
    return db or (expanded_database(named) if named else DEFAULT_DATABASE)


def database_file(db: str | None = None) -> Path | None:
    """The file of the database that ``db`` names (see ``database_name``), or None if it is not a file.

    Raises UsageError if ``db`` makes no sense.
    """
    name = database_name(db)
    if "://" not in name:
        return _without_links(name)
    url = server.parse(name)
    if url.get_backend_name() != "sqlite":
        return None
    if url.database in (None, "", ":memory:"):
        raise UsageError("a database in memory cannot be shared by workers; name a file by `--db`.")
    if url.query:
        raise UsageError(
            f"options in the URL of an SQLite database are not taken: give `--db {url.database}`."
        )
    return _without_links(str(url.database))


def results_folder(db: str | None = None) -> Path:
    """Where results of the database go unless another folder is named: beside it; for a server's database, ``results``."""
    path, name = database_file(db), database_name(db)
    return Path("results") if path is None else path.parent if "://" in name else Path(name).parent


def databases_in(name: str) -> list[str]:
    """The databases that ``name`` stands for: itself, or those in it (``*.db``) if it is a folder.

    Raises NoResults if there are none.
    """
    if "://" in name or not Path(name).is_dir():
        return [name]
    found = [str(path) for path in sorted(Path(name).glob("*.db"))]
    if not found:
        raise NoResults(f"{name} is a folder without databases (*.db)")
    return found


def _without_links(name: str) -> Path:
    """The file itself: SQLite's log lies beside it, not beside a link to it."""
    try:
        return Path(name).resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links that form a circle
        raise StoreError(
            f"cannot find the database {name} ({getattr(error, 'strerror', None) or 'its links form a circle'}). "
            "Name another by `--db` or PFA_DB."
        ) from None


def open_store(db: str | None = None, *, write: bool, create: bool = True) -> Store:
    """Opens the results database that ``db`` names (see ``database_name``).

    ``write=True`` creates it and its folder if missing (unless ``create`` is False), and brings an older schema up
    to date; several processes may do so at once. ``write=False`` changes nothing on the disk: an older schema is brought
    up to date in memory.

    Raises NoResults if there is nothing to read, and StoreError, with the cure, if the file is damaged, is
    something else, is of a newer pfa, or cannot be written as asked.
    """
    path = database_file(db)
    if path is None:
        store = Store(server.engine(server.parse(database_name(db))), None, writable=write)
    elif write:
        if not create:
            sqlite.refuse_to_read(path)
        if sqlite.create_if_missing(path):
            sqlite.roll_back(path)
            with _file_store(path, write=False) as found:
                _revision_of(found)
                _refuse_damaged(found)
        store = _file_store(path, write=True)
    else:
        sqlite.refuse_to_read(path)
        store = _file_store(path, write=False)
    try:
        revision, current = _revision_of(store)
        if not current:
            store = _brought_up_to_date(store, revision, create=create and write)
        if path is not None and not write:
            _refuse_damaged(store, "runs")
    except BaseException:
        store.close()
        raise
    store.opened = True
    return store


def check_writable(db: str | None = None) -> None:
    """Raises what `open_store` would raise with ``write``, as far as that shows without writing; changes nothing."""
    path = database_file(db)
    if path is None:
        with open_if_there(db):
            return
    sqlite.refuse_unwritable(path)
    with open_if_there(db) as found:
        if found is not None:
            _refuse_damaged(found)


@contextmanager
def open_if_there(db: str | None = None) -> Iterator[Store | None]:
    """The results database open for reading, or None where there are no results yet."""
    try:
        store = open_store(db, write=False)
    except NoResults:
        yield None
        return
    with store:
        yield store


def _revision_of(store: Store) -> tuple[str | None, bool]:
    """Its schema's revision, None for an empty one, and whether it needs no upgrade.

    StoreError if it is not one of pfa's, of a newer pfa, or lacks what it should have.
    """
    revision, columns = store.read(_schema_of)
    if not _is_of_pfa(revision, columns):
        raise StoreError(
            f"{store.name} is a database, but not one of pfa's; nothing was written to it. "
            "Name another by `--db` or PFA_DB."
        )
    if revision is not None and revision > SCHEMA_REVISION:
        raise _newer(store.name, f"schema {revision}, this one knows {SCHEMA_REVISION}")
    return revision, revision == SCHEMA_REVISION and not _lacks_columns(store.name, columns)


def _brought_up_to_date(store: Store, revision: str | None, *, create: bool) -> Store:
    """``store`` with today's schema; where it is only read, a copy in memory has it and the file stays as it is."""
    if not create and revision is None:
        raise no_results(store.name)
    between = range(int(revision or 0) + 1, int(SCHEMA_REVISION) + 1)
    only_columns = all(f"{number:04d}" in _ONLY_COLUMNS for number in between)
    if not store.writable:
        if store.path is None and not only_columns:
            raise StoreError(
                f"{store.name} was written by an older pfa: `pfa db upgrade` brings it up to date"
            )
        with store:
            store = _copy_in_memory(store) if store.path is not None else _server_in_memory(store)
    with store.explained(), store.engine.execution_options(write=True).connect() as connection:
        if store.in_memory and only_columns:
            with connection.begin():
                add_missing_columns(connection)
        else:
            from pfa_cli.store.migrations import upgrade  # alembic is slow to import

            upgrade(connection)
    _lacks_columns(store.name, store.read(_schema_of)[1])
    return store


def _schema_of(connection: Connection) -> tuple[str | None, dict[str, set[str]]]:
    """The revision, None if there is none, and the columns of every table."""
    columns: dict[str, set[str]] = {}
    if connection.dialect.name == "sqlite":  # inspecting takes 5 ms
        for table, column, _ in connection.exec_driver_sql(_SQLITE_COLUMNS):
            columns.setdefault(table, set()).add(column)
    else:
        for (_, table), found in inspect(connection).get_multi_columns().items():
            columns[str(table)] = {column["name"] for column in found}
    if "alembic_version" not in columns:
        return None, columns
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if revision is None else str(revision), columns


def _is_of_pfa(revision: str | None, columns: dict[str, set[str]]) -> bool:
    """Whether this is empty or pfa's, of today's schema, an earlier or a later one; others use alembic, too."""
    if revision is None:
        return columns.keys() <= {"alembic_version"}
    numbered = re.fullmatch(r"[0-9]{4}", revision) is not None and int(revision) > 0
    return numbered and not columns.keys().isdisjoint(metadata.tables)


def _lacks_columns(name: str, columns: dict[str, set[str]]) -> bool:
    """Whether it is of before some columns that may be empty; DamagedDatabase if it lacks anything else."""
    lost = sorted(metadata.tables.keys() - columns)
    if lost:
        raise DamagedDatabase(name, f"it lacks the table{'s' * (len(lost) > 1)} {', '.join(lost)}")
    incomplete = False
    for table in metadata.tables.values():
        known = set(table.columns.keys())
        missing, new = sorted(known - columns[table.name]), sorted(columns[table.name] - known)
        if missing and (new or not all(table.c[column].nullable for column in missing)):
            raise DamagedDatabase(name, f"its table {table.name} lacks the column {missing[0]}")
        if new and table in (epochs, layers):
            raise _newer(name, f"its table {table.name} has the column {new[0]}")
        incomplete = incomplete or bool(missing)
    return incomplete


def _newer(name: str, how: str) -> StoreError:
    return StoreError(
        f"the database {name} was written by a newer pfa ({how}). Update pfa, or name another database by `--db` or "
        "PFA_DB."
    )


def empty_in_memory(path: Path) -> Store:
    """A new database in memory, called ``path``, to be filled from others."""
    store = _memory_store(sqlite.connect_in_memory(), path, writable=True)
    metadata.create_all(store.engine)
    return store


def _copy_in_memory(store: Store) -> Store:
    """What ``store`` holds now, in memory, where it can be brought up to date while the file stays as it is."""

    def copy(connection: Connection) -> sqlite3.Connection:
        memory = sqlite.connect_in_memory()
        source = connection.connection.driver_connection
        assert isinstance(source, sqlite3.Connection)
        source.backup(memory)
        return memory

    return _memory_store(store.read(copy), store.path, writable=False)


def _server_in_memory(store: Store) -> Store:
    """What a server's database holds now, in memory, with today's columns; those that it lacks are empty."""

    def copy(connection: Connection) -> Store:
        columns = _schema_of(connection)[1]
        _lacks_columns(store.name, columns)
        copied = _memory_store(
            sqlite.connect_in_memory(), None, writable=True, database=store.engine.url.database
        )
        try:
            metadata.create_all(copied.engine)
            with copied.write() as memory:
                for table in metadata.sorted_tables:
                    there = select(
                        *(column for column in table.columns if column.name in columns[table.name])
                    )
                    with connection.execute(there, execution_options={"yield_per": 10_000}) as found:
                        for part in found.mappings().partitions():
                            memory.execute(insert(table), [dict(row) for row in part])
        except BaseException:
            copied.close()
            raise
        copied.name, copied.writable = store.name, False
        return copied

    return store.read(copy)


def _memory_store(
    memory: sqlite3.Connection, path: Path | None, *, writable: bool, database: str | None = None
) -> Store:
    """``database``: what it is called on the server that it was copied from."""
    url = URL.create("sqlite", database=database)
    engine = _with_transactions(create_engine(url, creator=lambda: memory, poolclass=StaticPool))
    return Store(engine, path, writable=writable, in_memory=True)


def _refuse_damaged(store: Store, table: str | None = None) -> None:
    """Looks at all pages and indexes, or at those of one table.

    All: 0.03 s for 4,500 epochs of 10 layers, 0.3 s for 20,000 of 20. The table of runs: 0.1 ms; its unique index is
    what keeps a cell from being trained, and counted, twice.
    """
    pragma = f"PRAGMA integrity_check({table or 1})"
    verdict = store.read(lambda connection: connection.execute(text(pragma)).scalar())
    if verdict != "ok":
        raise DamagedDatabase(store.name, str(verdict))


def _file_store(path: Path, *, write: bool) -> Store:
    if write:
        engine = create_engine(
            "sqlite://", creator=lambda: sqlite.connect_to_write(path), poolclass=QueuePool
        )
    else:
        engine = create_engine("sqlite://", creator=lambda: sqlite.connect_to_read(path), poolclass=NullPool)
    return Store(_with_transactions(engine), path, writable=write)


def _with_transactions(engine: Engine) -> Engine:
    """Transactions begin where we say so, not where the driver thinks."""

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine
