"""The rules of Table 1, on numbers whose verdict is known."""

import math

import numpy as np
import pytest

from pfa_cli.analysis import published
from pfa_cli.analysis import table1 as verdicts
from pfa_cli.analysis.paper import paper
from pfa_cli.analysis.statistics import Interval, t_interval, worst


def final_angles(recipe: str, algorithm: str) -> list[float]:
    rows = (
        published.alignment()
        .query("recipe == @recipe and algorithm == @algorithm")
        .dropna(subset="angle_degrees")
    )
    return rows.sort_values("epochs_trained").groupby("layer_index")["angle_degrees"].last().tolist()


@pytest.mark.parametrize("recipe", ["mnist", "cifar10", "imagenet"])
@pytest.mark.parametrize("algorithm", ["fa", "sf", "pfa"])
def test_the_published_angles_get_the_papers_verdicts(recipe: str, algorithm: str) -> None:
    angles = final_angles(recipe, algorithm)
    if not angles:
        assert (recipe, algorithm) == ("imagenet", "fa")  # the paper trained none
        return
    assert verdicts.approximation(angles) == paper().verdicts["approximation"][algorithm]
    if algorithm != "pfa":  # PFA has no direct feedback weights: 90° by construction
        assert verdicts.symmetry(angles) == paper().verdicts["symmetry"][algorithm]


@pytest.mark.parametrize(
    ("angles", "verdict"),
    [
        ([90.0, 90.0], "✓"),
        ([85.0, 95.0], "✓"),
        ([84.9, 90.0], "*"),
        ([20.0], "*"),
        ([19.9], "✗"),
        ([60.0, 0.0, 0.0], "*"),
        ([0.0, 0.0], "✗"),
    ],
)
def test_symmetry(angles: list[float], verdict: str) -> None:
    assert verdicts.symmetry(angles) == verdict


def test_t_interval_has_its_coverage() -> None:
    rng = np.random.default_rng(0)
    hits = sum(
        found.low <= 3.0 <= found.high
        for found in (t_interval(rng.normal(3, 2, 4).tolist()) for _ in range(4000))
    )
    assert hits / 4000 == pytest.approx(0.95, abs=0.015)


def test_t_interval_of_one_value_has_no_ends() -> None:
    found = t_interval([1.5])
    assert (found.mean, found.n) == (1.5, 1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


BETTER_THAN_FIXED = [Interval(20.0, 19.0, 21.0, 5), Interval(30.0, 28.0, 32.0, 5)]
NOT_BETTER_THAN_ONE = [Interval(20.0, 19.0, 21.0, 5), Interval(0.1, -0.1, 0.3, 5)]


@pytest.mark.parametrize(
    ("to_bp", "to_fixed", "verdict"),
    [
        (Interval(0.0, -0.5, 0.5, 5), [], "✓"),
        (Interval(2.0, 1.5, 2.5, 5), [], "✓"),  # better than BP is BP's level too
        (Interval(-0.9, -1.1, -0.7, 5), BETTER_THAN_FIXED, "?"),
        (Interval(-1.5, -1.9, -1.1, 5), [], "✗"),
        (Interval(-1.5, -1.9, -1.1, 5), BETTER_THAN_FIXED, "◆"),
        (Interval(-1.5, -1.9, -1.1, 5), NOT_BETTER_THAN_ONE, "✗"),
        (Interval(0.0, math.nan, math.nan, 1), [], "?"),
        (Interval(-50.0, math.nan, math.nan, 1), [], "?"),
    ],
)
def test_performance(to_bp: Interval, to_fixed: list[Interval], verdict: str) -> None:
    assert verdicts.performance(to_bp, within=1.0, to_fixed=to_fixed) == verdict


def test_a_claim_must_hold_on_every_task() -> None:
    assert worst(["✓", "✓"]) == "✓"
    assert worst(["✓", "?", "✗"]) == "✗"
    assert worst(["✓", "*"]) == "*"
    assert worst([]) == "not run"
