"""The Marchenko-Pastur law against integrals, closed-form moments and samples of BᵀB itself."""

import numpy as np
import pytest
from scipy.integrate import quad

from pfa_cli.theory.marchenko_pastur import density, edges, eigenvalue_std, sample_gram


def moment(order: int, lam: float) -> float:
    low, high = edges(lam)
    # v = centre + half·sin t takes the square-root ends out of the integrand.
    centre, half = (low + high) / 2, (high - low) / 2

    def integrand(t: float) -> float:
        v = centre + half * np.sin(t)
        return float(v**order * density(v, lam) * half * np.cos(t))

    return float(quad(integrand, -np.pi / 2, np.pi / 2, epsabs=1e-12, epsrel=1e-12)[0])


@pytest.mark.parametrize("lam", [0.01, 0.1, 0.3, 0.5, 0.9])
def test_density_has_the_known_moments(lam: float) -> None:
    moments = [moment(order, lam) for order in range(5)]
    # Narayana polynomials: the law's free-probability moments.
    expected = [1, 1, 1 + lam, 1 + 3 * lam + lam**2, 1 + 6 * lam + 6 * lam**2 + lam**3]
    assert moments == pytest.approx(expected, abs=1e-9)
    assert eigenvalue_std(lam) == pytest.approx((moments[2] - moments[1] ** 2) ** 0.5, abs=1e-9)


@pytest.mark.parametrize("lam", [1.5, 4.0])
def test_a_small_population_leaves_an_atom_at_zero_out(lam: float) -> None:
    assert moment(0, lam) == pytest.approx(1 / lam, abs=1e-9)
    assert moment(1, lam) == pytest.approx(1.0, abs=1e-9)  # the atom at 0 adds nothing to the mean


def test_density_is_zero_outside_the_edges() -> None:
    low, high = edges(0.2)
    assert density([-1.0, 0.0, low - 1e-9, high + 1e-9, 10.0], 0.2).tolist() == [0.0] * 5
    assert density((low + high) / 2, 0.2) > 0


@pytest.mark.parametrize("expansion", [1, 3, 10])
def test_samples_follow_the_law(expansion: int) -> None:
    lam = 1 / expansion
    rng = np.random.default_rng(7)
    eigenvalues = np.sort(
        np.concatenate([np.linalg.eigvalsh(sample_gram(200, expansion, rng)) for _ in range(4)])
    )
    low, high = edges(lam)
    grid = np.linspace(low, high, 20_001)[1:-1]
    law = np.cumsum(density(grid, lam)) * (grid[1] - grid[0])
    empirical = np.searchsorted(eigenvalues, grid) / len(eigenvalues)
    assert np.abs(law - empirical).max() < 0.02
    assert eigenvalues.mean() == pytest.approx(1, abs=0.01)
    assert eigenvalues.std() == pytest.approx(eigenvalue_std(lam), rel=0.02)


def test_gram_is_the_identity_on_average() -> None:
    rng = np.random.default_rng(0)
    mean = np.mean([sample_gram(8, 2.5, rng) for _ in range(4000)], axis=0)
    standard_error = (1 / 20 / 4000) ** 0.5  # of an off-diagonal element, N̄ = 20
    assert np.abs(mean - np.eye(8)).max() < 5 * standard_error
