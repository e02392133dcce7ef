"""The cortical estimate: the appendix's numbers, and its simulation against the closed form."""

import json
import math

import numpy as np
import pytest

from pfa_cli.theory.cortex import angle_degrees, correlation, estimate, synapse_share


def test_the_appendix_holds_under_its_assumptions() -> None:
    assert round(correlation(), 1) == 0.2
    assert round(angle_degrees(correlation())) == 78


def test_closed_form_is_the_covariance_over_the_deviations() -> None:
    # Feedback is b·(a·w + √(1-a²)·z) with b = 1 in a share of the pairs, else 0; w and z standard normal.
    share, reciprocal = 0.31, 0.36
    covariance, variance = share * reciprocal, share
    assert correlation(share, reciprocal) == pytest.approx(covariance / math.sqrt(1 * variance))
    assert correlation(1.0, reciprocal) == reciprocal


def test_simulation_agrees_with_the_closed_form() -> None:
    found = estimate(200_000, seed=3)
    error = found.correlation_std / math.sqrt(found.draws)
    assert found.correlation_mean == pytest.approx(found.exact_correlation, abs=4 * error)
    assert found.angle_degrees_mean == pytest.approx(found.exact_angle_degrees, abs=0.5)
    assert (found.pairs, found.draws) == (1000, 200)
    # For normal weights 1/√n is the spread without correlation; zeros in one of the two change little.
    assert found.correlation_std == pytest.approx(1 / math.sqrt(1000), rel=0.2)


def test_independent_sampling_of_pairs_gives_the_same() -> None:
    rng = np.random.default_rng(11)
    n = 400_000
    weights = rng.multivariate_normal([0, 0], [[1, 0.36], [0.36, 1]], size=n)
    weights[rng.permutation(n)[: round(0.69 * n)], 1] = 0
    assert np.corrcoef(weights.T)[0, 1] == pytest.approx(correlation(), abs=0.006)


def test_counting_synapses_instead_of_pairs_changes_the_estimate() -> None:
    # 100 connected pairs, 31 of them reciprocal: 131 synapses, 62 of which have a partner.
    assert synapse_share() == pytest.approx(62 / 131)
    assert round(angle_degrees(correlation(synapse_share())), 1) == 75.7


def test_the_same_seed_gives_the_same_and_another_does_not() -> None:
    assert estimate(10_000, seed=1) == estimate(10_000, seed=1)
    assert estimate(10_000, seed=1) != estimate(10_000, seed=2)


def test_few_synapses_still_have_a_spread() -> None:
    found = estimate(100)
    assert (found.pairs, found.draws) == (50, 2)
    assert math.isfinite(found.correlation_std)


def test_said_in_words_and_in_json() -> None:
    found = estimate(10_000)
    assert "R = 0.200" in found.sentence()
    assert "78.4°" in found.sentence()
    assert json.loads(found.as_json())["exact_correlation"] == found.exact_correlation
