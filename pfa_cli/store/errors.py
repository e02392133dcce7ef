"""What can go wrong with a database, said once: SQLite's error codes turned into a message and its cure."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError, OperationalError

from pfa_cli.errors import PfaError

_NEARLY_FULL_BYTES = 1 << 20


class StoreError(PfaError):
    """The database cannot be used as asked."""


class NoResults(StoreError):
    """There is no database yet, or nothing in it."""


class LostCell(StoreError):
    """Another worker owns the run by now: the one that meets this stops quietly and writes nothing more."""


@contextmanager
def explained(place: str, folder: Path | None = None) -> Iterator[None]:
    """Turns database errors that a person can mend into StoreError; any other is a bug and passes."""
    try:
        yield
    except DBAPIError as error:
        cause = error.orig if isinstance(error.orig, sqlite3.Error) else None
        message = _message(cause, place, folder) if cause else None
        if message is None and cause is None and isinstance(error, OperationalError):
            message = f"database {place}: {str(error.orig).strip()}"
        if message is None:
            raise
        raise StoreError(message) from error
    except sqlite3.Error as error:
        message = _message(error, place, folder)
        if message is None:
            raise
        raise StoreError(message) from error


def no_results(place: str) -> NoResults:
    """The error for a viewer that finds nothing to show."""
    return NoResults(
        f"no results yet at {place}: run `pfa run mnist` first, or name another database by `--db` or PFA_DB."
    )


def damaged(place: str, reason: str) -> StoreError:
    """The error for a file whose content is not what it should be; nothing is written to it."""
    return StoreError(
        f"the database {place} is damaged ({reason}). Nothing was written to it. `pfa db check` says what is "
        "wrong and how to save what is left; `--db` or PFA_DB names another database."
    )


def disk_full(place: str) -> StoreError:
    """The error for a disk without space."""
    return StoreError(_disk_full(place))


def _disk_full(place: str) -> str:
    return (
        f"no space left on the disk of {place}: the last write was taken back, all before it is safe. "
        "Free some space, then run the same command again."
    )


def _message(error: sqlite3.Error, place: str, folder: Path | None) -> str | None:
    code = getattr(error, "sqlite_errorname", "")
    kind = "_".join(
        code.split("_")[:2]
    )  # the extended code without its detail: SQLITE_IOERR_WRITE → SQLITE_IOERR
    if kind == "SQLITE_FULL":
        return _disk_full(place)
    if kind in ("SQLITE_CORRUPT", "SQLITE_NOTADB"):
        return str(damaged(place, str(error)))
    if kind in ("SQLITE_BUSY", "SQLITE_LOCKED"):
        return (
            f"another program has kept the database {place} locked for a long time. End the program that "
            "holds it (an open SQLite shell or browser, perhaps), then run the same command again."
        )
    if kind == "SQLITE_IOERR":
        if folder is not None and _nearly_full(folder):
            return _disk_full(place)
        return (
            f"the disk of the database {place} failed ({error}, {code}). Check it, or name another by `--db`."
        )
    if kind == "SQLITE_READONLY":
        return (
            f"the database {place} is read-only. Make it and its folder writable, or name another by `--db`."
        )
    if kind == "SQLITE_CANTOPEN":
        return (
            f"cannot open the database {place}. If its folder is read-only or belongs to someone else, copy "
            "the file together with its -wal neighbour to a folder of your own and name the copy by `--db`."
        )
    return None


def _nearly_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _NEARLY_FULL_BYTES
    except OSError:
        return False
