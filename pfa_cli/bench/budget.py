"""How much of a recipe the machine at hand can measure in the time given: all, a smaller version, or nothing."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from pfa_cli.bench.contender import BP, Contender, Setting, endless, settled
from pfa_cli.bench.pixels import Pixels, bench_dataset
from pfa_cli.bench.steps import LEAST_REPETITIONS
from pfa_cli.configuration import Configuration

_BP_STEPS = 2  # what a step of a contender costs, in steps of BP and on average
_SMALLER = ((32, None), (32, 64), (16, 64))  # batch size, side of a photograph in pixels


@dataclass(frozen=True)
class Verdict:
    """``changes`` to the recipe that make it small enough, and why; None of them: it is left out."""

    changes: dict[str, object] | None = field(default_factory=dict)
    reason: str = ""


def affordable_step(contenders: int, seconds: float) -> float:
    """Seconds that a step of BP may take so that each contender has the least number of samples, and one to warm up."""
    return seconds / ((LEAST_REPETITIONS + 1) * _BP_STEPS * contenders)


def judge(setting: Setting, seconds_per_image: float, affordable: float) -> Verdict:
    """The largest version of the recipe whose BP step takes at most ``affordable`` seconds.

    ``seconds_per_image``: a BP step's at the recipe's image size; the cost is taken as proportional to pixels.
    """
    whole = setting.configuration(BP)
    full = seconds_per_image * whole.batch_size
    if full <= affordable:
        return Verdict()
    for changes in _smaller(whole):
        smaller = setting.configuration(BP, **changes)
        step = seconds_per_image * smaller.batch_size * _area(smaller) / _area(whole)
        if step <= affordable:
            return Verdict(
                changes,
                f"{_size(smaller)} in place of {_size(whole)}, whose BP step takes about {full:.2g} s",
            )
    return Verdict(
        None,
        f"a step of BP takes about {full:.2g} s, and even a small one {step:.2g} s, where {affordable:.2g} s fit into the "
        "time given; --minutes gives more",
    )


def time_bp(
    configuration: Configuration, pixels: Pixels, data_dir: Path, device: torch.device, threads: int
) -> float:
    """Seconds per image of BP's step, on a small batch: the second step, since the first makes ready."""
    small = configuration.model_copy(
        update={"batch_size": min(16, configuration.batch_size), "accumulation": 1}
    )
    with settled(device, threads):
        dataset = bench_dataset(small, pixels, data_dir, device)
        contender = Contender(small, dataset, device)
        seconds = 0.0
        for request in islice(endless(dataset, small.batch_size), 2):
            since = time.perf_counter()
            contender.step(*request)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds = time.perf_counter() - since
    return seconds / small.batch_size


def _smaller(whole: Configuration) -> Iterator[dict[str, object]]:
    """Changes that make ``whole`` smaller, little ones first."""
    for batch, side in _SMALLER:
        changes: dict[str, object] = {}
        if batch < whole.batch_size:
            changes |= {"batch_size": batch, "accumulation": 1}
        if side is not None and whole.image_size is not None and side < whole.image_size:
            changes["image_size"] = side
        yield changes


def _area(configuration: Configuration) -> int:
    return (configuration.image_size or 1) ** 2


def _size(configuration: Configuration) -> str:
    side = "" if configuration.image_size is None else f" at {configuration.image_size} px"
    return f"batch {configuration.batch_size}{side}"
