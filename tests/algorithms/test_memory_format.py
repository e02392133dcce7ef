"""How kernels lie in memory changes nothing: on a GPU they are channels-last, on a CPU contiguous."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pfa_cli.algorithms import ALGORITHMS, Algorithm, attach, convert
from pfa_cli.algorithms.wm import WM


def trained(algorithm: str, memory_format: torch.memory_format) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, groups=2),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    network.double().to(memory_format=memory_format)
    images = torch.randn(6, 3, 9, 9, dtype=torch.float64).contiguous(memory_format=memory_format)
    labels = torch.randint(4, (6,))
    convert(network, algorithm, seed=1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, fused=True)
    attach(network, optimizer, prepare=False)
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network


def in_the_order_of_memory(self: WM, shape: tuple[int, int], *where: object) -> Tensor:
    """The noise of 3 by 3 kernels, its inputs in the order in which channels-last kernels have theirs."""
    drawn = Algorithm.noise(self, shape, *where)  # type: ignore[arg-type]
    return drawn.unflatten(1, (-1, 9)).mT.flatten(1) if shape[1] % 9 == 0 else drawn


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_channels_last_kernels_train_alike(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = trained(algorithm, torch.contiguous_format)
    monkeypatch.setattr(WM, "noise", in_the_order_of_memory)  # WM draws for inputs as they lie in memory
    other = trained(algorithm, torch.channels_last)
    assert other[0].weight.is_contiguous(memory_format=torch.channels_last)
    if hasattr(other[0], "V"):
        assert other[0].V.stride() == other[0].weight.stride()
    for (name, expected), found in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12, msg=name)
    for a, b in zip(one.algorithm.layers, other.algorithm.layers, strict=True):
        torch.testing.assert_close(other.algorithm.path(b), one.algorithm.path(a), rtol=1e-9, atol=1e-12)
