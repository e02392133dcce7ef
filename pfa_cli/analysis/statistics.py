"""The statistics that every verdict rests on: intervals over seeds, regions, and the judge. All margins stand here."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean
from typing import NamedTuple

# Verdicts on claims; a curve that agrees with the published one is "equal", else "different". TRIAL: there are values, but of
# runs that do not count.
SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
TRIAL, NOT_RUN = "trial only", "not run"
EQUAL, DIFFERENT, NOT_COMPARED = "equal", "different", "not compared"
# Verdicts in Table 1. PARTLY and BETTER carry its footnotes.
YES, NO, PARTLY, BETTER, OPEN = "✓", "✗", "*", "◆", "?"
_WORST_FIRST = (CONTRADICTED, DIFFERENT, NO, BETTER, PARTLY, UNDECIDED, OPEN, SUPPORTED, EQUAL, YES)

CONFIDENCE = 0.95
MARGIN = 0.10
ANGLE_MARGIN_DEGREES = 5.0
RATIO_MARGIN = 0.1
STILL_MOVING_DEGREES = 0.1

RULES = (
    f"Interval: every verdict rests on a {CONFIDENCE:.0%} confidence interval over seeds and on a region (the margins "
    "below). Inside the region: equal, or supported. Wholly outside: different, or contradicted. Across its border, or "
    "no interval: undecided. For equality this is the pair of one-sided tests (TOST), each at 2.5 %; it asks for evidence of "
    "equality, which the absence of a significant difference is not.",
    "Ours against published: the seeds of the two are unrelated, so the interval is Welch's, for the difference of the means "
    "over seeds (published accuracy: 5 seeds). Where one side is a single run (published alignment: seed 0; ImageNet: one "
    "run), it is taken to scatter as the other side does; two single runs give no interval.",
    f"Margins: accuracy {MARGIN:.0%} of the error rate to compare with (published: of the same algorithm at the same epoch), "
    f"angles {ANGLE_MARGIN_DEGREES:g}°, norm ratios {RATIO_MARGIN:g}.",
    "Epochs: only epochs that both sides have, under the paper's own schedule. Whole curve: the deviation at every such "
    "epoch (signed mean, mean and largest absolute value), and how many of them are equal, undecided and different, each "
    "judged by itself. A panel of several layers shows the mean over layers, the largest of all, and its epochs summed.",
    "Claims about accuracy: differences of our own runs, paired by seed, in test accuracy after the last epoch (the paper's "
    "CIFAR-10 numbers are of its validation images). With one pair, the scatter over seeds is taken from the published runs.",
    "Claims about layers: the mean over seeds in each layer; all layers must lie inside the region, and one wholly outside "
    "contradicts. A limit is not contradicted while the layers outside are still on their way: at least "
    f"{STILL_MOVING_DEGREES:g}° nearer than three quarters through training.",
    "Counted are finished runs at the paper's scale. Shorter schedules, other data sets and other settings are trials: they "
    "are shown, but compared with no published epoch, and decide no claim. A diverged run is in no mean, and rules out "
    "equality with BP.",
)


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval over ``n`` values; the ends are NaN where the scatter is not known."""

    mean: float
    low: float
    high: float
    n: int


