"""The statistics, against scipy and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from pfa_cli.analysis.statistics import (
    CONTRADICTED,
    SUPPORTED,
    UNDECIDED,
    Interval,
    Sample,
    around,
    below,
    difference,
    judge,
)

RNG = np.random.default_rng(0)


def sample(values: np.ndarray) -> Sample:
    return Sample(float(values.mean()), float(values.std(ddof=1)), len(values))


@pytest.mark.parametrize(("n", "m"), [(5, 5), (3, 5), (2, 9)])
def test_welch_is_scipys(n: int, m: int) -> None:
    a, b = RNG.normal(98.4, 0.05, n), RNG.normal(98.3, 0.2, m)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    found = difference(sample(a), sample(b))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.mean, found.n) == (pytest.approx(a.mean() - b.mean()), n)


def test_a_single_run_scatters_as_the_others_do() -> None:
    """The 95 % prediction interval of one more value: mean ± t · s · √(1 + 1/n)."""
    values = RNG.normal(20, 2, 5)
    half = stats.t.ppf(0.975, 4) * values.std(ddof=1) * math.sqrt(1 + 1 / 5)
    single = Sample(21.0, math.nan, 1)
    ours = difference(sample(values), single)
    assert (ours.low, ours.high) == pytest.approx((values.mean() - 21 - half, values.mean() - 21 + half))
    theirs = difference(single, sample(values))
    assert (theirs.low, theirs.high) == pytest.approx((-ours.high, -ours.low))


def test_the_prediction_interval_covers_what_it_says() -> None:
    draws = RNG.normal(0, 1, (4000, 6))
    covered = [
        found.low <= 0 <= found.high
        for row in draws
        for found in [difference(sample(row[:5]), Sample(row[5], math.nan, 1))]
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_two_single_runs_with_published_scatter() -> None:
    """Two published standard deviations over 5 seeds each: Welch with 4 degrees of freedom behind each."""
    published = [Sample(90.7, 0.4, 5), Sample(91.4, 0.2, 5)]
    ours, bp = (
        Sample(mean, math.nan, 1).scattering_as(one)
        for mean, one in zip((90.0, 91.0), published, strict=True)
    )
    found = difference(ours, bp)
    freedom = (0.4**2 + 0.2**2) ** 2 / (0.4**4 / 4 + 0.2**4 / 4)
    half = stats.t.ppf(0.975, freedom) * math.hypot(0.4, 0.2)
    assert (found.low, found.high, found.n) == pytest.approx((-1 - half, -1 + half, 1))


def test_its_own_scatter_comes_first() -> None:
    own = Sample(90.0, 0.1, 3)
    assert own.scattering_as(Sample(90.0, 0.7, 5)) is own


def test_no_scatter_no_interval() -> None:
    single = Sample(1.0, math.nan, 1)
    found = difference(single, single)
    assert found.mean == 0 and math.isnan(found.low) and math.isnan(found.high)
    assert judge([found], around(0, 100)) == UNDECIDED


def test_equal_runs_have_an_interval_without_width() -> None:
    found = difference(Sample(2.0, 0.0, 3), Sample(1.0, 0.0, 5))
    assert (found.low, found.high) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.5, 0.5, SUPPORTED),
        (-0.51, 0.1, UNDECIDED),
        (0.4, 0.6, UNDECIDED),
        (0.51, 0.6, CONTRADICTED),
        (-0.9, -0.51, CONTRADICTED),
        (-9.0, 9.0, UNDECIDED),
        (math.nan, math.nan, UNDECIDED),
    ],
)
def test_equality_is_two_one_sided_tests(low: float, high: float, verdict: str) -> None:
    assert judge([Interval(0.0, low, high, 3)], around(0, 0.5)) == verdict


def test_equality_agrees_with_scipys_one_sided_tests() -> None:
    verdicts = set()
    for shift in (0.0, 0.4, 0.8, 2.0):
        a, b = RNG.normal(shift, 0.3, 5), RNG.normal(0, 0.3, 5)
        above = stats.ttest_ind(a + 1, b, equal_var=False, alternative="greater").pvalue
        under = stats.ttest_ind(a - 1, b, equal_var=False, alternative="less").pvalue
        verdict = judge([difference(sample(a), sample(b))], around(0, 1))
        assert (verdict == SUPPORTED) == (max(above, under) < 0.025)
        verdicts.add(verdict)
    assert SUPPORTED in verdicts and len(verdicts) > 1


def test_all_must_lie_inside_and_one_outside_contradicts() -> None:
    inside, across, outside = Interval(0, -1, 1, 3), Interval(2, 0, 4, 3), Interval(5, 4, 6, 3)
    assert judge([inside, inside], around(0, 2)) == SUPPORTED
    assert judge([inside, across], around(0, 2)) == UNDECIDED
    assert judge([inside, across, outside], around(0, 2)) == CONTRADICTED
    assert judge([], around(0, 2)) == UNDECIDED


def test_below_has_one_side() -> None:
    assert judge([Interval(-30, -99, -9, 3)], below(-8)) == SUPPORTED
    assert judge([Interval(-9, -10, -7, 3)], below(-8)) == UNDECIDED
    assert judge([Interval(0, -7, 7, 3)], below(-8)) == CONTRADICTED
