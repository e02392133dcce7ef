"""What the feedback starts from: its distribution, and that it depends on the seed alone."""

import math

import pytest
import torch
from oracle.cases import CASES
from torch import Tensor, nn

from pfa_cli.algorithms import convert

GROUPS = 2


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(20, 32, 3, groups=GROUPS),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 50),
        nn.ReLU(),
        nn.Linear(50, 10),
    )


def convert_case(key: str, seed: int, weights_seed: int = 0) -> nn.Sequential:
    return CASES[key].convert(network(weights_seed), seed)


def drawn(key: str, seed: int, weights_seed: int = 0) -> dict[str, Tensor]:
    """Every tensor of the converted network that the plain one does not have."""
    plain = network().state_dict()
    return {k: v for k, v in convert_case(key, seed, weights_seed).state_dict().items() if k not in plain}


def assert_glorot(tensor: Tensor, gain: float = 1.0) -> None:
    """Uniform with the bound and the standard deviation of its shape; both within what so many elements allow."""
    fan_in, fan_out = tensor[0].numel(), len(tensor) * tensor[0, 0].numel()
    bound = gain * math.sqrt(6 / (fan_in + fan_out))
    assert tensor.abs().max().item() <= bound * (1 + 1e-6)
    assert tensor.abs().max().item() > 0.97 * bound
    tolerance = 5 / math.sqrt(tensor.numel())
    assert tensor.std().item() == pytest.approx(bound / math.sqrt(3), rel=tolerance)
    assert abs(tensor.mean().item()) < tolerance * bound


@pytest.mark.parametrize("key", CASES)
def test_the_same_seed_draws_the_same_feedback_and_leaves_the_weights_alone(key: str) -> None:
    weights = network().state_dict()
    first, again, other = (convert_case(key, seed).state_dict() for seed in (3, 3, 4))
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name
        if name in weights:
            assert torch.equal(tensor, weights[name]), name
        elif not name.endswith((".V0_norm", "algorithm.alpha")):  # which are not drawn
            assert not torch.equal(tensor, other[name]), name
    assert bool(drawn(key, 3)) == (key not in ("bp", "sf"))


@pytest.mark.parametrize("key", ["fa", "dfa", "wm", "pal", "pfa-literal"])
def test_the_feedback_is_drawn_apart_from_the_weights(key: str) -> None:
    one, two = drawn(key, 3, weights_seed=0), drawn(key, 3, weights_seed=1)
    assert all(torch.equal(one[name], two[name]) for name in one)
    modules = network()
    state = torch.get_rng_state()
    CASES[key].convert(modules)
    assert torch.equal(torch.get_rng_state(), state), "torch's global stream belongs to the caller"


@pytest.mark.parametrize("algorithm", ["fa", "wm", "pal"])
def test_feedback_paths_are_glorot_uniform(algorithm: str) -> None:
    for layer in convert(network(), algorithm).algorithm.layers:
        assert layer.V.shape == layer.weight.shape
        assert_glorot(layer.V)


def test_kps_path_is_glorot_uniform_and_independent_of_w() -> None:
    converted = convert(network(), "kp")
    for layer in converted.algorithm.layers:
        path = converted.algorithm.path(layer)
        assert_glorot(path)
        correlation = torch.corrcoef(torch.stack([path.flatten(), layer.weight.detach().flatten()]))[0, 1]
        assert abs(correlation.item()) < 4 / math.sqrt(path.numel())


def test_dfas_matrices_reach_from_the_classes_to_each_layers_input() -> None:
    layers = convert(network(), "dfa").algorithm.layers
    assert [tuple(layer.D.shape) for layer in layers] == [(10, 20, 3, 3), (10, 128), (10, 50)]
    for layer in layers:
        assert_glorot(layer.D)


@pytest.mark.parametrize("expansion", [10.0, 1.0])
def test_pfas_b_has_variance_one_over_n_and_r_is_glorot(expansion: float) -> None:
    for layer in convert(network(), "pfa", expansion=expansion, form="literal").algorithm.layers:
        units = int(expansion * layer.n_out / layer.groups)
        assert layer.B.shape == (layer.groups * units, layer.n_out / layer.groups)
        assert layer.R.shape == (layer.groups * units, *layer.weight.shape[1:])
        bound = math.sqrt(3 / units)
        assert layer.B.abs().max().item() <= bound * (1 + 1e-6)
        assert layer.B.var().item() == pytest.approx(1 / units, rel=5 / math.sqrt(layer.B.numel()))
        assert_glorot(layer.R.detach())


@pytest.mark.parametrize("expansion", [1.0, 2.5])
def test_pfa_os_b_is_semi_orthogonal_in_every_group(expansion: float) -> None:
    converted = convert(network(), "pfa-o", expansion=expansion, form="literal")
    for layer in converted.algorithm.layers:
        assert len(layer.B) == expansion * layer.n_out
        for block in layer.B.chunk(layer.groups):
            torch.testing.assert_close(block.T @ block, torch.eye(block.shape[1]), rtol=0, atol=1e-5)
        assert_glorot(layer.R.detach())
