"""A finished benchmark on a terminal: what a step costs, the numbers to quote, and how the cost grows."""

from collections.abc import Callable
from statistics import median, quantiles

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pfa_cli.bench.contender import BP, LITERAL, PFA
from pfa_cli.bench.curves import Curve, Point
from pfa_cli.bench.report import Benchmark, ratio
from pfa_cli.bench.steps import PLAIN, PRODUCTS

_WORDS = {
    "bp_step_per_products": "a step of BP per its matrix products",
    "bp_step_per_plain_torch": "a step of BP per the same step in plain torch",
    "bp_epoch_per_products": "an epoch of BP, measuring included, per the products of its training",
    "measuring_share_of_bp_epoch": "share of evaluation and metrics in an epoch of BP",
    "pfa_literal_per_closed_form": "a step of PFA as the paper writes it per its closed form",
}


def show(benchmark: Benchmark) -> Group:
    """All of one recipe's."""
    ratios = benchmark.ratios()
    quoted = Text("\n".join(f" {words}: {ratios[key]:.2f}" for key, words in _WORDS.items() if key in ratios))
    grown = [part for curve in benchmark.curves for part in (_curve_table(curve), _left_out(curve))]
    fixed = [] if any(c.name == "width" for c in benchmark.curves) or not grown else [_NO_WIDTH]
    return Group(_title(benchmark), _step_table(benchmark), quoted, Text(), *grown, *fixed)


_NO_WIDTH = Text(" width: not varied, this network has one width only\n")


def spread_percent(samples: list[float]) -> float:
    """The distance between the quartiles in percent of the median; 0 for a single sample."""
    if len(samples) < 2:
        return 0.0
    low, _, high = quantiles(samples, n=4, method="inclusive")
    return 100 * (high - low) / median(samples)


def _title(benchmark: Benchmark) -> Text:
    machine, bp = benchmark.machine, benchmark.configurations[BP]
    size = f", {bp.image_size} px" if bp.image_size else ""
    repetitions = len(benchmark.samples.steps[BP]) // machine["processes"]
    lines = Text(f"{benchmark.recipe}: one training step", style="bold")
    lines.append(
        f"\n batch {bp.batch_size}{size}, {benchmark.pixels} pixels, {machine['processes']} × {machine['threads']} "
        f"thread(s), {repetitions} repetitions\n {machine['device']}, {machine['cores']} cores, torch {machine['torch']}",
        style="not bold",
    )
    if benchmark.reduced:
        lines.append(f"\n reduced: {benchmark.reduced}", style="not bold")
    return lines


def _step_table(benchmark: Benchmark) -> Table:
    """One row per contender, the floor first."""
    samples = benchmark.samples
    columns: dict[str, Callable[[str], str]] = {
        "ms/step": lambda label: _digits(1e3 * benchmark.step_seconds(label)),
        "spread": lambda label: f"{spread_percent(samples.steps[label]):.0f} %",
        "× BP": lambda label: f"{ratio(samples, label, BP):.2f}",
        "img/s": lambda label: f"{benchmark.images_per_second(label):.0f}",
        "epoch s": lambda label: _or_blank(benchmark.epoch_seconds(label)),
        "cells/h": lambda label: _or_blank(benchmark.cells_per_hour(label)),
        "peak MB": lambda label: _or_blank(_megabytes(benchmark, label), "{:.0f}"),
    }
    view = Table(box=box.SIMPLE_HEAD)
    view.add_column("", no_wrap=True)
    rows = [PRODUCTS, PLAIN, *benchmark.configurations]
    cells = {heading: [cell(label) for label in rows] for heading, cell in columns.items()}
    filled = {heading: column for heading, column in cells.items() if any(column)}
    for heading in filled:
        view.add_column(heading, justify="right", no_wrap=True)
    for row in zip(rows, *filled.values(), strict=True):
        view.add_row(*row)
    return view


def _curve_table(curve: Curve) -> Table:
    """One row per value; per contender its time, and its ratios to the base case and to BP."""
    fixed = f" ({curve.setting})" if curve.setting else ""
    view = Table(box=box.SIMPLE_HEAD, title=f" growth with {curve.name}{fixed}", title_justify="left")
    view.add_column(f"\n{curve.name}", justify="right")
    labels = [label for label in (BP, PFA, LITERAL) if any(point.label == label for point in curve.steps)]
    for label in labels:
        word = label.removeprefix("pfa ")
        for heading in ("ms", f"× {curve.base:g}") + (() if label == BP else ("× BP",)):
            view.add_column(f"{word}\n{heading}", justify="right", no_wrap=True)
    for value in sorted({point.value for point in curve.steps}):
        cells: list[str] = []
        for point in (Point(label, value) for label in labels):
            time = curve.steps.get(point)
            cells += [
                "" if time is None else _digits(1e3 * median(time)),
                _or_blank(None if time is None else curve.per_base(point), "{:.2f}"),
            ]
            if point.label != BP:
                cells.append(_or_blank(None if time is None else curve.per_bp(point), "{:.2f}"))
        view.add_row(f"{value:g}", *cells)
    return view


def _left_out(curve: Curve) -> Text:
    return Text("".join(f" left out: {words}\n" for words in curve.left_out))


def _megabytes(benchmark: Benchmark, label: str) -> float | None:
    return benchmark.peak_bytes[label] / 1e6 if label in benchmark.peak_bytes else None


def _or_blank(value: float | None, form: str | None = None) -> str:
    if value is None:
        return ""
    return _digits(value) if form is None else form.format(value)


def _digits(value: float) -> str:
    """Three digits, without an exponent; at most three decimals."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{decimals}f}"
