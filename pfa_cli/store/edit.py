"""What a user changes about stored runs: deleting them, having them trained again, tags and notes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import ColumnElement, Connection, delete, update

from pfa_cli.store.engine import Store
from pfa_cli.store.queries import RunRow, select_runs
from pfa_cli.store.schema import attempts, epochs, layers, runs
from pfa_cli.store.writer import dead_owners

IsAlive = Callable[[RunRow], bool]


def delete_runs(store: Store, ids: Sequence[int], is_alive: IsAlive) -> list[RunRow]:
    """Deletes the runs with their epochs, but for those that a live process trains; the deleted ones."""
    with _without_epochs(store, ids, is_alive) as (connection, found):
        connection.execute(delete(runs).where(_among(found)))
    return found


def reset_runs(store: Store, ids: Sequence[int], is_alive: IsAlive) -> list[RunRow]:
    """Makes the runs queued and without epochs, but for those that a live process trains; the ones that now are."""
    nothing = dict.fromkeys(
        ("token", "epochs_done", "diverged_epoch", "checkpoint", "error", "started_at", "finished_at")
    )
    with _without_epochs(store, ids, is_alive) as (connection, found):
        connection.execute(update(runs).where(_among(found)).values(state="queued", **nothing))
    return found


def tag_runs(store: Store, ids: Sequence[int], words: Sequence[str], *, remove: bool = False) -> None:
    """Gives the runs these tags, or takes them away."""
    with store.write() as connection:
        for row in select_runs(connection, runs.c.id.in_(ids)):
            kept = [tag for tag in row.tags or [] if tag not in words]
            tags = kept if remove else [*dict.fromkeys([*(row.tags or []), *words])]
            connection.execute(update(runs).where(runs.c.id == row.id).values(tags=tags or None))


def note_runs(store: Store, ids: Sequence[int], note: str | None) -> None:
    """Gives the runs a note in place of the one they have; None: no note."""
    with store.write() as connection:
        connection.execute(update(runs).where(runs.c.id.in_(ids)).values(note=note))


@contextmanager
def _without_epochs(
    store: Store, ids: Sequence[int], is_alive: IsAlive
) -> Iterator[tuple[Connection, list[RunRow]]]:
    """A transaction in which the epochs are deleted of those of the runs that no live process trains; these runs."""
    dead = dead_owners(store, ids, is_alive)
    with store.write() as connection:
        rows = select_runs(connection, runs.c.id.in_(ids), lock=True)
        found = [row for row in rows if row.state != "running" or (row.token, row.heartbeat_at) in dead]
        for table in (layers, epochs, attempts):
            connection.execute(delete(table).where(table.c.run_id.in_([row.id for row in found])))
        yield connection, found


def _among(found: Sequence[RunRow]) -> ColumnElement[bool]:
    return runs.c.id.in_([row.id for row in found])
