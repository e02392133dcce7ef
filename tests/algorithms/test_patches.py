"""The weight gradient from patches against the library's, in float64; and which of the two is taken."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from pfa_cli.algorithms import convert, patches
from pfa_cli.algorithms.base import FeedbackConv2d
from pfa_cli.ranks import Ranks

GEOMETRIES = [
    {"stride": stride, "padding": padding, "dilation": dilation}
    for stride, padding, dilation in product([(1, 1), (2, 1)], [(0, 0), (1, 2)], [(1, 1), (2, 1)])
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_it_is_the_weight_gradient(geometry: dict[str, tuple[int, int]], layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4, 9, 8, dtype=torch.float64).contiguous(memory_format=layout)
    weight = torch.randn(5, 4, 3, 2, dtype=torch.float64)
    delta = torch.randn_like(F.conv2d(x, weight, **geometry))
    expected = conv2d_weight(x, weight.shape, delta, groups=1, **geometry)
    found = patches.weight_gradient(x, delta, weight.shape, geometry | {"groups": 1})
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def gradients(network: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    F.cross_entropy(network(x), torch.arange(len(x)) % 2).backward()
    assert x.grad is not None
    return [x.grad, *(p.grad for p in network.parameters() if p.grad is not None)]


def network(algorithm: str) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    )  # fmt: skip
    return convert(layers.double(), algorithm, seed=1)


@pytest.mark.parametrize("algorithm", ["bp", "fa", "pfa", "kp"])
def test_a_network_learns_the_same_either_way(algorithm: str) -> None:
    ours, theirs = network(algorithm), network(algorithm)
    for layer in ours.modules():
        if isinstance(layer, FeedbackConv2d):
            layer.by_patches = True
    x = torch.randn(4, 2, 6, 6, dtype=torch.float64)
    for found, expected in zip(gradients(ours, x), gradients(theirs, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_mixed_precision_has_the_librarys_types() -> None:
    layer = nn.Conv2d(2, 3, 3)
    x = torch.randn(2, 2, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        a = patches.convolve(
            x,
            layer.weight,
            layer.bias,
            {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1},
        )
    assert a.dtype == torch.bfloat16
    a.float().square().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.dtype == torch.float32
    expected = nn.Conv2d(2, 3, 3)
    expected.load_state_dict(layer.state_dict())
    expected(x).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, expected.weight.grad, rtol=0.05, atol=0.5)


def test_a_layer_is_timed_in_training_and_then_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(
        patches, "are_faster", lambda layer, x: asked.append(tuple(x.shape)) or len(asked) == 1
    )
    net = network("pfa")
    first, second = (layer for layer in net.modules() if isinstance(layer, FeedbackConv2d))
    first.by_patches = second.by_patches = None
    x = torch.randn(4, 2, 6, 6, dtype=torch.float64)
    net.eval()(x)
    with torch.no_grad():
        net.train()(x)
    assert asked == [] and first.by_patches is None
    for _ in range(2):
        net.train()(x)
    assert asked == [(4, 2, 6, 6), (4, 3, 6, 6)] and (first.by_patches, second.by_patches) == (True, False)


def test_groups_have_the_librarys_way_only() -> None:
    assert not patches.possible(convert(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), "bp")[0])


@pytest.mark.parametrize(("ours", "expected"), [(0.45, True), (0.6, False)])
def test_only_half_the_time_is_much_faster(
    ours: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A smaller difference could turn round from run to run, and with it the bits."""
    took = {"library": 1.0, "ours": ours}
    now = 0.0

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.at = 0.0

        def record(self) -> None:
            self.at = now

        def synchronize(self) -> None: ...

        def elapsed_time(self, other: "Event") -> float:
            return other.at - self.at

    def work(name: str) -> None:
        nonlocal now
        now += took[name]

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: None)
    assert patches._much_faster(lambda: work("ours"), lambda: work("library")) is expected


@pytest.mark.parametrize(
    ("images", "channels", "side", "tried"), [(8, 16, 8, True), (32, 512, 4, False), (8, 16, 300, False)]
)
def test_no_more_memory_than_a_few_hundred_megabytes(
    monkeypatch: pytest.MonkeyPatch, images: int, channels: int, side: int, tried: bool
) -> None:
    """512 channels: small patches, but one product for each image, as large as the weight."""
    layer = convert(nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1)), "bp", seed=0)[0]
    asked: list[None] = []
    monkeypatch.setattr(patches, "_faster", {})
    monkeypatch.setattr(patches, "_much_faster", lambda ours, library: bool(asked.append(None)))
    assert isinstance(layer, FeedbackConv2d)
    patches.are_faster(layer, torch.zeros(images, channels, side, side))
    assert bool(asked) is tried


def test_all_ranks_go_the_way_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each times for itself, and a checkpoint has one answer: a resumed rank would go on another way than its own."""
    net = network("pfa")
    second = Ranks(1, 2)
    monkeypatch.setattr(patches, "are_faster", lambda layer, x: False)
    monkeypatch.setattr(second, "from_first", lambda found: True)
    net.algorithm.ranks = second
    for layer in (convolutions := [each for each in net.modules() if isinstance(each, FeedbackConv2d)]):
        layer.by_patches = None
    net.train()(torch.randn(4, 2, 6, 6, dtype=torch.float64))
    assert [layer.by_patches for layer in convolutions] == [True, True]
