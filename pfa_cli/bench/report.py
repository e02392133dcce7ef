"""The benchmark as a table, as JSON and as rows of the database."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pfa_cli.bench.steps import PLAIN, PRODUCTS, Samples
from pfa_cli.store.engine import Store
from pfa_cli.store.writer import Measurement, record_benchmark

BP = "bp"


def ratios(samples: Samples) -> dict[str, float]:
    """The numbers to quote: each the median, over repetitions, of two neighbouring samples' ratio.

    ``bp_epoch_per_products`` is a whole epoch of BP, with evaluation and metrics, over the matrix products of its training.
    """
    measuring = samples.measuring[BP] / (samples.steps_per_epoch * median(samples.steps[PRODUCTS]))
    found = {
        "bp_epoch_per_products": ratio(samples, BP, PRODUCTS) + measuring,
        "bp_step_per_products": ratio(samples, BP, PRODUCTS),
        "bp_step_per_plain_torch": ratio(samples, BP, PLAIN),
        "measuring_share_of_bp_epoch": measuring / (ratio(samples, BP, PRODUCTS) + measuring),
    }
    return found | {
        f"{label}_per_bp": ratio(samples, label, BP) for label in samples.measuring if label != BP
    }


def ratio(samples: Samples, label: str, other: str) -> float:
    """How many times ``other``'s time ``label`` takes; sample by sample, so that the machine's drift cancels."""
    return median(a / b for a, b in zip(samples.steps[label], samples.steps[other], strict=True))


@dataclass(frozen=True)
class Benchmark:
    """A finished benchmark of one recipe on one machine; ``peak_bytes`` per contender."""

    recipe: str
    samples: Samples
    peak_bytes: Mapping[str, int]
    machine: Mapping[str, Any]

    def show(self) -> Group:
        """The table, and below it the numbers to quote."""
        lines = [
            f"{_WORDS.get(name, name.replace('_', ' '))}: {value:.3f}"
            for name, value in self.ratios().items()
        ]
        return Group(_table(self), Text("\n".join(lines)))

    def ratios(self) -> dict[str, float]:
        """See `ratios`; with the peak memory's where it was measured."""
        memory = {
            f"{label}_memory_per_bp": peak / self.peak_bytes[BP]
            for label, peak in self.peak_bytes.items()
            if label != BP
        }
        return ratios(self.samples) | memory

    def as_json(self) -> str:
        """Everything measured."""
        found = {
            "recipe": self.recipe,
            "machine": dict(self.machine),
            "batch_size": self.samples.batch_size,
            "steps_per_epoch": self.samples.steps_per_epoch,
            "seconds_per_step": self.samples.steps,
            "measuring_seconds_per_epoch": self.samples.measuring,
            "peak_bytes": dict(self.peak_bytes),
            "ratios": self.ratios(),
        }
        return json.dumps(found, indent=2)

    def record(self, store: Store) -> None:
        """Stores medians, peaks and ratios."""
        rows = [
            Measurement("seconds_per_step", median(values), "seconds", label)
            for label, values in self.samples.steps.items()
        ]
        rows += [
            Measurement("measuring_seconds_per_epoch", seconds, "seconds", label)
            for label, seconds in self.samples.measuring.items()
        ]
        rows += [Measurement("peak_memory", peak, "bytes", label) for label, peak in self.peak_bytes.items()]
        rows += [Measurement(name, value, "ratio") for name, value in self.ratios().items()]
        record_benchmark(store, self.machine, self.recipe, rows)


_WORDS = {
    "bp_epoch_per_products": "an epoch of BP, with evaluation and metrics, per the matrix products of its training",
    "bp_step_per_products": "a step of BP per its matrix products",
    "bp_step_per_plain_torch": "a step of BP per the same step in plain torch",
    "measuring_share_of_bp_epoch": "share of evaluation and metrics in an epoch of BP",
}


def _table(benchmark: Benchmark) -> Table:
    """One row per contender, the floor first."""
    samples, machine = benchmark.samples, benchmark.machine
    time = {label: median(values) for label, values in samples.steps.items()}
    view = Table(
        title=f"{benchmark.recipe}: one training step, batch {samples.batch_size}, "
        f"{machine['processes']} × {machine['threads']} thread(s), {machine['device']}",
        box=box.SIMPLE_HEAD,
    )
    for heading in ("", "ms/step", "fastest", "slowest", "× BP", "img/s", "epoch s", "peak MB"):
        view.add_column(heading, justify="left" if heading == "" else "right")
    for label in (PRODUCTS, PLAIN, *samples.measuring):
        values = samples.steps[label]
        epoch = samples.steps_per_epoch * time[label] + samples.measuring.get(label, 0.0)
        view.add_row(
            label,
            *(f"{1e3 * value:.2f}" for value in (time[label], min(values), max(values))),
            f"{ratio(samples, label, BP):.2f}",
            f"{samples.batch_size / time[label]:.0f}",
            f"{epoch:.1f}" if label in samples.measuring else "",
            f"{benchmark.peak_bytes[label] / 1e6:.0f}" if label in benchmark.peak_bytes else "",
        )
    return view
