"""Numbers as the comparison writes them."""

import math
from collections.abc import Mapping

from pfa_cli.comparison.intervals import Region, outside
from pfa_cli.figures.curves import RATIO
from pfa_cli.figures.panels import MANY_LAYERS
from pfa_cli.figures.verdicts import Interval


def signed(value: float, places: int = 2) -> str:
    """With its sign, unless it rounds to zero.

    >>> signed(-0.5), signed(0.014), signed(-0.001), signed(float("inf"))
    ('−0.50', '+0.01', '0.00', '+∞')
    """
    if math.isinf(value):
        return "+∞" if value > 0 else "−∞"
    text = f"{value:+.{places}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def ends(interval: Interval, places: int = 2) -> str:
    """The interval in brackets, after a blank; nothing without one."""
    if not math.isfinite(interval.low):
        return ""
    return f" [{signed(interval.low, places)}, {signed(interval.high, places)}]"


def mean_std(mean: float, std: float, places: int = 2) -> str:
    """Mean ± standard deviation, if there is one."""
    return plain(mean, places) + (f" ± {std:.{places}f}" if math.isfinite(std) else "")


def plain(value: float, places: int = 2) -> str:
    """A number with a true minus sign."""
    return f"{value:.{places}f}".replace("-", "−")


def apart(ours: float, other: float, interval: Interval, region: Region) -> str:
    """A difference of two accuracies in percent, and where it has to lie."""
    needed = (
        f"needed below {signed(region.high)}"
        if region.low == -math.inf
        else f"needed within ±{region.high:.2f}"
    )
    return f"{ours:.2f} vs {other:.2f} %: {signed(interval.mean)}{ends(interval)}, {needed}"


def layer_range(values: Mapping[str, float], quantity: str) -> str:
    """Values of all layers if they are few, else their range."""
    numbers = list(values.values())
    if len(numbers) <= MANY_LAYERS:
        return " / ".join(map(plain, numbers)) + _unit(quantity)
    return f"{len(numbers)} layers, {plain(min(numbers))} to {plain(max(numbers))}{_unit(quantity)}"


def by_layer(intervals: Mapping[str, Interval], quantity: str, region: Region) -> str:
    """Each layer's mean with its interval if they are few, else their range and how many are where."""
    if not intervals:
        return "no layer has a value"
    unit = _unit(quantity)
    span = "at most" if region.low < 0 else f"{region.low:.2f} to"
    needed = f"needed {span} {region.high:.2f}{unit}"
    if len(intervals) <= MANY_LAYERS:
        return (
            "; ".join(f"{name} {plain(one.mean)}{_ends(one)}" for name, one in intervals.items())
            + f"; {needed}"
        )
    text = layer_range({name: one.mean for name, one in intervals.items()}, quantity)
    if all(math.isfinite(one.low) for one in intervals.values()):
        beyond = sum(outside(one, region) for one in intervals.values())
        inside = sum(region.low <= one.low and one.high <= region.high for one in intervals.values())
        text += f": {inside} inside, {beyond} outside"
    return f"{text}; {needed}"


def _ends(interval: Interval) -> str:
    return f" [{plain(interval.low)}, {plain(interval.high)}]" if math.isfinite(interval.low) else ""


def _unit(quantity: str) -> str:
    return "" if quantity == RATIO else "°"
