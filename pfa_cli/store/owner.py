"""Who works on a run: a process of a host, told apart from a later process that got the same number."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    """A process: its host, its number, and when it started (``process_started``)."""

    host: str
    pid: int
    process_started: float | None

    @classmethod
    def current(cls) -> "Owner":
        """The process that asks."""
        return cls(platform.node(), os.getpid(), process_started(os.getpid()))


def process_started(pid: int) -> float | None:
    """When process ``pid`` of this host started, in seconds; None if there is none (any more).

    On Linux counted from boot, by a clock that setting the time does not move; elsewhere from 1970. Equal
    numbers for the same pid mean the same process. A zombie (ended, its parent has not asked yet) is gone.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _started_by_psutil(pid)
    except ProcessLookupError:
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
