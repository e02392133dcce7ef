"""A finished benchmark: one list of measurements, as JSON, as rows of the database and as tables on the screen."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from pfa_cli.bench.contender import BP, LITERAL, PFA, PLAIN, PRODUCTS
from pfa_cli.bench.growth import Curve, ratio
from pfa_cli.bench.pixels import Pixels, epoch_steps
from pfa_cli.bench.storing import StoreBenchmark
from pfa_cli.bench.timing import Samples
from pfa_cli.configuration import Configuration
from pfa_cli.store.engine import Store
from pfa_cli.store.writer import Measurement, record_benchmark
from pfa_cli.terminal import Column, FittingTable
from pfa_cli.wording import count

Row = Mapping[str, Any]  # "contender", on a curve "value", and quantities by name


class Quantity(NamedTuple):
    """What is measured of a contender: its unit, its column on the screen ("": none), and the screen's unit."""

    unit: str
    heading: str = ""
    factor: float = 1.0
    decimals: int | None = None  # None: three digits


QUANTITIES = {  # by the names that JSON and the database have for them
    "seconds_per_step": Quantity("seconds", "ms/step", 1e3),
    "spread_percent": Quantity("percent", "spread %", decimals=0),
    "per_base": Quantity("ratio", "× base", decimals=2),
    "per_bp": Quantity("ratio", "× BP", decimals=2),
    "images_per_second": Quantity("images/s", "img/s", decimals=0),
    "measuring_seconds_per_epoch": Quantity("seconds"),
    "seconds_per_epoch": Quantity("seconds", "epoch s"),
    "cells_per_hour": Quantity("cells/hour", "cells/h"),
    "peak_bytes": Quantity("bytes", "peak MB", 1e-6, decimals=0),
}
RATIOS = {  # of BP and PFA, in the words of the screen
    "bp_step_per_products": "a step of BP per its matrix products",
    "bp_step_per_plain_torch": "a step of BP per the same step in plain torch",
    "bp_epoch_per_products": "an epoch of BP, measuring included, per the products of its training",
    "measuring_share_of_bp_epoch": "share of evaluation and metrics in an epoch of BP",
    "pfa_step_per_plain_torch": "a step of PFA per BP's step in plain torch",
    "pfa_literal_per_closed_form": "a step of PFA as the paper writes it per its closed form",
}


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

    def rows(self) -> list[Row]:
        """Every contender with its quantities, the floor first. Images and seconds are those of one process.

        ``cells_per_hour``: whole runs that all processes together finish in an hour.
        """
        return [self._row(label, samples) for label, samples in self.samples.steps.items()]

    def _row(self, label: str, samples: Sequence[float]) -> Row:
        configuration = self.configurations.get(label, self.configurations[BP])  # plain torch has BP's batch
        step = median(samples)
        row: dict[str, Any] = {
            "contender": label,
            "seconds_per_step": step,
            "spread_percent": spread_percent(samples),
            "per_bp": ratio(samples, self.samples.steps[BP]),
            "images_per_second": configuration.batch_size / step,
        }
        if label in self.samples.measuring:
            epoch = epoch_steps(configuration) * step + self.samples.measuring[label]
            row["measuring_seconds_per_epoch"] = self.samples.measuring[label]
            row["seconds_per_epoch"] = epoch
            row["cells_per_hour"] = self.machine["processes"] * 3600 / (configuration.epochs * epoch)
        if label in self.peak_bytes:
            row["peak_bytes"] = self.peak_bytes[label]
        return row

    def ratios(self) -> dict[str, float]:
        """The numbers to quote, and every algorithm's cost in that of BP."""
        steps, measuring = self.samples.steps, self.samples.measuring.get(BP)
        found = {
            "bp_step_per_products": ratio(steps[BP], steps[PRODUCTS]),
            "bp_step_per_plain_torch": ratio(steps[BP], steps[PLAIN]),
        }
        if measuring is not None:
            measuring /= epoch_steps(self.configurations[BP]) * median(steps[PRODUCTS])
            whole = found["bp_step_per_products"] + measuring
            found |= {"bp_epoch_per_products": whole, "measuring_share_of_bp_epoch": measuring / whole}
        if PFA in steps:
            found["pfa_step_per_plain_torch"] = ratio(steps[PFA], steps[PLAIN])
        if LITERAL in steps:
            found["pfa_literal_per_closed_form"] = ratio(steps[LITERAL], steps[PFA])
        others = [label for label in self.configurations if label != BP]
        found |= {f"{label}_per_bp": ratio(steps[label], steps[BP]) for label in others}
        memory = {label: self.peak_bytes[label] / self.peak_bytes[BP] for label in others if self.peak_bytes}
        return found | {f"{label}_memory_per_bp": value for label, value in memory.items()}

    def measurements(self) -> Iterator[Measurement]:
        """All numbers, as the database has them; those of a curve are named, for instance, batch=16_per_bp."""
        for name, value in self.ratios().items():
            yield Measurement(name, value, "ratio")
        named = [("", row) for row in self.rows()]
        named += [(f"{curve.name}={row['value']:g}_", row) for curve in self.curves for row in curve.rows()]
        for prefix, row in named:
            for name, quantity in QUANTITIES.items():
                if row.get(name) is not None:
                    yield Measurement(prefix + name, row[name], quantity.unit, row["contender"])

    def facts(self) -> dict[str, Any]:
        """All numbers, as JSON has them: times of steps as all samples, rounded to the microsecond."""
        bp, rows = self.configurations[BP], self.rows()
        return {
            "machine": dict(self.machine),
            "recipe": self.recipe,
            "pixels": self.pixels,
            "reduced": self.reduced,
            "batch_size": bp.batch_size,
            "image_size": bp.image_size,
            "epochs": bp.epochs,
            "steps_per_epoch": epoch_steps(bp),
            "ratios": self.ratios(),
            **{
                name: {row["contender"]: row[name] for row in rows if name in row}
                for name in QUANTITIES
                if name != "per_base"  # of curves alone
            },
            "seconds_per_step": {label: _rounded(times) for label, times in self.samples.steps.items()},
            "growth": [
                {
                    "curve": curve.name,
                    "setting": curve.setting,
                    "base": curve.base,
                    "points": [
                        row | {"seconds_per_step": _rounded(samples)}
                        for row, samples in zip(curve.rows(), curve.steps.values(), strict=True)
                    ],
                    "left_out": list(curve.left_out),
                }
                for curve in self.curves
            ],
        }


