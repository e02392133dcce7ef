"""Who works on a run: a process of a host, told apart from a later process that got the same number.

Containers of one host may share its name, but each counts its processes by itself, in a PID namespace of its own.
"""

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    """A process: its host, its number in which PID namespace, and when it started (see `process_started`)."""

    host: str
    pid: int
    process_started: float | None
    pid_namespace: str | None = None  # "pid:[4026531836]"; None where the system has none

    @classmethod
    def current(cls) -> "Owner":
        """The process that asks."""
        return cls(platform.node(), os.getpid(), process_started(os.getpid()), _pid_namespace())


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


def _pid_namespace() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


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
