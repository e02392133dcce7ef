"""What can go wrong with the results database."""

import os

from pfa_cli.errors import PfaError


class StoreError(PfaError):
    """The database cannot be used as asked.

    ``place``: its name, where the error came while it was read or written.
    """

    place: str | None = None


class NoResults(StoreError):
    """There is no database yet, or nothing in it."""


class DamagedDatabase(StoreError):
    """The database's content is not what it should be. Nothing is written to it."""

    place: str

    def __init__(self, place: str, reason: str):
        reason = " ".join(reason.split())
        super().__init__(
            f"the database {place} is damaged ({reason}). Nothing was written to it. `pfa db check` says "
            "what is wrong and how to save what is left; `--db` or PFA_DB names another database."
        )
        self.place, self.reason = place, reason


class DamagedValue(ValueError):
    """A stored value is not what pfa can have written. ``Store.explained`` turns it into DamagedDatabase."""


class ServerLost(StoreError):
    """The database's server does not answer, or broke the transaction off; the same may go well a moment later."""


class LostCell(StoreError):
    """Another worker owns the run by now: the one that meets this stops quietly and writes nothing more."""


def no_results(place: str) -> NoResults:
    """The error for a viewer that finds nothing to show."""
    if os.path.isdir(shards := f"{place}.shards"):  # noqa: PTH112 (a URL may be no path)
        return NoResults(
            f"no results yet at {place}: those of its shards are shown by `--db {shards}`, and united by `pfa merge {shards}`."
        )
    return NoResults(
        f"no results yet at {place}: run `pfa run mnist` first, or name another database by `--db` or PFA_DB."
    )
