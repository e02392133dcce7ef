"""Times training steps: of all contenders by turns on a CPU, of one after the other on a GPU; and their peak memory."""

import math
import resource
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from pfa_cli.bench.contender import BP, PLAIN, PRODUCTS, Cell, Contender, plain_torch, products
from pfa_cli.bench.pixels import Pixels, bench_dataset
from pfa_cli.configuration import Configuration
from pfa_cli.data.in_memory import InMemoryDataset
from pfa_cli.training.cuda_graph import EAGER_STEPS, release_memory, side_stream
from pfa_cli.training.device import make_repeatable

LEAST_REPETITIONS = 3
_STATUS = Path("/proc/self/status")

Label = TypeVar("Label", bound=Hashable)
Build = Callable[[], Contender | Cell]


@dataclass(frozen=True)
class Plan:
    """How long to measure: ``repetitions`` samples of ``steps`` steps; fewer, but three, where ``seconds`` are over.

    ``clock``: by which a sample is timed.
    """

    repetitions: int
    steps: int
    seconds: float
    clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True)
class Samples:
    """Seconds per step of each contender, one sample per repetition; and seconds that an epoch's measuring costs."""

    steps: Mapping[str, Sequence[float]]
    measuring: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """What each of the processes is asked to do; ``contenders`` maps a label to its configuration, BP's first."""

    contenders: Mapping[str, Configuration]
    pixels: Pixels
    data_dir: Path
    device: torch.device
    threads: int
    plan: Plan
    measuring: bool  # time evaluation and metrics, too

    def dataset(self, configuration: Configuration) -> InMemoryDataset:
        return bench_dataset(configuration, self.pixels, self.data_dir, self.device)

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Within it, this process is set as `pfa run` sets its workers, but with ``threads``."""
        make_repeatable(self.device)
        torch.set_num_threads(self.threads)
        with side_stream(self.device):
            yield


def measure(job: Job) -> Samples:
    """The samples of one process."""
    with job.settled():
        first = job.contenders[BP]
        dataset = job.dataset(first)
        builds: dict[str, Build] = {
            PRODUCTS: partial(products, first, dataset, job.device),
            PLAIN: partial(plain_torch, first, dataset, job.device),
        }
        builds |= {label: partial(Cell, c, dataset, job.device) for label, c in job.contenders.items()}
        steps = seconds_per_step(builds, dataset, job.plan)
        if not job.measuring:
            return Samples(steps)
        evaluation = Cell(first, dataset, job.device).evaluation_seconds()  # forward passes, the same for all
        measuring = {
            label: evaluation + Cell(c, dataset, job.device).metrics_seconds()
            for label, c in job.contenders.items()
        }
        return Samples(steps, measuring)


def seconds_per_step(
    builds: Mapping[Label, Build], dataset: InMemoryDataset, plan: Plan
) -> dict[Label, list[float]]:
    """Samples of each contender.

    On a CPU all take turns, so that the machine's drift falls on all alike. On a GPU, which drifts little, one contender
    after the other is made, measured and thrown away: each CUDA graph has memory of its own, and ten would not fit.
    """
    groups = [[label] for label in builds] if dataset.device.type == "cuda" else [list(builds)]
    times: dict[Label, list[float]] = {}
    for group in groups:
        until = time.perf_counter() + plan.seconds * len(group) / len(builds)
        times |= _by_turns({label: builds[label]() for label in group}, dataset, plan, until)
        release_memory(dataset.device)
    return times


def seconds_per_image(job: Job) -> float:
    """Of BP's step, on a small batch and without waiting for a good sample."""
    whole = job.contenders[BP]
    small = whole.model_copy(update={"batch_size": min(16, whole.batch_size), "accumulation": 1})
    with job.settled():
        dataset = job.dataset(small)
        builds = {BP: partial(Cell, small, dataset, job.device)}
        (seconds,) = seconds_per_step(builds, dataset, replace(job.plan, repetitions=1, steps=1))[BP]
    return seconds / small.batch_size


def pooled(samples: Sequence[Samples]) -> Samples:
    """The samples of several processes as one."""
    first = samples[0]
    steps = {label: [t for one in samples for t in one.steps[label]] for label in first.steps}
    return Samples(steps, {label: max(one.measuring[label] for one in samples) for label in first.measuring})


def peak_bytes(job: Job, processes: int) -> dict[str, int]:
    """Per contender the most memory in use during a few steps: of the GPU, or of the whole process on a CPU.

    ``processes`` at a time, each for one contender, since a process never gives back its peak.
    """
    jobs = [replace(job, contenders={label: c}) for label, c in job.contenders.items()]
    with ProcessPoolExecutor(processes, get_context("spawn"), max_tasks_per_child=1) as pool:
        return dict(zip(job.contenders, pool.map(_peak, jobs), strict=True))


def _peak(job: Job) -> int:
    (configuration,) = job.contenders.values()
    with job.settled():
        dataset = job.dataset(configuration)
        reset_peak(job.device)
        seconds_per_step({BP: partial(Cell, configuration, dataset, job.device)}, dataset, Plan(1, 2, 0.0))
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


def _by_turns(
    contenders: Mapping[Label, Contender | Cell], dataset: InMemoryDataset, plan: Plan, until: float
) -> dict[Label, list[float]]:
    """All ``contenders`` once, then all again, and so on. Each warms up before; on a GPU its step is recorded then."""
    batches = {
        contender.batch_size: _endless(dataset, contender.batch_size) for contender in contenders.values()
    }

    def sample(contender: Contender | Cell, steps: int) -> float:
        """Seconds for ``steps`` steps; fetching their batches is part of it."""
        since = plan.clock()
        for request in islice(batches[contender.batch_size], steps):
            contender.step(*request)
        if dataset.device.type == "cuda":
            torch.cuda.synchronize(dataset.device)
        return plan.clock() - since

    for contender in contenders.values():
        warm_up = max(plan.steps, EAGER_STEPS + 1) if dataset.device.type == "cuda" else plan.steps
        sample(contender, warm_up * contender.period)
    times: dict[Label, list[float]] = {label: [] for label in contenders}
    for repetition in range(1, plan.repetitions + 1):
        since = time.perf_counter()
        for label, contender in contenders.items():
            if plan.steps > 1:  # a short step would be timed with the caches as another contender left them
                sample(contender, 1)
            # As many of each kind as in training.
            steps = math.ceil(plan.steps / contender.period) * contender.period
            times[label].append(sample(contender, steps) / steps)
        now = time.perf_counter()
        if repetition >= LEAST_REPETITIONS and now + (now - since) > until:
            break
    return times


def _endless(dataset: InMemoryDataset, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
    """Requests for batches of ``dataset``, epoch after epoch."""
    return (request for epoch in count(1) for request in dataset.requests(0, epoch, batch_size))
