"""How many cores this process may use, and how many processes decode its images."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pfa_cli.errors import UsageError

MOST_DECODERS = 16
_PROC = Path("/proc/self")
_sharing = 1


def usable_cores() -> int:
    """The cores that this process may use: those it is bound to, fewer if a container or Slurm allows fewer.

    A limit of 1.5 CPUs is 2 cores: with one of them, a third of what is allowed would stay idle.
    """
    limits = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    limits += [math.ceil(cpus) for cpus in _cgroup_limits()]
    of_task = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if of_task.isdecimal():
        limits.append(int(of_task))
    return max(1, min(limits))


def physical_cores() -> int:
    """The usable cores, hyper-threads not counted."""
    import psutil

    return min(usable_cores(), psutil.cpu_count(logical=False) or usable_cores())


def share_cores(processes: int) -> None:
    """Says that this process is one of ``processes`` that train on this machine at the same time."""
    global _sharing
    _sharing = max(1, processes)


def sharing_processes() -> int:
    """How many processes train on this machine at the same time, this one among them (see `share_cores`)."""
    return _sharing


def decoding_processes() -> int:
    """How many processes decode images for this one: ``PFA_WORKERS``, else its share of the cores, 16 at most.

    Raises UsageError if PFA_WORKERS is not a whole number.
    """
    named = os.environ.get("PFA_WORKERS", "")
    if not named:
        return max(1, min(MOST_DECODERS, usable_cores() // _sharing))
    if not named.isdecimal():
        raise UsageError(f"PFA_WORKERS (={named}) must be a whole number: how many processes decode images")
    return int(named)


def _cgroup_limits() -> Iterator[float]:
    """CPUs that each control group around this process allows, from its own up to the root; none off Linux.

    Version 2: ``cpu.max`` holds "QUOTA PERIOD" in microseconds, or "max PERIOD". Version 1: a file for each, and
    a quota of -1 is none. https://docs.kernel.org/admin-guide/cgroup-v2.html
    """
    for folder in _cgroups():
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            try:
                quota = (folder / "cpu.cfs_quota_us").read_text()
                period = (folder / "cpu.cfs_period_us").read_text()
            except OSError:
                continue
        try:
            cpus = int(quota) / int(period)
        except (ValueError, ZeroDivisionError):  # "max"
            continue
        if cpus > 0:
            yield cpus


def _cgroups() -> Iterator[Path]:
    """The folders of the control groups that this process is in and that can limit its CPUs, with all above them."""
    try:
        memberships = (_PROC / "cgroup").read_text().splitlines()
        mounts = (_PROC / "mountinfo").read_text().splitlines()
    except OSError:
        return
    groups = {}  # controllers ("" for version 2) → path within the hierarchy
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            groups[bool(controllers)] = PurePosixPath(path)
    for line in mounts:
        left, _, right = line.partition(" - ")
        root, mounted_at = left.split()[3:5]
        kind, _, options = right.split(" ", 2)
        version_1 = kind == "cgroup" and "cpu" in options.split(",")
        group = groups.get(version_1)
        if group is None or not (version_1 or kind == "cgroup2"):
            continue
        # A container sees its own group as the root of the mount.
        below = group.relative_to(root) if group.is_relative_to(root) else PurePosixPath()
        folder = Path(mounted_at, below)
        yield from (folder, *(above for above in folder.parents if above.is_relative_to(mounted_at)))
