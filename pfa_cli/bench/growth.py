"""How the cost of a step grows with batch size, width and expansion ratio: BP, PFA, and PFA as the paper writes it.

The points of one curve are measured in one process whatever `--jobs` is: B and R of a large expansion ratio take
gigabytes while the closed form is made.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn

from pfa_cli.bench.contender import BP, LITERAL, PFA, Cell, Setting
from pfa_cli.bench.pixels import declared, epoch_images
from pfa_cli.bench.timing import LEAST_REPETITIONS, Job, seconds_per_step
from pfa_cli.configuration import Configuration
from pfa_cli.networks import build_network

EXPANSIONS = (1.0, 10.0, 100.0, 1000.0)
LITERAL_UP_TO = 100.0
DRAW_BYTES = 1e9  # at most, for one layer's B and R
_SMALLEST_BATCH, _SMALLEST_WIDTH = 8, 64


class Point(NamedTuple):
    """One contender at one value of what a curve varies."""

    label: str
    value: float


@dataclass(frozen=True)
class Curve:
    """``steps``: seconds per step at each point, one sample per repetition.

    The curve of the expansion ratio has one point of BP, at the base, since BP does not depend on it.
    """

    name: str  # "batch", "width" or "expansion"
    setting: str  # what was held fixed
    base: float
    steps: Mapping[Point, Sequence[float]]
    left_out: Sequence[str] = ()

    def rows(self) -> Iterator[dict[str, Any]]:
        """One for each point; times as medians over repetitions of the ratio to the base case and to BP at its value."""
        for point, samples in self.steps.items():
            yield {
                "contender": point.label,
                "value": point.value,
                "per_base": self._ratio(point, Point(point.label, self.base)),
                "per_bp": self._ratio(
                    point, Point(BP, self.base if self.name == "expansion" else point.value)
                ),
                "seconds_per_step": median(samples),
            }

    def _ratio(self, point: Point, other: Point) -> float | None:
        return ratio(self.steps[point], self.steps[other]) if other in self.steps else None


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many times ``theirs`` one takes: the median over repetitions, so that the machine's drift cancels.

    Contenders measured one after the other (on a GPU) may have another number of samples.
    """
    return median(a / b for a, b in zip(ours, theirs, strict=False))


