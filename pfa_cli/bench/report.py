"""A finished benchmark: the numbers to quote, as JSON and as rows of the database."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pfa_cli.bench.contender import BP, LITERAL, PFA
from pfa_cli.bench.curves import Curve
from pfa_cli.bench.pixels import Pixels, epoch_steps
from pfa_cli.bench.steps import PLAIN, PRODUCTS, Samples
from pfa_cli.configuration import Configuration
from pfa_cli.store.engine import Store
from pfa_cli.store.writer import Measurement, record_benchmark


def ratio(samples: Samples, label: str, other: str) -> float:
    """How many times ``other``'s time ``label`` takes: the median over repetitions, so that the machine's drift cancels."""
    return median(a / b for a, b in zip(samples.steps[label], samples.steps[other], strict=True))


def cells_per_hour(
    processes: int, epochs: int, steps_per_epoch: int, seconds_per_step: float, measuring_seconds: float
) -> float:
    """Whole runs that ``processes`` at work finish in an hour; ``measuring_seconds``: evaluation and metrics of an epoch."""
    return processes * 3600 / (epochs * (steps_per_epoch * seconds_per_step + measuring_seconds))


@dataclass(frozen=True)
class Benchmark:
    """A finished benchmark of one recipe on one machine; all but ``curves`` per contender.

    ``reduced``: how and why the recipe was made smaller, or ""; then nothing is said of whole epochs.
    """

    recipe: str
    machine: Mapping[str, Any]
    pixels: Pixels
    reduced: str
    configurations: Mapping[str, Configuration]
    samples: Samples
    peak_bytes: Mapping[str, int]
    curves: Sequence[Curve]

    def step_seconds(self, label: str) -> float:
        """The median."""
        return median(self.samples.steps[label])

    def images_per_second(self, label: str) -> float:
        """Of one process; the floor and plain torch have BP's batch."""
        return self.configurations.get(label, self.configurations[BP]).batch_size / self.step_seconds(label)

    def epoch_seconds(self, label: str) -> float | None:
        """Of one process, evaluation and metrics included; None where they were not measured."""
        if label not in self.samples.measuring:
            return None
        steps = epoch_steps(self.configurations[label])
        return steps * self.step_seconds(label) + self.samples.measuring[label]

    def cells_per_hour(self, label: str) -> float | None:
        """Of all processes together; None where an epoch's time is not known."""
        if label not in self.samples.measuring:
            return None
        configuration = self.configurations[label]
        return cells_per_hour(
            self.machine["processes"],
            configuration.epochs,
            epoch_steps(configuration),
            self.step_seconds(label),
            self.samples.measuring[label],
        )

    def ratios(self) -> dict[str, float]:
        """The numbers to quote. ``…_epoch_per_products``: with evaluation and metrics, over the products of its training."""
        samples = self.samples
        found = {
            "bp_step_per_products": ratio(samples, BP, PRODUCTS),
            "bp_step_per_plain_torch": ratio(samples, BP, PLAIN),
        }
        if BP in samples.measuring:
            products = epoch_steps(self.configurations[BP]) * self.step_seconds(PRODUCTS)
            measuring = samples.measuring[BP] / products
            whole = found["bp_step_per_products"] + measuring
            found |= {"bp_epoch_per_products": whole, "measuring_share_of_bp_epoch": measuring / whole}
        if LITERAL in samples.steps:
            found["pfa_literal_per_closed_form"] = ratio(samples, LITERAL, PFA)
        others = [label for label in self.configurations if label != BP]
        found |= {f"{label}_per_bp": ratio(samples, label, BP) for label in others}
        memory = {label: self.peak_bytes[label] / self.peak_bytes[BP] for label in others if self.peak_bytes}
        return found | {f"{label}_memory_per_bp": value for label, value in memory.items()}

    def as_facts(self) -> dict[str, Any]:
        """Everything measured, as JSON has it."""
        bp = self.configurations[BP]
        labels = [*self.configurations]
        return {
            "recipe": self.recipe,
            "pixels": self.pixels,
            "reduced": self.reduced,
            "batch_size": bp.batch_size,
            "image_size": bp.image_size,
            "epochs": bp.epochs,
            "steps_per_epoch": epoch_steps(bp),
            "ratios": self.ratios(),
            "cells_per_hour": {label: self.cells_per_hour(label) for label in labels},
            "peak_bytes": dict(self.peak_bytes),
            "growth": [_curve_facts(curve) for curve in self.curves],
            "measuring_seconds_per_epoch": self.samples.measuring,
            "seconds_per_step": {label: _rounded(times) for label, times in self.samples.steps.items()},
        }

    def record(self, store: Store) -> None:
        """Stores medians, peaks, ratios and curves."""
        bp = self.configurations[BP]
        measured = {"pixels": self.pixels, "batch_size": bp.batch_size, "image_size": bp.image_size}
        record_benchmark(store, {**self.machine, "measured": measured}, self.recipe, self._measurements())

    def _measurements(self) -> Iterator[Measurement]:
        for label in self.samples.steps:
            yield Measurement("seconds_per_step", self.step_seconds(label), "seconds", label)
            yield Measurement("images_per_second", self.images_per_second(label), "images/s", label)
        for label, seconds in self.samples.measuring.items():
            yield Measurement("measuring_seconds_per_epoch", seconds, "seconds", label)
            yield Measurement("cells_per_hour", self.cells_per_hour(label) or 0.0, "cells/hour", label)
        for label, peak in self.peak_bytes.items():
            yield Measurement("peak_memory", peak, "bytes", label)
        for name, value in self.ratios().items():
            yield Measurement(name, value, "ratio")
        for curve in self.curves:
            for point in curve.steps:
                for name, found in (("base", curve.per_base(point)), ("bp", curve.per_bp(point))):
                    if found is not None:
                        measure = f"{curve.name}={point.value:g}_per_{name}"
                        yield Measurement(measure, found, "ratio", point.label)


def as_json(benchmarks: Iterable[Benchmark], left_out: Mapping[str, str]) -> str:
    """One document: every benchmark with its machine, and the recipes that were left out with the reasons."""
    found = [{"machine": dict(benchmark.machine), **benchmark.as_facts()} for benchmark in benchmarks]
    return json.dumps({"benchmarks": found, "left_out": dict(left_out)}, indent=1)


def _rounded(seconds: Iterable[float]) -> list[float]:
    """To the microsecond."""
    return [round(value, 6) for value in seconds]


def _curve_facts(curve: Curve) -> dict[str, Any]:
    return {
        "curve": curve.name,
        "setting": curve.setting,
        "base": curve.base,
        "points": [
            {
                "contender": point.label,
                "value": point.value,
                "per_base": curve.per_base(point),
                "per_bp": curve.per_bp(point),
                "seconds_per_step": _rounded(samples),
            }
            for point, samples in curve.steps.items()
        ],
        "left_out": list(curve.left_out),
    }
