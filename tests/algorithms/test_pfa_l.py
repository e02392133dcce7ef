"""The local rule that learns B: its steps against NumPy, where it ends, how fast, and what happens if it diverges."""

import numpy as np
import pytest
import torch
from torch import nn

from pfa_cli.algorithms import convert
from pfa_cli.algorithms.pfa_l import ErrorPopulation
from pfa_cli.errors import PfaError


def numpy_steps(B: np.ndarray, noise: list[np.ndarray], rates: list[float], one_way: bool) -> np.ndarray:
    """The rule of Pehlevan et al. 2015 written with inverses; F after all steps."""
    B, M = B.copy(), np.eye(len(B))
    leak = 0.01 if B.shape[0] > B.shape[1] else 0.0
    for e, rate in zip(noise, rates, strict=True):
        response = np.linalg.inv(M + leak * np.eye(len(M))) @ B @ e
        n = e.shape[1]
        B += rate * (response @ e.T / n - B)
        target = response @ response.T / n
        M += rate * ((np.tril(target) if one_way else target) - M)
    return np.linalg.inv(M + leak * np.eye(len(M))) @ B


@pytest.mark.parametrize("one_way", [False, True])
@pytest.mark.parametrize("units", [5, 8, 12])
def test_steps_equal_the_oracle(units: int, one_way: bool) -> None:
    rng = np.random.default_rng(0)
    B = rng.standard_normal((units, 8)) / np.sqrt(units)
    noise = [rng.standard_normal((8, 6)) for _ in range(9)]
    population = ErrorPopulation(torch.from_numpy(B), one_way=one_way)
    rates = [population.rate_at(step, 0.2) for step in range(9)]
    for e, rate in zip(noise, rates, strict=True):
        population.learn(torch.from_numpy(e), rate)
    np.testing.assert_allclose(
        population.effective().numpy(), numpy_steps(B, noise, rates, one_way), rtol=1e-10
    )


def angle_after(
    steps: int, *, units: int = 64, samples: int = 64, rate: float = 0.1, one_way: bool = False
) -> float:
    """Degrees between a random W and FᵀF·W, for 64 errors."""
    stream = torch.Generator().manual_seed(0)
    B, W = (torch.randn(n, 64, generator=stream, dtype=torch.float64) for n in (units, 64))
    population = ErrorPopulation(B / units**0.5, one_way=one_way)
    for step in range(steps):
        noise = torch.randn(64, samples, generator=stream, dtype=torch.float64)
        population.learn(noise, population.rate_at(step, rate))
    F = population.effective()
    V = F.T @ F @ W
    return torch.rad2deg(torch.acos((V * W).sum() / (V.norm() * W.norm()))).item()


def test_the_symmetric_rule_reaches_an_orthonormal_b_at_the_known_rate() -> None:
    assert angle_after(0) == pytest.approx(45, abs=4)  # PFA's own, expansion 1
    assert angle_after(50) < 0.03
    assert angle_after(100) < 0.01
    assert angle_after(400, samples=1, rate=0.01) < 0.2
    assert angle_after(100, units=128) < 0.5  # with ε = 0.01, which leaves a little


def test_the_one_way_rule_comes_under_five_degrees() -> None:
    assert angle_after(400, rate=0.2, one_way=True) < 5


def test_the_fixed_point_does_not_depend_on_the_errors_covariance() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((16, 16)) * np.linspace(0.5, 2, 16)
    population = ErrorPopulation(torch.from_numpy(rng.standard_normal((16, 16)) / 4), one_way=False)
    for _ in range(200):
        population.learn(torch.from_numpy(mixing @ rng.standard_normal((16, 64))), 0.1)
    F = population.effective()
    torch.testing.assert_close(F.T @ F, torch.eye(16, dtype=torch.float64), atol=1e-3, rtol=0)


def test_the_path_of_a_converted_network_is_almost_the_weight_once_alpha_has_decayed() -> None:
    torch.manual_seed(0)
    network = convert(nn.Sequential(nn.Conv2d(4, 16, 3, groups=2), nn.Flatten(), nn.Linear(64, 10)), "pfa-l")
    for layer in network.algorithm.layers:
        W, limit = layer.weight, network.algorithm.limit(layer)
        torch.testing.assert_close(limit, W.detach(), atol=0.01, rtol=0.01)


def test_a_rule_that_diverges_says_so() -> None:
    with pytest.raises(PfaError, match=r"diverged.*smaller rate"):
        convert(nn.Sequential(nn.Linear(4, 64)), "pfa-l", b_rate=0.9, b_samples=0.06, b_steps=60)


def test_the_one_way_rule_stays_finite_where_the_symmetric_one_diverges() -> None:
    """Its rate falls from the first step on."""
    options = {"b_rate": 0.9, "b_samples": 0.06, "b_steps": 60, "lateral": "one-way"}
    (layer,) = convert(nn.Sequential(nn.Linear(4, 64)), "pfa-l", **options).algorithm.layers
    assert layer.G.isfinite().all()
