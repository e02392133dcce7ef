"""The rules by which rows 4 to 6 of Table 1 are judged: numbers in, a verdict out. All thresholds stand here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

YES, NO, PARTLY, BETTER, UNDECIDED, NOT_RUN = "✓", "✗", "*", "◆", "?", "not run"

SYMMETRIC_DEGREES = 20.0
FREE_DEGREES = 85.0
ALIGNED_DEGREES = 25.0
MARGIN = 0.10
CONFIDENCE = 0.95

RULES = (
    f"No explicit weight symmetry: the angle between each W and its direct feedback weights after training. ✓ if it is at "
    f"least {FREE_DEGREES:g}° in every layer, ✗ if its mean over layers is below {SYMMETRIC_DEGREES:g}°, * in between. DFA: "
    "the output layer, where alone the shapes agree.",
    f"Accurate approximation to BP: the angle between each W and its feedback path (PFA: (RB)ᵀ; the others: their weights) "
    f"after training. ✓ if its mean over layers is at most {ALIGNED_DEGREES:g}°. DFA has no such path: judged by the "
    "error angle, between its errors and BP's on one fixed batch, mean over the hidden layers; for the others the error "
    "angle is shown only.",
    f"BP-level task performance: final test accuracy minus BP's, paired by seed, with a {CONFIDENCE:.0%} t interval. The "
    f"margin is {MARGIN:.0%} of BP's error rate. ✓ if the whole interval lies above minus the margin, ✗ if it lies below, "
    "? if neither (or with fewer than two pairs). ◆ in place of ✗: with confidence better than FA and DFA; ? while that is "
    "not known. A diverged seed rules out BP's level: ✗, whatever the others reached.",
)


@dataclass(frozen=True)
class Interval:
    """A mean with its t interval over ``n`` values; the ends are NaN for fewer than two."""

    mean: float
    low: float
    high: float
    n: int


NO_INTERVAL = Interval(math.nan, math.nan, math.nan, 0)


def t_interval(values: Sequence[float]) -> Interval:
    """Mean of ``values`` and its confidence interval.

    >>> found = t_interval([1.0, 2.0, 3.0])
    >>> found.mean, round(found.low, 3), round(found.high, 3), found.n
    (2.0, -0.484, 4.484, 3)
    """
    from scipy.special import stdtrit  # scipy.stats takes long to import

    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Interval(mean, math.nan, math.nan, n)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * math.sqrt(variance / n)
    return Interval(mean, mean - half, mean + half, n)


def symmetry(angles: Sequence[float]) -> str:
    """Row 4, from the weight angle of every layer that has one, in degrees.

    >>> symmetry([90, 90, 90]), symmetry([89.9, 84.8, 61.2]), symmetry([6, 5, 2])
    ('✓', '*', '✗')
    """
    if min(angles) >= FREE_DEGREES:
        return YES
    return NO if math.fsum(angles) / len(angles) < SYMMETRIC_DEGREES else PARTLY


def approximation(angles: Sequence[float]) -> str:
    """Row 5, from the angle of every layer, in degrees.

    >>> approximation([18.98, 19.50, 23.27]), approximation([31.56, 30.81, 28.09])
    ('✓', '✗')
    """
    return YES if math.fsum(angles) / len(angles) <= ALIGNED_DEGREES else NO


def margin(bp_accuracy_percent: float) -> float:
    """How many points below BP still count as BP's level.

    >>> round(margin(98.4), 2), round(margin(91.4), 2)
    (0.16, 0.86)
    """
    return MARGIN * (100 - bp_accuracy_percent)


def performance(to_bp: Interval, within: float, to_fixed: Sequence[Interval] = ()) -> str:
    """Row 6, from the differences to BP and to the fixed-feedback algorithms (FA, DFA) in accuracy points.

    ``to_fixed``: both of them, ``NO_INTERVAL`` where it is not known; none for the fixed-feedback algorithms themselves.

    >>> performance(Interval(-0.02, -0.05, 0.01, 5), within=0.16)
    '✓'
    >>> performance(Interval(-5.1, -5.4, -4.8, 5), within=3.0, to_fixed=[Interval(20, 19, 21, 5)])
    '◆'
    """
    if to_bp.low > -within:
        return YES
    if not to_bp.high < -within:
        return UNDECIDED
    if not to_fixed or any(other.low <= 0 for other in to_fixed):
        return NO
    return BETTER if all(other.low > 0 for other in to_fixed) else UNDECIDED


def worst(verdicts: Sequence[str]) -> str:
    """The verdict of a claim that must hold on every task.

    >>> worst(["✓", "◆"]), worst(["✓", "?"]), worst([])
    ('◆', '?', 'not run')
    """
    order = (NO, BETTER, PARTLY, UNDECIDED, YES)
    return min(verdicts, key=order.index) if verdicts else NOT_RUN
