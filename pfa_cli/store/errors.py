"""What can go wrong with a database, said once: SQLite's error codes turned into a message and its cure."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError, OperationalError

from pfa_cli.errors import PfaError

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


class StoreError(PfaError):
    """The database cannot be used as asked."""


class NoResults(StoreError):
    """There is no database yet, or nothing in it."""


class DamagedDatabase(StoreError):
    """The file's content is not what it should be. Nothing is written to it."""

    def __init__(self, place: str, reason: str):
        reason = " ".join(reason.split())
        super().__init__(
            f"the database {place} is damaged ({reason}). Nothing was written to it. `pfa db check` says "
            "what is wrong and how to save what is left; `--db` or PFA_DB names another database."
        )
        self.reason = reason


class DamagedValue(ValueError):
    """A stored value is not what pfa can have written. ``explained`` turns it into DamagedDatabase."""


class LostCell(StoreError):
    """Another worker owns the run by now: the one that meets this stops quietly and writes nothing more."""


@contextmanager
def explained(place: str, folder: Path | None = None) -> Iterator[None]:
    """Turns database errors that a person can mend into StoreError; any other passes."""
    try:
        yield
    except (DamagedValue, UnicodeDecodeError) as error:  # the latter: even SQLite's message is damaged
        raise DamagedDatabase(place, str(error)) from error
    except DBAPIError as error:
        cause = error.orig if isinstance(error.orig, sqlite3.Error) else None
        explanation = _explain(cause, place, folder) if cause else None
        if cause is None and isinstance(error, OperationalError):  # another kind of database: its own words
            explanation = StoreError(f"database {place}: {str(error.orig).strip()}")
        if explanation is None:
            raise
        raise explanation from error
    except sqlite3.Error as error:
        explanation = _explain(error, place, folder)
        if explanation is None:
            raise
        raise explanation from error


def no_results(place: str) -> NoResults:
    """The error for a viewer that finds nothing to show."""
    return NoResults(
        f"no results yet at {place}: run `pfa run mnist` first, or name another database by `--db` or PFA_DB."
    )


def _explain(error: sqlite3.Error, place: str, folder: Path | None) -> StoreError | None:
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