def spread_percent(samples: Sequence[float]) -> float:
    """The distance between the quartiles in percent of the median; 0 for a single sample."""
    if len(samples) < 2:
        return 0.0
    low, middle, high = quantiles(samples, n=4, method="inclusive")
    return 100 * (high - low) / middle


def as_json(benchmarks: Iterable[Benchmark | StoreBenchmark], left_out: Mapping[str, str]) -> str:
    """One document: every benchmark, and the recipes that were left out with the reasons."""
    found = [benchmark.facts() for benchmark in benchmarks]
    return json.dumps({"benchmarks": found, "left_out": dict(left_out)}, indent=1)


def record(benchmark: Benchmark | StoreBenchmark, store: Store) -> None:
    """Stores all numbers, with the machine."""
    machine = dict(benchmark.machine)
    if isinstance(benchmark, Benchmark):
        bp = benchmark.configurations[BP]
        measured = {"pixels": benchmark.pixels, "batch_size": bp.batch_size, "image_size": bp.image_size}
        machine["measured"] = measured
    record_benchmark(store, machine, benchmark.recipe, benchmark.measurements())


def show(benchmark: Benchmark | StoreBenchmark) -> RenderableType:
    """All numbers on a terminal: what a step costs, the ratios to quote, and how the cost grows."""
    if isinstance(benchmark, StoreBenchmark):
        return benchmark.show()
    ratios = benchmark.ratios()
    quoted = [f" {words}: {ratios[name]:.2f}" for name, words in RATIOS.items() if name in ratios]
    parts: list[RenderableType] = [
        _title(benchmark),
        _table(benchmark.rows()),
        Text("\n".join(quoted) + "\n"),
    ]
    for curve in benchmark.curves:
        fixed = f" ({curve.setting})" if curve.setting else ""
        parts.append(Text(f"growth with {curve.name}{fixed}; base {curve.base:g}", style="bold"))
        parts.append(_table(list(curve.rows()), curve.name))
        parts.append(Text("".join(f" left out: {words}\n" for words in curve.left_out)))
    if benchmark.curves and all(curve.name != "width" for curve in benchmark.curves):
        parts.append(Text(" width: not varied, this network has one width only\n"))
    return Group(*parts)


def _title(benchmark: Benchmark) -> Text:
    machine, bp = benchmark.machine, benchmark.configurations[BP]
    size = f", {bp.image_size} px" if bp.image_size else ""
    repetitions = len(benchmark.samples.steps[BP]) // machine["processes"]
    lines = Text(f"{benchmark.recipe}: one training step", style="bold")
    processes, threads = machine["processes"], count(machine["threads"], "thread")
    lines.append(
        f"\n batch {bp.batch_size}{size}, {benchmark.pixels} pixels, {processes} × {threads}, "
        f"{count(repetitions, 'repetition')}\n "
        f"{machine['device']}, {count(machine['cores'], 'core')}, torch {machine['torch']}"
        + (f"\n reduced: {benchmark.reduced}" if benchmark.reduced else ""),
        style="not bold",
    )
    return lines


def _table(rows: Sequence[Row], varied: str = "") -> FittingTable:
    """A line per row, a column per quantity that a row has, the first of them what a curve varies."""
    columns = [Column("", [row["contender"] for row in rows])]
    if varied:
        columns.append(Column(varied, [f"{row['value']:g}" for row in rows], right=True))
    for name, quantity in QUANTITIES.items():
        if quantity.heading and any(row.get(name) is not None for row in rows):
            cells = [_digits(row.get(name), quantity) for row in rows]
            columns.append(Column(quantity.heading, cells, right=True))
    return FittingTable(columns)


def _digits(value: float | None, quantity: Quantity) -> str:
    """In the screen's unit; three digits, but at most three decimals, where the quantity does not say how many."""
    if value is None:
        return ""
    value *= quantity.factor
    free = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{free if quantity.decimals is None else quantity.decimals}f}"


def _rounded(seconds: Iterable[float]) -> list[float]:
    return [round(value, 6) for value in seconds]
