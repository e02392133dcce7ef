"""Whether the process that a running cell belongs to still lives."""

from datetime import UTC, datetime, timedelta
from typing import Protocol

from pfa_cli.store.owner import Owner, is_running

# Of a process elsewhere only the heartbeat can be seen; a slow file server or a long evaluation must not
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
    def pid_namespace(self) -> str | None: ...
    @property
    def process_started(self) -> float | None: ...
    @property
    def heartbeat_at(self) -> datetime | None: ...


def is_alive(row: OwnedRow) -> bool:
    """Whether the process is there, stopped or not, however old its heartbeat; where it cannot be seen, a young heartbeat.

    It cannot be seen on another host, in another PID namespace (a container), or if /proc hides it. A heartbeat from
    the future (a clock was set back) counts as young.
    """
    if row.pid is None:
        return False
    here = Owner.current()
    # Rows of schema 0001 name no namespace.
    if row.host == here.host and row.pid_namespace in (None, here.pid_namespace):
        running = is_running(row.pid, row.process_started)
        if running is not None:
            return running
    return row.heartbeat_at is not None and datetime.now(UTC) - row.heartbeat_at <= GRACE


def shown_state(row: OwnedRow) -> str:
    """The state in the database, except that a running cell without its process is "stale"."""
    return "stale" if row.state == "running" and not is_alive(row) else row.state
