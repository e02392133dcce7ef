"""How the cost of a step grows: the points of a curve, which of them there is time for, and the ratios between them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from pfa_cli.bench.contender import BP, LITERAL
from pfa_cli.configuration import Configuration


class Point(NamedTuple):
    """One contender at one value of what a curve varies."""

    label: str
    value: float


@dataclass(frozen=True)
class Candidate:
    """A point to measure, and the seconds that a step of it is reckoned to take."""

    point: Point
    seconds: float
    configuration: Configuration


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

    def per_base(self, point: Point) -> float | None:
        """How many times the base case's time ``point`` takes, the median over repetitions; None without a base case."""
        return self._ratio(point, Point(point.label, self.base))

    def per_bp(self, point: Point) -> float | None:
        """The same, against BP at the same value."""
        return self._ratio(point, Point(BP, self.base if self.name == "expansion" else point.value))

    def _ratio(self, point: Point, other: Point) -> float | None:
        if other not in self.steps:
            return None
        return median(a / b for a, b in zip(self.steps[point], self.steps[other], strict=True))


def admit(
    candidates: Iterable[Candidate], base: float, affordable: float
) -> tuple[list[Candidate], list[str]]:
    """The candidates of one curve whose steps, taken once each, fit into ``affordable`` seconds; and the others in words.

    Those of BP and PFA go before literal PFA's, and the base case before the rest; one is always kept.
    """

    def urgency(candidate: Candidate) -> tuple[bool, bool, float]:
        return candidate.point.label == LITERAL, candidate.point.value != base, candidate.seconds

    kept: list[Candidate] = []
    left_out, spent = [], 0.0
    for candidate in sorted(candidates, key=urgency):
        if not kept or spent + candidate.seconds <= affordable:
            kept.append(candidate)
            spent += candidate.seconds
        else:
            label, value = candidate.point
            left_out.append(f"{label} at {value:g}: a step would take about {candidate.seconds:.2g} s")
    return sorted(kept, key=lambda candidate: candidate.point.value), left_out
