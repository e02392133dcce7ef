"""Whether the process that a running cell belongs to still lives."""

from datetime import UTC, datetime, timedelta
from typing import Protocol

from pfa_cli.store.owner import Owner, process_started

# Of another host's process only the heartbeat can be seen; a slow file server or a long evaluation must not
# cost a live run its cell.
GRACE = timedelta(minutes=30)


class OwnedRow(Protocol):
    """The part of a run's row that says who works on it."""

    @property
    def state(self) -> str: ...
    @property
    def host(self) -> str | None: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def process_started(self) -> float | None: ...
    @property
    def heartbeat_at(self) -> datetime | None: ...


def is_alive(row: OwnedRow) -> bool:
    """Same host: the process is there, stopped or not, however old the heartbeat. Else: a young heartbeat.

    A heartbeat from the future (a clock was set back) counts as young.
    """
    if row.pid is None:
        return False
    if row.host == Owner.current().host:
        started = process_started(row.pid)
        return started is not None and started == row.process_started
    return row.heartbeat_at is not None and datetime.now(UTC) - row.heartbeat_at <= GRACE


def shown_state(row: OwnedRow) -> str:
    """The state in the database, except that a running cell without its process is "stale"."""
    return "stale" if row.state == "running" and not is_alive(row) else row.state
