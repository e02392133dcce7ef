"""What Slurm's queue says of jobs, where there is one. Only `squeue` is asked: `sacct` is missing at many sites."""

import functools
import getpass
import math
import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass

from pfa_cli.store.owner import Job

_ANSWER_SECONDS = 5.0  # for which an answer of squeue is good, and for which it is left alone if it gave none
_PATIENCE = 20.0  # seconds until a squeue that does not answer counts as one that knows nothing
_MOST_NAMES = 1000  # in one question: a command line has a limit


@dataclass(frozen=True)
class Queued:
    """A job in the queue: its state in Slurm's words, how often it was requeued, and why it waits ("None": it does not)."""

    state: str
    restart_count: int
    reason: str

    def __str__(self) -> str:
        return self.state if self.reason in ("None", "") else f"{self.state} ({self.reason})"


_answers: dict[str, tuple[float, Queued | None]] = {}  # by the job's name: when, and what squeue said
_no_answer_at = -math.inf  # when squeue gave none


def queued(job: Job) -> Queued | None:
    """The job in the queue; None if it is not there, or if that cannot be known (see `is_over`)."""
    ask([job])
    return _answers.get(job.name, (0.0, None))[1] if _speaks_for(job) else None


def ask(jobs: Iterable[Job]) -> None:
    """Asks squeue about all the jobs at once, but for those that it was asked about a moment ago."""
    global _no_answer_at
    now = time.monotonic()
    names = {job.name for job in jobs if _speaks_for(job)}
    old = sorted(
        name for name in names if now - _answers.get(name, (-_ANSWER_SECONDS, None))[0] >= _ANSWER_SECONDS
    )
    for first in range(0, len(old), _MOST_NAMES):
        some = old[first : first + _MOST_NAMES]
        silent = time.monotonic() - _no_answer_at < _ANSWER_SECONDS
        found = None if silent else _squeue(some)
        now = time.monotonic()  # an answer may take longer than it is good for
        if found is None and not silent:
            _no_answer_at = now
        for name in some:
            _answers.pop(name, None)
            if found is not None:
                _answers[name] = now, found.get(name)


def is_over(job: Job) -> bool:
    """Whether Slurm says that the job's processes are gone: the job has left the queue, or was requeued since.

    False where that cannot be known: no squeue here, no answer, another cluster, or a job of another user, which some
    sites hide.
    """
    ask([job])
    if not _speaks_for(job) or job.name not in _answers:
        return False
    found = _answers[job.name][1]
    if found is None:
        return _user() in (job.user, "root")
    return found.restart_count > job.restart_count


def is_suspended(job: Job) -> bool:
    """Whether Slurm has stopped the job's processes for a while, so that no heartbeats come."""
    found = queued(job)
    return found is not None and found.state in ("SUSPENDED", "STOPPED")


def _speaks_for(job: Job) -> bool:
    """Whether the squeue of this machine knows the job."""
    return shutil.which("squeue") is not None and job.cluster == _cluster()


def _squeue(names: list[str]) -> dict[str, Queued] | None:
    """The jobs of these names that are in the queue; None if squeue did not answer."""
    command = ["squeue", "--noheader", "--array", f"--jobs={','.join(names)}"]
    columns = "--Format=JobArrayID:64,State:32,RestartCnt:16,Reason:64"
    try:
        said = subprocess.run(
            [*command, columns], capture_output=True, text=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if said.returncode != 0:  # also where it was asked about one job alone, long over
        return {} if "Invalid job id" in said.stderr else None
    found = {}
    for line in said.stdout.splitlines():
        words = line.split(maxsplit=3)
        if len(words) >= 3 and words[2].isdecimal():
            found[words[0]] = Queued(words[1], int(words[2]), words[3].strip() if len(words) > 3 else "")
    return found


@functools.cache
def _cluster() -> str | None:
    """The cluster that the Slurm commands of this machine speak for."""
    if named := os.environ.get("SLURM_CLUSTER_NAME"):
        return named
    try:
        said = subprocess.run(
            ["scontrol", "show", "config"],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (line.partition("=") for line in said.stdout.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "ClusterName"), None)


def _user() -> str | None:
    try:
        return os.environ.get("SLURM_JOB_USER") or getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        return None
