"""Angles and ratios against NumPy."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pfa_cli.algorithms import convert
from pfa_cli.training.metrics import angle_degrees, layer_records


def error_angles(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[nn.Module, float]:
    records = layer_records(network, "weight", images, labels)
    return {
        layer: record.error_angle_degrees
        for layer, record in zip(network.algorithm.layers, records, strict=True)
    }


def test_angle_is_the_arccos_of_the_normalised_product() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        u, v = rng.normal(size=(2, 7, 5))
        expected = np.degrees(np.arccos(np.sum(u * v) / np.sqrt(np.sum(u * u) * np.sum(v * v))))
        assert angle_degrees(torch.tensor(u), torch.tensor(v)) == pytest.approx(expected, abs=1e-9)


def test_angle_is_exact_where_arccos_is_not() -> None:
    u = torch.tensor([1.0, 0.0], dtype=torch.float64)
    tiny = torch.tensor([1.0, 1e-9], dtype=torch.float64)
    assert angle_degrees(u, u) == 0
    assert angle_degrees(u, tiny) == pytest.approx(math.degrees(1e-9), rel=1e-6)
    assert angle_degrees(u, -u) == 180
    assert math.isnan(angle_degrees(u, 0 * u))


def test_error_angle_against_the_chain_rule_by_hand() -> None:
    """Two layers and a ReLU: delta at the first layer is relu'(a) ⊙ Vᵀ·delta, by V and by W."""
    torch.manual_seed(0)
    network = convert(nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)).double(), "fa", seed=1)
    x, y = torch.randn(8, 6, dtype=torch.float64), torch.randint(3, (8,))
    W1, b1, W2, b2, V = (t.detach().numpy() for t in (*network.parameters(), network[2].V))
    a = x.numpy() @ W1.T + b1
    logits = np.maximum(a, 0) @ W2.T + b2
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (softmax - np.eye(3)[y]) / 8
    ours, exact = (a > 0) * (error @ V), (a > 0) * (error @ W2)
    cosine = np.sum(ours * exact) / np.sqrt(np.sum(ours**2) * np.sum(exact**2))
    found = error_angles(network, x, y)
    assert found[network[0]] == pytest.approx(np.degrees(np.arccos(cosine)), abs=1e-9)
    assert found[network[2]] == pytest.approx(0, abs=1e-9)


def test_error_angle_above_a_frozen_layer() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)
    )
    network[0].requires_grad_(False)
    convert(network, "fa")
    angles = error_angles(network, torch.randn(4, 1, 6, 6), torch.tensor([0, 1, 0, 1]))
    assert math.isnan(angles[network[0]])
    assert 0 < angles[network[2]] < 180 and angles[network[5]] == pytest.approx(0, abs=1e-4)


def test_error_angle_is_not_that_between_two_draws_of_dropout() -> None:
    torch.manual_seed(0)
    layers = (nn.Linear(6, 9), nn.Dropout(), nn.ReLU(), nn.Linear(9, 9), nn.Dropout(), nn.Linear(9, 3))
    network = convert(nn.Sequential(*layers).double(), "fa")
    for layer in network.algorithm.layers:
        layer.V.copy_(layer.weight.detach())
    before = torch.get_rng_state()
    angles = error_angles(
        network,
        torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
        torch.arange(8) % 3,
    )
    assert max(angles.values()) == pytest.approx(0, abs=1e-4)
    assert torch.equal(torch.get_rng_state(), before) and network.training


def test_error_angle_leaves_batchnorm_as_it_was() -> None:
    torch.manual_seed(0)
    network = convert(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2)), "fa"
    )
    network.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    angles = error_angles(network, torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 0, 1]))
    assert all(0 <= angle <= 180 for angle in angles.values())
    after = network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert not network.training and all(p.grad is None for p in network.parameters())
