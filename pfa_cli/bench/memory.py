"""The peak memory of training by one algorithm: a process of its own for each, since a process never gives back its peak."""

import resource
import sys
from dataclasses import replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import torch

from pfa_cli.bench.steps import Job
from pfa_cli.data import load_dataset
from pfa_cli.training.trainer import Trainer

STEPS = 3


def peak_bytes(job: Job) -> dict[str, int]:
    """Per contender the most memory in use during a few steps: of the GPU, or of the whole process on a CPU."""
    context = get_context("spawn")
    found = {}
    for label, configuration in job.contenders.items():
        with context.Pool(1) as pool:
            found[label] = pool.apply(_peak, (replace(job, contenders={label: configuration}),))
    return found


def _peak(job: Job) -> int:
    torch.set_num_threads(job.threads)
    device = torch.device(job.device)
    (configuration,) = job.contenders.values()
    dataset = load_dataset(configuration, job.data_dir, device)
    trainer = Trainer(configuration, dataset, 0, device)
    trainer.network.train()
    reset_peak(device)
    for images, labels in islice(dataset.train_batches(0, 1, configuration.batch_size), STEPS):
        trainer.train_step(images, labels)
    return peak(device)


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
