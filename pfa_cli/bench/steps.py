"""Times training steps of all contenders by turns, so that the machine's drift falls on all of them alike."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from pfa_cli.bench.products import matrix_products
from pfa_cli.data import Dataset, load_dataset
from pfa_cli.networks import build_network
from pfa_cli.randomness import generator
from pfa_cli.recipes import Configuration
from pfa_cli.training.initialise import initialise
from pfa_cli.training.trainer import Trainer, channels_last

PRODUCTS, PLAIN = "matrix products", "plain torch BP"
WARM_UP_STEPS = 3


@dataclass(frozen=True)
class Samples:
    """Seconds per step of each contender, one sample per repetition; and seconds that an epoch's measuring costs."""

    steps: dict[str, list[float]]
    measuring: dict[str, float]
    steps_per_epoch: int
    batch_size: int


@dataclass(frozen=True)
class Job:
    """What one bench process is asked to do; ``contenders`` maps a label to its configuration."""

    contenders: dict[str, Configuration]
    data_dir: Path
    device: str
    threads: int
    repetitions: int
    steps: int


def measure(job: Job, processes: int = 1) -> list[Samples]:
    """The samples of ``processes`` equal processes that run at the same time, as `pfa run --jobs` does."""
    if processes == 1:
        return [_measure(job)]
    with get_context("spawn").Pool(processes) as pool:
        return pool.map(_measure, [job] * processes, chunksize=1)


def _measure(job: Job) -> Samples:
    torch.set_num_threads(job.threads)
    device = torch.device(job.device)
    first = next(iter(job.contenders.values()))
    dataset = load_dataset(first, job.data_dir, device)
    trainers = {label: Trainer(c, dataset, 0, device) for label, c in job.contenders.items()}
    batches = _endless(dataset, first.batch_size)
    images, _ = next(batches)
    reference = next(iter(trainers.values()))
    steppers: dict[str, Callable[[Tensor, Tensor], object]] = {
        label: trainer.train_step for label, trainer in trainers.items()
    }
    steppers[PLAIN] = _plain_torch(first, dataset, device)
    products = matrix_products(reference.network, channels_last(images))
    steppers[PRODUCTS] = lambda x, y: products()
    times: dict[str, list[float]] = {label: [] for label in steppers}
    for trainer in trainers.values():
        trainer.network.train()
    for step in steppers.values():
        _time(step, islice(batches, WARM_UP_STEPS), device)
    for _ in range(job.repetitions):
        for label, step in steppers.items():
            times[label].append(_time(step, islice(batches, job.steps), device) / job.steps)
    measuring = {label: _time_measuring(trainer) for label, trainer in trainers.items()}
    return Samples(times, measuring, reference.steps_per_epoch, first.batch_size)


def _time(
    step: Callable[[Tensor, Tensor], object], batches: Iterator[tuple[Tensor, Tensor]], device: torch.device
) -> float:
    """Seconds for one step per batch; fetching the batch is part of it."""
    since = time.perf_counter()
    for images, labels in batches:
        step(images, labels)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - since


def _time_measuring(trainer: Trainer) -> float:
    """Seconds that evaluation and metrics add to an epoch."""
    since = time.perf_counter()
    trainer.measure()
    return time.perf_counter() - since


def _endless(dataset: Dataset, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    epoch = 0
    while True:
        epoch += 1
        yield from dataset.train_batches(0, epoch, batch_size)


def _plain_torch(
    configuration: Configuration, dataset: Dataset, device: torch.device
) -> Callable[[Tensor, Tensor], object]:
    """The same network, in the same memory format, trained by torch alone: no conversion, no sums."""
    network = build_network(configuration, dataset.n_classes, dataset.input_shape)
    initialise(network, generator(0, "weights"))
    network.to(device).train()
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=configuration.learning_rate,
        momentum=configuration.momentum,
        weight_decay=configuration.weight_decay,
        fused=True,
    )

    def step(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(channels_last(images)), labels).backward()
        optimizer.step()

    return step


def pooled(samples: Sequence[Samples]) -> Samples:
    """The samples of several processes as one."""
    first = samples[0]
    steps = {label: [t for one in samples for t in one.steps[label]] for label in first.steps}
    measuring = {label: max(one.measuring[label] for one in samples) for label in first.measuring}
    return Samples(steps, measuring, first.steps_per_epoch, first.batch_size)
