"""The peak memory of training by one algorithm: a process of its own for each, since a process never gives back its peak."""

import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import torch

from pfa_cli.bench.contender import Contender, endless, settled
from pfa_cli.bench.pixels import bench_dataset
from pfa_cli.bench.steps import Job

STEPS = 3


def peak_bytes(job: Job, processes: int) -> dict[str, int]:
    """Per contender the most memory in use during a few steps: of the GPU, or of the whole process on a CPU.

    ``processes`` at a time; each knows its own memory only.
    """
    jobs = [replace(job, contenders={label: c}) for label, c in job.contenders.items()]
    with ProcessPoolExecutor(processes, get_context("spawn"), max_tasks_per_child=1) as pool:
        return dict(zip(job.contenders, pool.map(_peak, jobs), strict=True))


def _peak(job: Job) -> int:
    (configuration,) = job.contenders.values()
    with settled(job.device, job.threads):
        dataset = bench_dataset(configuration, job.pixels, job.data_dir, job.device)
        contender = Contender(configuration, dataset, job.device)
        reset_peak(job.device)
        for request in islice(endless(dataset, configuration.batch_size), STEPS):
            contender.step(*request)
        return peak(job.device)


def reset_peak(device: torch.device) -> None:
    """Lets the peak begin anew at what is in use now, where the system can (a CPU's on Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: torch.device) -> int:
    """Bytes in use at the most since `reset_peak`: the GPU's, or this process's resident ones."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.exists():
        # Not getrusage: on Linux its peak is inherited from the process that started this one.
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


_STATUS = Path("/proc/self/status")
