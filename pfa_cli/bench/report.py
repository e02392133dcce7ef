"""The benchmark as a table, as JSON and as rows of the database."""

import json
from collections.abc import Mapping
from statistics import median
from typing import Any

from rich import box
from rich.table import Table

from pfa_cli.bench.steps import PLAIN, PRODUCTS, Samples
from pfa_cli.store.writer import Measurement

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


def table(recipe: str, samples: Samples, processes: int, threads: int) -> Table:
    """One row per contender, fastest possible first."""
    time = {label: median(values) for label, values in samples.steps.items()}
    view = Table(
        title=f"{recipe}: one training step, batch {samples.batch_size}, {processes} × {threads} thread(s)",
        box=box.SIMPLE_HEAD,
    )
    for heading in ("", "ms/step", "fastest", "slowest", "× BP", "images/s", "epoch s"):
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
        )
    return view


def as_json(recipe: str, samples: Samples, machine: Mapping[str, Any]) -> str:
    """Everything measured, as JSON."""
    return json.dumps(
        {
            "recipe": recipe,
            "machine": dict(machine),
            "batch_size": samples.batch_size,
            "steps_per_epoch": samples.steps_per_epoch,
            "seconds_per_step": samples.steps,
            "measuring_seconds_per_epoch": samples.measuring,
            "ratios": ratios(samples),
        },
        indent=2,
    )


def measurements(samples: Samples) -> list[Measurement]:
    """The rows to store."""
    rows = [
        Measurement("seconds_per_step", median(values), "seconds", label)
        for label, values in samples.steps.items()
    ]
    rows += [
        Measurement("measuring_seconds_per_epoch", s, "seconds", label)
        for label, s in samples.measuring.items()
    ]
    return rows + [Measurement(name, value, "ratio") for name, value in ratios(samples).items()]
