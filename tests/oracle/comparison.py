"""What the tests share on torch's side: one training step, and when two tensors count as equal."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

Schedule = list[dict[str, float]]  # per step: lr and weight_decay


def sgd(network: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.02)


def step(network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, labels: Tensor) -> float:
    """One training step without WM's long `prepare`; returns the loss. Serves networks that are not converted too."""
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(network(x), labels)
    loss.backward()
    optimizer.step()
    if hasattr(network, "algorithm"):
        network.algorithm.note_prepared()
        network.algorithm.after_step(optimizer)
    return loss.item()


def train(network: nn.Module, schedule: Schedule, batches: Iterable[tuple[Tensor, Tensor]]) -> nn.Module:
    optimizer = sgd(network)
    for settings, (x, labels) in zip(schedule, batches, strict=True):
        optimizer.param_groups[0].update(settings)
        step(network, optimizer, x, labels)
    return network


def assert_equal(ours: Tensor, reference: Tensor | np.ndarray, what: str, tolerance: float = 1e-10) -> None:
    """No element differs by more than ``tolerance`` in units of the largest element."""
    reference = torch.as_tensor(reference).detach()
    assert ours.shape == reference.shape, what
    difference, scale = (ours.detach() - reference).abs().max(), reference.abs().max()
    assert difference <= tolerance * scale, (
        f"{what}: differs by {difference:.1e}, its largest element is {scale:.1e}"
    )


def assert_same_network(ours: nn.Module, reference: nn.Module, tolerance: float = 1e-10) -> None:
    """The same parameters (but for R, which only the literal form has) and the same feedback paths."""
    expected = dict(reference.named_parameters())
    compared = 0
    for name, parameter in ours.named_parameters():
        if not name.endswith(".R"):
            assert_equal(parameter, expected[name], name, tolerance)
            compared += 1
    assert compared
    for layer, other in zip(ours.algorithm.layers, reference.algorithm.layers, strict=True):
        ours_path, other_path = ours.algorithm.path(layer), reference.algorithm.path(other)
        assert_equal(ours_path, other_path, f"path of {layer.name}", tolerance)


def degrees(u: Tensor, v: Tensor) -> float:
    """The angle between two tensors seen as vectors."""
    u, v = u.detach().double().flatten(), v.detach().double().flatten()
    return torch.rad2deg(torch.acos((u @ v / (u.norm() * v.norm())).clamp(-1, 1))).item()
