"""Who works on a run: a process of a host, told apart from a later process that got the same number.

Containers of one host may share its name, but each counts its processes by itself, in a PID namespace of its own. Machines
may share a name, too, as those made from one image do; systemd's /etc/machine-id tells them apart.
"""

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """The Slurm job of a process. A job that Slurm requeues keeps its id and counts its restarts."""

    cluster: str  # job ids are counted by each cluster for itself
    user: str
    job_id: str  # of a job array, the id of the array
    array_task: int | None
    restart_count: int
    node: str | None = None
    partition: str | None = None

    @classmethod
    def current(cls, environment: Mapping[str, str] = os.environ) -> "Job | None":
        """The job that this process runs in; None outside of Slurm."""
        job_id = environment.get("SLURM_ARRAY_JOB_ID") or environment.get("SLURM_JOB_ID")
        if not job_id:
            return None
        task = environment.get("SLURM_ARRAY_TASK_ID", "")
        restarts = environment.get("SLURM_RESTART_COUNT", "")
        return cls(
            cluster=environment.get("SLURM_CLUSTER_NAME", ""),
            user=environment.get("SLURM_JOB_USER", ""),
            job_id=job_id,
            array_task=int(task) if task.isdecimal() else None,
            restart_count=int(restarts) if restarts.isdecimal() else 0,
            node=environment.get("SLURMD_NODENAME"),
            partition=environment.get("SLURM_JOB_PARTITION"),
        )

    @classmethod
    def stored(cls, facts: Mapping[str, Any] | None) -> "Job | None":
        """The job whose fields ``runs.job`` holds; None where there is none, or something else."""
        try:
            job = cls(**facts) if facts else None
        except TypeError:
            return None
        return job if job and isinstance(job.restart_count, int) else None

    @property
    def name(self) -> str:
        """As Slurm's commands take it: 123, or 123_4 for an element of an array."""
        return self.job_id if self.array_task is None else f"{self.job_id}_{self.array_task}"

    def same_job(self, other: "Job") -> bool:
        """Whether both are the same job, and the same element of it, restarted or not."""
        return (self.cluster, self.name) == (other.cluster, other.name)


@dataclass(frozen=True)
class Owner:
    """A process: its host, its number in which PID namespace, when it started (see `process_started`), and its job."""

    host: str
    pid: int
    process_started: float | None
    pid_namespace: str | None = None  # "pid:[4026531836] on 1a2b3c4d", a machine; None: the system has none
    job: Job | None = field(default=None, compare=False)

    def counts_as(self, host: str | None, pid_namespace: str | None) -> bool:
        """Whether a pid of this host and namespace is one that this process can look up.

        Rows of schema 0001 name no namespace, those of before version 0.2 no machine.
        """
        own = self.pid_namespace
        return host == self.host and pid_namespace in (None, own, own and own.partition(_ON)[0])

    @classmethod
    def current(cls) -> "Owner":
        """The process that asks."""
        return cls(
            platform.node(), os.getpid(), process_started(os.getpid()), _pid_namespace(), Job.current()
        )


def is_running(pid: int, started: float | None) -> bool | None:
    """Whether the process ``pid`` of this namespace that started at ``started`` is there; None: it cannot be seen.

    Under the mount option hidepid of /proc, other users' processes are there but cannot be looked at.
    """
    if started is None or _has_proc() is None:
        return None
    try:
        found = process_started(pid)
    except PermissionError:
        return None
    if found is None and _has_proc() and not Path(f"/proc/{pid}").exists() and _is_of_another_user(pid):
        return None
    return found == started


def _is_of_another_user(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        pass
    return False


def _has_proc() -> bool | None:
    """Whether processes are seen in /proc; None: it is there, but that of another PID namespace."""
    try:
        return True if Path("/proc/self").readlink() == Path(str(os.getpid())) else None
    except OSError:
        return False


_ON = " on "


def _pid_namespace() -> str | None:
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None
    return _ON.join(filter(None, (namespace, _machine())))


@cache
def _machine() -> str:
    """What tells this machine from others, the same after it starts anew; empty where nothing does.

    Not the id itself, which systemd asks to keep to oneself.
    """
    try:
        machine_id = Path("/etc/machine-id").read_bytes().strip()
    except OSError:
        return ""
    return hashlib.sha256(machine_id).hexdigest()[:8] if machine_id else ""


def process_started(pid: int) -> float | None:
    """When process ``pid`` of this namespace started, in seconds; None if there is none (any more).

    On Linux counted from boot, by a clock that setting the time does not move; elsewhere from 1970. Equal
    numbers for the same pid mean the same process. A zombie (ended, its parent has not asked yet) is gone.
    """
    seen = _has_proc()
    if not seen:
        return None if seen is None else _started_by_psutil(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the command's name before it may hold blanks and brackets
    if fields[0] in "ZX":
        return None
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _started_by_psutil(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
