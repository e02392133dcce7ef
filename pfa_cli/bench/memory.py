"""The peak memory of training by one algorithm: a process of its own for each, since a process never gives back its peak."""

import resource
import sys
from dataclasses import replace
from itertools import islice
from multiprocessing import get_context

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
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for images, labels in islice(dataset.train_batches(0, 1, configuration.batch_size), STEPS):
        trainer.train_step(images, labels)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
