"""A results database on a PostgreSQL server: its connections, and what goes wrong with them in words."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from pfa_cli.errors import UsageError
from pfa_cli.store.errors import DamagedDatabase, ServerLost, StoreError
from pfa_cli.store.schema import without_password

_UPGRADE_LOCK = 0x706661
"""The number of the advisory lock: the letters "pfa"."""
# libpq's settings. A server whose machine is gone is noticed within a minute, and not after hours.
_CONNECTION = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    "application_name": "pfa",
}


def parse(name: str) -> URL:
    """The URL of a database; UsageError if it is none."""
    try:
        url = make_url(name)
    except (ArgumentError, ValueError):  # whose messages would show the password
        raise UsageError(
            f"--db {without_password(name)!r} is neither a file nor a URL like sqlite:///results/pfa.db or "
            "postgresql://user@host/database"
        ) from None
    if url.drivername in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    return url


def engine(url: URL) -> Engine:
    """Connections to the database at ``url``. UsageError if it is not PostgreSQL's, or its driver is not installed."""
    if url.drivername != "postgresql+psycopg":
        raise UsageError(
            f"{url.drivername} databases are not supported: give a file, or postgresql://user@host/database"
        )
    try:
        return create_engine(
            url,
            pool_pre_ping=True,  # a connection that a restart of the server ended is replaced
            connect_args={name: value for name, value in _CONNECTION.items() if name not in url.query},
        )
    except ImportError as error:
        raise UsageError(
            f"the driver of PostgreSQL is missing ({error}): `pip install 'pfa[postgres]'`, or use a file"
        ) from None


def name_of(url: URL) -> str:
    """The database as messages call it: without the driver, and without passwords."""
    plain = url.set(drivername=url.get_backend_name())
    return without_password(plain.render_as_string(hide_password=True))


def reading(connection: Connection) -> Connection:
    """``connection`` for one transaction that sees one state of a server's database and can change nothing."""
    if connection.dialect.name != "postgresql":
        return connection
    return connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def lock_upgrade(connection: Connection) -> None:
    """Until the end of the transaction, other processes that want to change the schema wait here."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})"))


def lock_table(connection: Connection, table: Table) -> None:
    """Until the end of the transaction, others can only read the table. SQLite's writers are alone anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))


def identity(connection: Connection) -> str:
    """What tells this database from all others, by whatever address it is reached."""
    query = (
        "SELECT system_identifier, oid, current_schema() FROM pg_control_system(), pg_database "
        "WHERE datname = current_database()"
    )
    system, number, schema = connection.execute(text(query)).one()
    return f"{system:x}-{number}-{schema}"


def copy_in(
    connection: Connection, table: Table, names: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> None:
    """Adds rows by COPY, which takes many of them ten times as fast as INSERT."""
    raw: Any = connection.connection.driver_connection
    with raw.cursor() as cursor, cursor.copy(f"COPY {table.name} ({', '.join(names)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def explain(error: DBAPIError, place: str) -> StoreError | None:
    """The error in one sentence, with its cure; None for one that shows a fault of pfa's."""
    cause: Any = error.orig
    state = getattr(cause, "sqlstate", None) or ""
    words = _words(cause)
    if error.connection_invalidated or re.match(_PASSING_STATES, state):
        return ServerLost(f"the server of the database {place} does not answer ({words})")
    if state == "42501":
        return StoreError(
            f"missing rights in the database {place} ({words}). Its owner can give them by GRANT, or name another by "
            "`--db` or PFA_DB."
        )
    if state == "53100":
        return StoreError(
            f"no space left on the disk of the server of {place}: the last write was taken back, all before it is "
            "safe. Free some space there, then run the same command again."
        )
    if state in ("25006", "57014"):
        return StoreError(f"the server of the database {place} refused the command ({words}).")
    if state in ("42P01", "42703"):
        return DamagedDatabase(place, words)
    if state or not isinstance(error, OperationalError):
        return None
    for pattern, what in _NO_CONNECTION:
        if re.search(pattern, words):
            return StoreError(f"{what.format(place=place)} ({words}).")
    return ServerLost(f"the server of the database {place} does not answer ({words})")


# Lost connections; a server that stops or starts; too many connections; transactions that were in each other's way.
_PASSING_STATES = "08|57P0|53300|40001|40P01|55P03"
_NO_CONNECTION = (
    (
        "password|authentication|role .* does not exist|pg_hba.conf",
        "the server of the database {place} refused the user or the password. Check both; a password may also stand "
        "in PGPASSWORD or in ~/.pgpass",
    ),
    (
        "database .* does not exist",
        "the server knows no database {place}. Create it there by `createdb`, or name another by `--db` or PFA_DB",
    ),
    (
        "resolve|translate host name|[Nn]ame or service not known",
        "the host of the database {place} is unknown. Check its name",
    ),
    (
        "permission denied for database",
        "missing rights in the database {place}. Its owner can give them by GRANT",
    ),
    (
        "invalid .*(option|value)|integer",
        "the URL of the database {place} has a setting that the driver refuses",
    ),
)


def _words(cause: object) -> str:
    """The first line of a message of PostgreSQL, without what libpq puts before it."""
    first = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    first = re.sub(r"^(connection failed: )?(connection to server .*? failed: )?(FATAL|ERROR): +", "", first)
    return without_password(first.strip().rstrip("."))