@dataclass(frozen=True)
class Growth:
    """Measures the curves of those in ``seconds_per_step``, which are among BP, PFA and literal PFA.

    ``seconds_per_step``: what their steps take as the recipe has it, from which is estimated what there is time for.
    ``job``: as that of the recipe itself, with the plan of each curve.
    """

    setting: Setting
    seconds_per_step: Mapping[str, float]
    job: Job

    def measure(self) -> list[Curve]:
        """One curve after the other."""
        with self.job.settled():
            return [self._measured(*curve) for curve in self._wanted()]

    def _wanted(self) -> Iterator[tuple[str, str, float, dict[float, dict[str, Any]]]]:
        """Of each curve its name, what is held fixed, the base, and the settings that each of its values means."""
        batch, sizes = self._batch, self._whole(BP).hidden_sizes
        batches = (max(1, batch // 4), batch, 4 * batch)
        yield "batch", _hidden(sizes), batch, {value: {"batch_size": value} for value in batches}
        if sizes is not None:
            widths: dict[float, Any] = {f: {"hidden_sizes": _scaled(sizes, f)} for f in (0.5, 1.0, 2.0)}
            yield "width", f"batch {batch}, 1: {_hidden(sizes)}", 1.0, widths
        if PFA not in self.seconds_per_step:
            return
        base = float(self._whole(PFA).options["expansion"])
        values = sorted({*EXPANSIONS, base})
        narrow = {} if sizes is None else {"hidden_sizes": sizes}
        while narrow and max(narrow["hidden_sizes"]) > _SMALLEST_WIDTH:
            if _draw_bytes(self.setting.configuration(PFA, expansion=values[-1], **narrow)) <= DRAW_BYTES:
                break
            narrow = {"hidden_sizes": _scaled(narrow["hidden_sizes"], 0.5)}
        fixed = ", ".join(filter(None, [f"batch {batch}", _hidden(narrow.get("hidden_sizes"))]))
        yield "expansion", fixed, base, {value: {"expansion": value, **narrow} for value in values}

    def _measured(
        self, name: str, fixed: str, base: float, values: Mapping[float, Mapping[str, Any]]
    ) -> Curve:
        """Times the points that can be measured here, and says why the others cannot."""
        expected: dict[Point, float] = {}
        configurations, left_out = {}, []
        common = {"batch_size": self._batch, "accumulation": 1}
        for value, changes in values.items():
            for label in self.seconds_per_step:
                if label == BP and "expansion" in changes and value != base:
                    continue
                point, own = Point(label, value), {**common, **changes}
                if label == BP:
                    own.pop("expansion", None)
                configurations[point] = c = self.setting.configuration(label, **own)
                if (reason := _impossible(label, c)) is None:
                    expected[point] = self._expected_seconds(label, c)
                else:
                    left_out.append(f"{label} at {value:g}: {reason}")
        kept, too_slow = admit(expected, base, self._affordable)
        dataset = self.job.dataset(max((configurations[point] for point in kept), key=lambda c: c.batch_size))
        builds = {point: partial(Cell, configurations[point], dataset, self.job.device) for point in kept}
        steps = seconds_per_step(builds, dataset, self.job.plan)
        return Curve(name, fixed, base, steps, [*left_out, *too_slow])

    def _expected_seconds(self, label: str, configuration: Configuration) -> float:
        """What a step takes, in proportion to images and weights, in literal PFA to B and R, too."""
        whole = self._whole(label)
        work = [
            _n_weights(c) * c.batch_size * (1 + float(c.options["expansion"]) if label == LITERAL else 1)
            for c in (configuration, whole)
        ]
        return self.seconds_per_step[label] * work[0] / work[1]

    def _whole(self, label: str) -> Configuration:
        return self.setting.configuration(label)

    @property
    def _affordable(self) -> float:
        """Seconds that one step of every point of a curve may take."""
        return self.job.plan.seconds / (LEAST_REPETITIONS + 1) / self.job.plan.steps

    @property
    def _batch(self) -> int:
        """The base case's batch size: the recipe's, or what is left of it when BP's and PFA's curves fit into the time."""
        whole = batch = self._whole(BP).batch_size
        curve = (1 / 4 + 1 + 4) * sum(s for label, s in self.seconds_per_step.items() if label != LITERAL)
        while batch > _SMALLEST_BATCH and curve * batch / whole > self._affordable:
            batch //= 2
        return batch


def admit(expected: Mapping[Point, float], base: float, affordable: float) -> tuple[list[Point], list[str]]:
    """The points of one curve whose steps, taken once each, fit into ``affordable`` seconds; and the others in words.

    ``expected``: seconds of a step. BP and PFA go before literal PFA, and the base case before the rest; one is kept always.
    """
    kept: list[Point] = []
    left_out, spent = [], 0.0
    for point in sorted(expected, key=lambda p: (p.label == LITERAL, p.value != base, expected[p])):
        if not kept or spent + expected[point] <= affordable:
            kept.append(point)
            spent += expected[point]
        else:
            label, value = point
            left_out.append(f"{label} at {value:g}: a step would take about {expected[point]:.2g} s")
    return sorted(kept, key=lambda point: ((BP, PFA, LITERAL).index(point.label), point.value)), left_out


def _impossible(label: str, configuration: Configuration) -> str | None:
    """Why a point cannot be measured at all; None if it can."""
    if configuration.batch_size > epoch_images(configuration)[0]:
        return "there are fewer images"
    if label != BP and (size := _draw_bytes(configuration)) > DRAW_BYTES:
        return f"drawing B and R of the largest layer would take {size / 1e9:.1f} GB"
    if label == LITERAL and float(configuration.options["expansion"]) > LITERAL_UP_TO:
        return "it costs about as many steps of BP as that"
    return None


def _draw_bytes(configuration: Configuration) -> float:
    """Bytes of the largest layer's R, in single precision, and B, in single and double."""
    expansion = float(configuration.options["expansion"])
    return max(4 * expansion * n_out * (fan_in + 3 * n_out) for n_out, fan_in in _layers(configuration))


def _n_weights(configuration: Configuration) -> int:
    return sum(n_out * fan_in for n_out, fan_in in _layers(configuration))


def _layers(configuration: Configuration) -> list[tuple[int, int]]:
    """Units and inputs per unit of each weighted layer."""
    with torch.device("meta"):
        network = build_network(configuration, *declared(configuration)[2:])
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return [(len(W), W[0].numel()) for W in weights]


def _scaled(sizes: Sequence[int], factor: float) -> tuple[int, ...]:
    return tuple(math.ceil(factor * n) for n in sizes)


def _hidden(sizes: Sequence[int] | None) -> str:
    return f"hidden sizes {', '.join(map(str, sizes))}" if sizes else ""
