"""Connections to one SQLite file: a writer's, and a viewer's that leaves no trace; SQLite's error codes in words."""

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from pfa_cli import files
from pfa_cli.store.errors import DamagedDatabase, NoResults, StoreError, no_results

BUSY_TIMEOUT_SECONDS = 30.0
_HEADER = b"SQLite format 3\0"
_NEARLY_FULL_BYTES = 1 << 20
_DAMAGE = (
    "SQLITE_CORRUPT",
    "SQLITE_NOTADB",
    "SQLITE_FORMAT",
    "SQLITE_CONSTRAINT",
    "SQLITE_TOOBIG",
    "SQLITE_MISMATCH",
)
_DAMAGE_IN_WORDS = (  # errors whose code says nothing
    "Could not decode to UTF-8",
    "malformed JSON",
    "no such table",
    "no such column",
    "unsupported file format",
)
# Files to which this process has had a connection. It never opens them in another way: when a process closes a file,
# POSIX ends all its locks on it, those of its SQLite connections, too, and another process then damages the database.
_connected: set[tuple[int, int]] = set()


def connect_to_write(path: Path) -> sqlite3.Connection:
    """A connection to an existing file, in WAL mode."""
    connection = _connect(path, "mode=rw")
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")  # an epoch in the database survives a power cut
        _switch_to_wal(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that can write nothing: no data, and no file beside the database.

    A plain read-only connection to a WAL database leaves -wal and -shm files behind if there are none. So
    where no writer is at work the file is opened as immutable; ``Store.read`` looks afterwards whether it
    was.
    """
    return _connect(path, _reading(path))


def _reading(path: Path) -> str:
    return "mode=ro&immutable=1" if at_rest(path) else "mode=ro"


def _uri(path: Path, mode: str) -> str:
    return f"{path.as_uri()}?{mode}"


def connect_in_memory() -> sqlite3.Connection:
    """A connection to a new database in memory."""
    return sqlite3.connect(":memory:", uri=True, isolation_level=None, check_same_thread=False)


@contextmanager
def attached(connection: Any, path: Path) -> Iterator[None]:
    """In the block, ``connection`` can read the database at ``path`` as the schema "other" (see ``connect_to_read``)."""
    with suppress(OSError):
        _connected.add(_identity(path))
    _detach(connection)
    connection.execute("ATTACH ? AS other", (_uri(path, _reading(path)),))
    try:
        yield
    finally:
        _detach(connection)


def _detach(connection: Any) -> None:
    """An error while "other" is read keeps it locked until the error is dealt with: then it is detached the next time."""
    with suppress(sqlite3.OperationalError):
        connection.execute("DETACH other")


def at_rest(path: Path) -> bool:
    """Whether all of the database is in its main file: no log of a writer lies beside it."""
    log, index, journal = (path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))
    return not journal.exists() and (not log.exists() or (not index.exists() and _size(log) == 0))


def state_of(path: Path) -> tuple[int, ...] | None:
    """What changes when the main file changes or is replaced; None if it is gone."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def refuse_to_read(path: Path) -> None:
    """Raises NoResults or StoreError if ``path`` cannot be a database with results."""
    _refuse_other_files(path)
    if not path.exists() or (_size(path) == 0 and at_rest(path)):
        raise no_results(str(path))


def create_if_missing(path: Path) -> bool:
    """Makes an empty file for SQLite to fill, and its folder; whether there was something in it already.

    StoreError if that, or writing to it, is not allowed.
    """
    refuse_unwritable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return _size(path) > 0
    except OSError as error:
        raise _unwritable(path, error) from error


def refuse_unwritable(path: Path) -> None:
    """Raises what `create_if_missing` raises, and makes nothing."""
    _refuse_other_files(path)
    try:
        files.check_could_write(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot write the database {path} ({error.strerror or error}). Make the file and its folder "
        "writable, or name another database by `--db` or PFA_DB."
    )


def _refuse_other_files(path: Path) -> None:
    """Raises StoreError if ``path`` is there but no SQLite database, or is gone and its log is not."""
    try:
        for beside in ("", "-wal", "-shm", "-journal"):
            files.refuse_special(path.with_name(path.name + beside))
        if _identity(path) in _connected:
            return
        with files.open_regular(path) as file:
            start = file.read(len(_HEADER))
    except (FileNotFoundError, NotADirectoryError):
        _refuse_log_alone(path)
        return
    except IsADirectoryError as error:
        raise StoreError(
            f"{error.filename} is a folder; `--db` wants a file, for example {path / 'pfa.db'}."
        ) from error
    except OSError as error:
        raise StoreError(
            f"cannot read the database {error.filename or path} ({error.strerror}). Check what it is and who may read "
            "it, or name another database by `--db` or PFA_DB."
        ) from error
    if start and start != _HEADER:
        raise DamagedDatabase(str(path), "it is not an SQLite database")


def _refuse_log_alone(path: Path) -> None:
    """A new database in the place of one that was moved would delete the log, which holds the newest results."""
    log = log_of(path)
    if _size(log) > 0:
        raise StoreError(
            f"the database {path} is missing, but its log {log} is there and holds its newest results. "
            f"{how_to_unite(path)} Nothing was written."
        )


def log_of(path: Path) -> Path:
    """The file beside the database that holds what was written last, until SQLite takes it over."""
    return path.with_name(f"{path.name}-wal")


def how_to_unite(path: Path) -> str:
    """What to do if a database was moved away from its log."""
    return (
        f"Move the database back to {path}, or, if it is to keep its new name, end every pfa that uses it and give "
        f"{log_of(path).name} that name with -wal at its end, in the same folder."
    )


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    with suppress(OSError):  # SQLite says what is wrong with it
        _connected.add(_identity(path))
    return sqlite3.connect(
        _uri(path, mode),
        uri=True,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,  # transactions begin where engine.py says, not where the driver thinks
        check_same_thread=False,
    )


def roll_back(path: Path) -> None:
    """Takes back what a killed process had begun to write, where a journal is left of it, as while it made the database."""
    if path.with_name(f"{path.name}-journal").exists():
        with (
            suppress(sqlite3.Error),
            closing(_connect(path, "mode=rw")) as connection,
        ):  # the next to read says why not
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _switch_to_wal(connection: sqlite3.Connection, path: Path) -> None:
    """SQLite's busy timeout does not cover the switch, and workers that start together all try it."""
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    if mode != "wal":
        raise StoreError(
            f"the disk of {path} does not support SQLite's write-ahead log. "
            "Name a database on a local disk by `--db`."
        )


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


def broken_references(connection: Connection, schema: str = "main") -> list[str]:
    """The tables that refer to what is not there, in words."""
    rows = connection.exec_driver_sql(f"PRAGMA {schema}.foreign_key_check")
    return [
        f"rows of {name} refer to rows that do not exist" for name in sorted({str(row[0]) for row in rows})
    ]


def explain(error: sqlite3.Error, place: str, folder: Path | None) -> StoreError | None:
    """The error as a message with its cure; None for one that a person cannot mend."""
    code = getattr(error, "sqlite_errorname", "")
    kind = "_".join(code.split("_")[:2])  # without its detail: SQLITE_IOERR_WRITE → SQLITE_IOERR
    if kind in _DAMAGE or any(text in str(error) for text in _DAMAGE_IN_WORDS):
        return DamagedDatabase(place, str(error))
    if kind == "SQLITE_FULL" or (kind == "SQLITE_IOERR" and folder is not None and _nearly_full(folder)):
        return StoreError(
            f"no space left on the disk of {place}: the last write was taken back, all before it is safe. "
            "Free some space, then run the same command again."
        )
    if kind == "SQLITE_IOERR":
        return StoreError(f"the disk of the database {place} failed ({error}, {code}). Check the disk.")
    if kind in ("SQLITE_BUSY", "SQLITE_LOCKED"):
        return StoreError(
            f"another program has kept the database {place} locked for a long time. End the program that "
            "holds it (an open SQLite shell or browser, perhaps), then run the same command again."
        )
    if code == "SQLITE_READONLY_ROLLBACK":
        return NoResults(
            f"a process was killed in the middle of a change to the database {place}, most likely while it made it. `pfa run` "
            "with the same database takes that change back and goes on."
        )
    if kind == "SQLITE_READONLY":
        return StoreError(
            f"the database {place} is read-only. Make it and its folder writable, or name another by `--db`."
        )
    if kind == "SQLITE_CANTOPEN":
        return StoreError(
            f"cannot open the database {place}. If its folder is read-only or belongs to someone else, copy "
            "the file with its -wal neighbour to a folder of your own and name the copy by `--db`."
        )
    return None


def _nearly_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _NEARLY_FULL_BYTES
    except OSError:
        return False


_NETWORK = {"9p", "afs", "beegfs", "ceph", "cifs", "davfs", "drvfs", "gpfs", "lustre", "nfs", "nfs4"}
_NETWORK |= {"smb3", "smbfs", "webdav", "fuse.ceph", "fuse.glusterfs", "fuse.sshfs"}
"""File systems on which SQLite's locks and its write-ahead log are not safe."""


def network_warning(path: Path) -> str | None:
    """What to tell the user if ``path`` lies on a network file system; None if it does not."""
    kind = file_system(path)
    if kind not in _NETWORK:
        return None
    return (
        f"the database {path} lies on a network file system ({kind}), where SQLite can lose results when "
        "several machines write. Name one on a local disk of each machine by `--db`, and bring them "
        "together by `pfa merge`."
    )


def file_system(path: Path) -> str | None:
    """The type of the file system that ``path`` lies on (or will lie on), such as "ext4"; None if unknown."""
    import psutil

    here = path.absolute().resolve()
    mounts = [
        (len(Path(mount.mountpoint).parts), mount.fstype)
        for mount in psutil.disk_partitions(all=True)
        if here.is_relative_to(mount.mountpoint)
    ]
    return max(mounts, key=lambda mount: mount[0])[1].lower() if mounts else None