NO_INTERVAL = Interval(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class Sample:
    """Mean and standard deviation (ddof = 1; NaN: unknown) of ``n`` runs.

    ``freedom``: degrees of freedom behind the deviation, where it is not that of these runs.
    """

    mean: float
    std: float
    n: int
    freedom: int | None = None

    @property
    def known(self) -> bool:
        """Whether the scatter over seeds is known."""
        return math.isfinite(self.std)

    def scattering_as(self, other: "Sample") -> "Sample":
        """This sample with its own scatter if it has one, else with that of ``other``."""
        if self.known or not other.known:
            return self
        return replace(self, std=other.std, freedom=_freedom(other))


class Region(NamedTuple):
    """Where a value has to lie."""

    low: float
    high: float


def around(centre: float, margin: float) -> Region:
    """All that is at most ``margin`` away."""
    return Region(centre - margin, centre + margin)


def below(bound: float) -> Region:
    """All that is smaller."""
    return Region(-math.inf, bound)


def above(bound: float) -> Region:
    """All that is larger."""
    return Region(bound, math.inf)


def margin(accuracy_percent: float) -> float:
    """How many points two accuracies may be apart and still count as equal, at this level.

    >>> round(margin(98.4), 2), round(margin(91.4), 2)
    (0.16, 0.86)
    """
    return MARGIN * (100 - accuracy_percent)


def t_interval(values: Sequence[float]) -> Interval:
    """Mean of ``values`` and its confidence interval.

    >>> found = t_interval([1.0, 2.0, 3.0])
    >>> found.mean, round(found.low, 3), round(found.high, 3), found.n
    (2.0, -0.484, 4.484, 3)
    """
    n = len(values)
    mean = fmean(values)
    if n < 2:
        return Interval(mean, math.nan, math.nan, n)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = _quantile(n - 1) * math.sqrt(variance / n)
    return Interval(mean, mean - half, mean + half, n)


def difference(ours: Sample, theirs: Sample) -> Interval:
    """Our mean minus theirs, with Welch's interval; if one scatter is unknown, both are taken to be the same.

    >>> found = difference(Sample(3.0, 1.0, 5), Sample(2.0, 1.0, 5))
    >>> round(found.low, 3), found.mean, round(found.high, 3)
    (-0.458, 1.0, 2.458)
    >>> difference(Sample(3.0, math.nan, 1), Sample(2.0, math.nan, 1))
    Interval(mean=1.0, low=nan, high=nan, n=1)
    """
    mean = ours.mean - theirs.mean
    if ours.known and theirs.known:
        parts = [(one.std**2 / one.n, _freedom(one)) for one in (ours, theirs)]
        error = math.fsum(part for part, _ in parts)
        spread = math.fsum(part**2 / freedom for part, freedom in parts)
        freedom = error**2 / spread if spread > 0 else 1.0
    elif ours.known or theirs.known:
        one = ours if ours.known else theirs
        error, freedom = one.std**2 * (1 / ours.n + 1 / theirs.n), _freedom(one)
    else:
        return Interval(mean, math.nan, math.nan, ours.n)
    half = _quantile(freedom) * math.sqrt(error)
    return Interval(mean, mean - half, mean + half, ours.n)


def judge(intervals: Iterable[Interval], region: Region) -> str:
    """Whether all intervals lie in ``region``.

    >>> judge([Interval(0.1, -0.2, 0.4, 5)], around(0, 0.5)), judge([Interval(0.1, -0.2, 0.9, 5)], around(0, 0.5))
    ('supported', 'undecided')
    >>> judge([Interval(0.1, -0.2, 0.4, 5), Interval(2, 1, 3, 5)], around(0, 0.5))
    'contradicted'
    """
    found = list(intervals)
    if any(outside(one, region) for one in found):
        return CONTRADICTED
    return SUPPORTED if found and all(inside(one, region) for one in found) else UNDECIDED


def worst(verdicts: Iterable[str], nothing: str = NOT_RUN) -> str:
    """The verdict on what must hold everywhere; ``nothing`` if there is no verdict.

    >>> worst(["✓", "◆"]), worst(["equal", "undecided"]), worst([])
    ('◆', 'undecided', 'not run')
    """
    return min(verdicts, key=_WORST_FIRST.index, default=nothing)


def inside(interval: Interval, region: Region) -> bool:
    """Whether the whole interval lies in ``region``; False without an interval."""
    return region.low <= interval.low and interval.high <= region.high


def outside(interval: Interval, region: Region) -> bool:
    """Whether no part of the interval lies in ``region``; False without an interval."""
    return interval.high < region.low or interval.low > region.high


def _freedom(sample: Sample) -> int:
    return sample.n - 1 if sample.freedom is None else sample.freedom


@cache
def _quantile(freedom: float) -> float:
    """Student's t: how many standard errors the confidence interval reaches to either side."""
    from scipy.special import stdtrit  # scipy.stats takes long to import

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
