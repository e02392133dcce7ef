"""Sparse feedback: which synapses exist, their variance, that no other ever comes, and the angles that theory predicts."""

import pytest
import torch
from oracle.comparison import sgd, step
from torch import Tensor, nn

from pfa_cli.algorithms import convert
from pfa_cli.errors import UsageError
from pfa_cli.theory.propositions import path_angle_degrees, path_limit
from pfa_cli.training.metrics import angle_degrees


def feedback(algorithm: str, **options: float) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 50)).double()
    return convert(network, algorithm, **options)


@pytest.mark.parametrize(("algorithm", "letter"), [("fa", "V"), ("dfa", "D"), ("sf", "M")])
def test_a_share_of_the_synapses_exists_and_the_norm_stays(algorithm: str, letter: str) -> None:
    sparse, dense = feedback(algorithm, density=0.2)[0], feedback(algorithm)[0]
    own: Tensor = getattr(sparse, letter)
    assert (own != 0).double().mean().item() == pytest.approx(0.2, abs=0.02)
    norms = [layer.algorithm.path(layer).norm().item() for layer in (sparse, dense)]
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_a_sparse_r_gets_no_new_synapse() -> None:
    network = feedback("pfa", r_density=0.3, expansion=2)
    missing = network[0].R == 0
    assert missing.double().mean().item() == pytest.approx(0.7, abs=0.02)
    optimizer = sgd(network)
    before = network[0].R.detach().clone()
    for _ in range(4):
        step(network, optimizer, torch.randn(16, 300).double(), torch.randint(50, (16,)))
    assert torch.equal(network[0].R == 0, missing)
    assert not torch.equal(network[0].R, before)


@pytest.mark.parametrize("density", [1, 0.2, 0.05])
def test_a_sparse_b_keeps_the_closed_form_and_the_angle(density: float) -> None:
    network = feedback("pfa", b_density=density)
    layer = network[0]
    # The diagonal of BᵀB scatters by the kurtosis of B's elements, 1.8 / density for uniform ones.
    units = 2000
    lam = 0.1 + (1.8 / density - 2) / units
    assert angle_degrees(network.algorithm.limit(layer), layer.weight) == pytest.approx(
        path_angle_degrees(lam), abs=0.5
    )


@pytest.mark.parametrize("density", [0.5, 0.1])
def test_a_sparse_r_ends_at_the_angle_of_a_smaller_expansion(density: float) -> None:
    torch.manual_seed(0)
    B, W = torch.randn(2000, 200).double() / 2000**0.5, torch.randn(200, 300).double()
    R = (torch.rand(2000, 300) < density) * (B @ W)  # what updates alone make of it
    angle, ratio = path_limit({"expansion": 10, "r_density": density})
    assert angle_degrees(B.T @ R, W) == pytest.approx(angle, abs=0.5)
    assert ((B.T @ R).norm() / W.norm()).item() == pytest.approx(ratio, rel=0.05)


@pytest.mark.parametrize("density", [0, -1, 1.5, float("nan")])
@pytest.mark.parametrize(
    ("algorithm", "option"),
    [("pfa", "b_density"), ("pfa", "r_density"), ("fa", "density"), ("dfa", "density"), ("sf", "density")],
)
def test_a_density_outside_zero_to_one_is_wrong_usage(algorithm: str, option: str, density: float) -> None:
    with pytest.raises(UsageError, match=option):
        feedback(algorithm, **{option: density})


@pytest.mark.parametrize("algorithm", ["pfa", "pfa-o", "pfa-l", "mix"])
def test_an_expansion_that_would_leave_no_error_unit_leaves_one_and_none_at_all_is_wrong_usage(
    algorithm: str,
) -> None:
    for layer in feedback(algorithm, expansion=0.01).algorithm.layers:  # 0.5 units for the second layer
        assert torch.linalg.matrix_rank(layer.algorithm.limit(layer)) >= 1
    for expansion in (0, -1):
        with pytest.raises(UsageError, match=r"expansion .* must be at least"):
            feedback(algorithm, expansion=expansion)
