"""Propositions 1 and 3 against integrals over the Marchenko-Pastur law and against the literal W, B and R."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from pfa_cli.theory.marchenko_pastur import density, edges, sample_gram
from pfa_cli.theory.propositions import path_angle_degrees, path_norm_ratio, simulate_path


@pytest.mark.parametrize("lam", [0.02, 0.1, 0.5])
def test_angle_is_the_ratio_of_moments_of_the_law(lam: float) -> None:
    low, high = edges(lam)
    first, second = (quad(lambda v, k=k: v**k * density(v, lam), low, high)[0] for k in (1, 2))
    assert math.cos(math.radians(path_angle_degrees(lam))) == pytest.approx(
        first / math.sqrt(second), abs=1e-6
    )
    assert path_norm_ratio(lam) == pytest.approx(math.sqrt(second), abs=1e-6)


def test_angle_goes_to_zero_with_lambda() -> None:
    assert path_angle_degrees(0.0) == 0.0
    assert path_angle_degrees(1.0) == pytest.approx(45.0)
    assert path_angle_degrees(1e-6) < 0.06


@pytest.mark.parametrize("expansion", [1, 5, 40])
def test_simulation_agrees_with_theory(expansion: int) -> None:
    angles, ratios = [], []
    for draw in range(8):
        rng = np.random.default_rng([draw, expansion])
        angle, ratio = simulate_path(sample_gram(150, expansion, rng), 150, rng)
        angles.append(angle)
        ratios.append(ratio)
    for values, theory in (
        (angles, path_angle_degrees(1 / expansion)),
        (ratios, path_norm_ratio(1 / expansion)),
    ):
        error = np.std(values, ddof=1) / math.sqrt(len(values))
        assert np.mean(values) == pytest.approx(theory, abs=4 * error + 0.003 * theory)


def test_simulation_is_the_literal_product() -> None:
    b = np.random.default_rng(1).uniform(-1, 1, (30, 6))
    w = np.random.default_rng(2).standard_normal((6, 9))
    r = (b @ w).T  # [N_l, N̄_l], as the paper sets it
    path = r @ b  # [N_l, N_{l+1}], to be compared with Wᵀ
    cosine = np.sum(path * w.T) / np.linalg.norm(path) / np.linalg.norm(w)
    angle, ratio = simulate_path(b.T @ b, 9, np.random.default_rng(2))
    assert angle == pytest.approx(math.degrees(math.acos(cosine)), abs=1e-9)
    assert ratio == pytest.approx(np.linalg.norm(path) / np.linalg.norm(w), abs=1e-12)


def test_an_orthonormal_b_gives_zero_angle() -> None:
    angle, ratio = simulate_path(np.eye(20), 30, np.random.default_rng(0))
    assert angle == pytest.approx(0.0, abs=1e-5)
    assert ratio == pytest.approx(1.0, abs=1e-12)
