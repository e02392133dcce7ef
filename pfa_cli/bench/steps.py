"""Times training steps of all contenders by turns, so that the machine's drift falls on all of them alike."""

import time
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from pfa_cli.bench.contender import BP, Contender, Step, endless, plain_torch, settled
from pfa_cli.bench.pixels import Pixels, bench_dataset
from pfa_cli.bench.products import matrix_products
from pfa_cli.configuration import Configuration
from pfa_cli.data.in_memory import InMemoryDataset
from pfa_cli.training.cuda_graph import EAGER_STEPS

PRODUCTS, PLAIN = "products", "plain torch"
LEAST_REPETITIONS = 3

Label = TypeVar("Label", bound=Hashable)


class Runner(NamedTuple):
    """Something that takes steps on batches of ``batch_size`` images."""

    step: Step
    batch_size: int


@dataclass(frozen=True)
class Plan:
    """How long to measure: ``repetitions`` samples of ``steps`` steps; fewer, but three, where ``seconds`` are over."""

    repetitions: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class Samples:
    """Seconds per step of each contender, one sample per repetition; and seconds that an epoch's measuring costs."""

    steps: dict[str, list[float]]
    measuring: dict[str, float]


@dataclass(frozen=True)
class Job:
    """What each of the processes is asked to do; ``contenders`` maps a label to its configuration, BP's first."""

    contenders: dict[str, Configuration]
    pixels: Pixels
    data_dir: Path
    device: torch.device
    threads: int
    plan: Plan
    measuring: bool  # time evaluation and metrics, too


def measure(job: Job) -> Samples:
    """The samples of one process."""
    with settled(job.device, job.threads):
        since = time.perf_counter()
        first = job.contenders[BP]
        dataset = bench_dataset(first, job.pixels, job.data_dir, job.device)
        contenders = {label: Contender(c, dataset, job.device) for label, c in job.contenders.items()}
        images, _ = dataset.batch(*next(endless(dataset, first.batch_size)))
        products = matrix_products(contenders[BP].network, contenders[BP].laid_out(images))
        runners = {
            PRODUCTS: Runner(lambda *request: products(), first.batch_size),
            PLAIN: Runner(plain_torch(first, dataset, job.device), first.batch_size),
        } | {label: Runner(c.step, job.contenders[label].batch_size) for label, c in contenders.items()}
        left = job.plan.seconds - (time.perf_counter() - since)
        times = in_turn(runners, dataset, replace(job.plan, seconds=left))
        if not job.measuring:
            return Samples(times, {})
        evaluation = contenders[BP].evaluation_seconds()  # forward passes only, the same for all
        return Samples(times, {label: evaluation + c.metrics_seconds() for label, c in contenders.items()})


def in_turn(
    runners: Mapping[Label, Runner], dataset: InMemoryDataset, plan: Plan
) -> dict[Label, list[float]]:
    """Seconds per step: all ``runners`` once, then all again, and so on. Each warms up before."""
    requests = {size: endless(dataset, size) for _, size in runners.values()}
    steps = max(plan.steps, EAGER_STEPS + 1) if dataset.device.type == "cuda" else plan.steps
    for step, size in runners.values():
        _time(step, islice(requests[size], steps), dataset.device)
    times: dict[Label, list[float]] = {label: [] for label in runners}
    until = time.perf_counter() + plan.seconds
    for repetition in range(1, plan.repetitions + 1):
        since = time.perf_counter()
        for label, (step, size) in runners.items():
            if plan.steps > 1:  # a short step would be timed with the caches as another contender left them
                _time(step, islice(requests[size], 1), dataset.device)
            some = islice(requests[size], plan.steps)
            times[label].append(_time(step, some, dataset.device) / plan.steps)
        now = time.perf_counter()
        if repetition >= LEAST_REPETITIONS and now + (now - since) > until:
            break
    return times


def _time(step: Step, requests: Iterable[tuple[Tensor, ...]], device: torch.device) -> float:
    """Seconds for one step per request; fetching its batch is part of it."""
    since = time.perf_counter()
    for request in requests:
        step(*request)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - since


def pooled(samples: Sequence[Samples]) -> Samples:
    """The samples of several processes as one."""
    first = samples[0]
    steps = {label: [t for one in samples for t in one.steps[label]] for label in first.steps}
    measuring = {label: max(one.measuring[label] for one in samples) for label in first.measuring}
    return Samples(steps, measuring)
