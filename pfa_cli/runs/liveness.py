"""Whether the process that a running cell belongs to still lives."""

import math
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from pfa_cli.errors import UsageError
from pfa_cli.runs import slurm
from pfa_cli.store.owner import Job, Owner, is_running
from pfa_cli.store.queries import RunRow

GRACE_MINUTES = 5.0  # heartbeats come every 15 s; PFA_GRACE says otherwise
_MOST_BEHIND = timedelta(days=1)  # of a clock that runs behind without being noticed


def grace() -> timedelta:
    """How old the last heartbeat of a process that cannot be seen may be: PFA_GRACE, in minutes.

    Raises:
        UsageError: PFA_GRACE is not a number of minutes.
    """
    named = os.environ.get("PFA_GRACE") or str(GRACE_MINUTES)
    try:
        minutes = float(named)
        if not (math.isfinite(minutes) and minutes > 0):
            raise ValueError
        return timedelta(minutes=minutes)
    except (ValueError, OverflowError):
        raise UsageError(f"PFA_GRACE (={named}) must be a number of minutes above 0") from None


def is_alive(row: RunRow) -> bool:
    """Whether the process is there. The first of these that knows decides:

    Slurm: an owner in this very job, before it was requeued, is dead. A process of this host is seen, stopped or not,
    however old its heartbeat. squeue: an owner whose job is over is dead; one that is suspended lives. Else the process
    lives while its heartbeat is not older than `grace`; a heartbeat from the future (a clock was set back) is young.

    A process cannot be seen on another host (one of the same name too), in another PID namespace (a container), or if /proc
    hides it.
    """
    seen = _seen(row)
    return _age(row) <= grace() if seen is None else seen


def may_be_late(row: RunRow) -> bool:
    """Whether nothing but an old heartbeat says that the process is gone: its host's clock may be behind by hours."""
    return _seen(row) is None and grace() < _age(row) <= _MOST_BEHIND


def _age(row: RunRow) -> timedelta:
    """How old the last heartbeat is, by the clocks of both hosts."""
    return timedelta.max if row.heartbeat_at is None else datetime.now(UTC) - row.heartbeat_at


def _seen(row: RunRow) -> bool | None:
    """Whether the process is there, as this system or Slurm knows; None if neither does."""
    if row.pid is None:
        return False
    here, job = Owner.current(), Job.stored(row.job)
    if job and here.job and job.same_job(here.job) and job.restart_count != here.job.restart_count:
        return job.restart_count > here.job.restart_count
    if here.counts_as(row.host, row.pid_namespace):
        running = is_running(row.pid, row.process_started)
        if running is not None:
            return running
    if job and slurm.is_over(job):
        return False
    if job and slurm.is_suspended(job):
        return True
    return None


PRUNED = "pruned"
"""The state that is shown of an interrupted run whose reason (``runs.error``) begins so: see `pfa_cli.runs.pruning`."""


def shown_state(row: RunRow) -> str:
    """The state in the database, but "stale" for a running cell without its process, and "pruned" for one stopped so."""
    if row.state == "interrupted" and (row.error or "").startswith(PRUNED):
        return PRUNED
    return "stale" if row.state == "running" and not is_alive(row) else row.state


def look_up(rows: Iterable[RunRow]) -> None:
    """Asks Slurm about the jobs of all cells at work or given up at once, so that it is not asked about each."""
    jobs = [Job.stored(row.job) for row in rows if row.state not in ("done", "queued")]
    slurm.ask(job for job in jobs if job is not None)
