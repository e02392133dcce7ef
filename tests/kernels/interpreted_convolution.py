"""The kernel of the weight gradient against the library's, in float64."""

from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from pfa_cli.algorithms import convert
from pfa_cli.algorithms.base import FeedbackConv2d
from pfa_cli.kernels import convolution

Geometry = dict[str, tuple[int, int]]
GEOMETRIES: list[Geometry] = [
    {"stride": stride, "padding": padding, "dilation": dilation}
    for stride, padding, dilation in product([(1, 1), (2, 1)], [(0, 0), (1, 2)], [(1, 1), (2, 1)])
]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(autouse=True)
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "_PROGRAMS", 12)


def drawn(
    inputs: int, outputs: int, layout: torch.memory_format, geometry: Geometry
) -> tuple[Tensor, Tensor, torch.Size]:
    """Input, error and the weight's shape; four images, so that several programs share them, each in several steps."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(4, inputs, 9, 8, generator=draws).contiguous(memory_format=layout)
    weight = torch.randn(outputs, inputs, 3, 2, generator=draws)
    delta = torch.randn(F.conv2d(x, weight, **geometry).shape, generator=draws)  # type: ignore[arg-type]
    return x, delta.contiguous(memory_format=layout), weight.shape


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("channels", [(4, 5), (40, 20)], ids=str)  # in one block, and in several
def test_it_is_the_weight_gradient(
    channels: tuple[int, int], layout: torch.memory_format, geometry: Geometry
) -> None:
    x, delta, shape = drawn(*channels, layout, geometry)
    expected = conv2d_weight(x.double(), shape, delta.double(), groups=1, **geometry)  # type: ignore[arg-type]
    found = convolution.weight_gradient(x, delta, shape, geometry)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
    assert found.stride() == torch.empty(shape).contiguous(memory_format=layout).stride()


@pytest.mark.parametrize("kernel", [(1, 1), (2, 4), (5, 5)])
@pytest.mark.parametrize("channels", [(1, 1), (1, 7), (17, 1)])
@pytest.mark.parametrize(
    ("pixels", "stride", "padding"),
    [((1, 1), (1, 1), (2, 2)), ((5, 6), (3, 4), (0, 1)), ((7, 4), (1, 2), (5, 4))],
)
def test_odd_shapes(
    channels: tuple[int, int],
    kernel: tuple[int, int],
    pixels: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> None:
    """One image, one channel, one pixel; kernels that are even, and strides and paddings beyond them; views as arguments."""
    geometry: Geometry = {"stride": stride, "padding": padding, "dilation": (1, 1)}
    inputs, outputs = channels
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2 * inputs, *reversed(pixels), generator=draws)[:, ::2].transpose(2, 3)
    shape = torch.Size((outputs, inputs, *kernel))
    delta = torch.randn(1, outputs, 1, 1, generator=draws).expand(
        F.conv2d(x, torch.zeros(shape), **geometry).shape  # type: ignore[arg-type]
    )
    expected = conv2d_weight(x.double(), shape, delta.double(), groups=1, **geometry)  # type: ignore[arg-type]
    found = convolution.weight_gradient(x, delta, shape, geometry)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


def test_half_precision_is_summed_in_fp32() -> None:
    geometry: Geometry = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    x, delta, shape = drawn(4, 5, torch.channels_last, geometry)
    x, delta = x.half(), delta.half()  # the interpreter multiplies the bits of bfloat16
    expected = conv2d_weight(x.double(), shape, delta.double(), groups=1, **geometry)  # type: ignore[arg-type]
    found = convolution.weight_gradient(x, delta, shape, geometry)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


def gradients(network: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    F.cross_entropy(network(x), torch.arange(len(x)) % 2).backward()
    assert x.grad is not None
    return [x.grad, *(p.grad for p in network.parameters() if p.grad is not None)]


@pytest.mark.parametrize("algorithm", ["bp", "fa", "pfa", "kp"])
def test_a_network_learns_the_same_with_it(monkeypatch: pytest.MonkeyPatch, algorithm: str) -> None:
    monkeypatch.setattr(convolution, "serves", lambda x, n_out, groups: asked.append(n_out) or True)
    asked: list[int] = []
    networks = []
    for own in (True, False):
        torch.manual_seed(0)
        layers = nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(),
            nn.Linear(16, 2),
        )  # fmt: skip
        networks.append(convert(layers, algorithm, seed=1))
        for layer in layers:
            if isinstance(layer, FeedbackConv2d):
                layer.own_kernel = own
    x = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    ours, theirs = (gradients(network, x) for network in networks)
    assert asked[:2] == [3, 4]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_mixed_precision_gives_gradients_in_fp32() -> None:
    geometry = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    torch.manual_seed(0)
    layer, x = nn.Conv2d(2, 3, 3), torch.randn(2, 2, 6, 6)
    expected = nn.Conv2d(2, 3, 3)
    expected.load_state_dict(layer.state_dict())
    with torch.autocast("cpu", torch.float16):
        a = convolution.convolve(x, layer.weight, layer.bias, geometry)
        b = expected(x)
    assert a.dtype == torch.float16 and torch.equal(a, b)
    for output in (a, b):
        output.float().square().sum().backward()
    assert layer.weight.grad is not None and expected.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    torch.testing.assert_close(layer.weight.grad, expected.weight.grad, rtol=0.01, atol=0.05)


@pytest.mark.parametrize("shape", [(4, 2, 1, 1), (3, 1, 1, 1)])
def test_tensors_of_another_weight_are_refused(shape: tuple[int, ...]) -> None:
    """As the library does: an algorithm of one's own may mistake a shape."""
    geometry: Geometry = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    x, delta = torch.ones(2, 2, 4, 4), torch.ones(2, 3, 4, 4)
    with pytest.raises(ValueError, match="has no gradient from"):
        convolution.weight_gradient(x, delta, torch.Size(shape), geometry)
    with pytest.raises(ValueError, match="has no gradient from"):
        convolution.weight_gradient(x[:1], delta, torch.Size((3, 2, 1, 1)), geometry)


def test_a_second_derivative_is_refused() -> None:
    geometry = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    draws = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(*shape, generator=draws, requires_grad=True) for shape in [(2, 2, 4, 4), (3, 2, 2, 2)]
    )
    a = convolution.convolve(x, weight, None, geometry)
    (gradient,) = torch.autograd.grad(a.square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        gradient.sum().backward()


def test_it_serves_few_channels_on_a_gpu_alone() -> None:
    def like(
        channels: int, dtype: torch.dtype = torch.float32, on_gpu: bool = True, images: int = 8
    ) -> SimpleNamespace:
        shape = (images, channels, 32, 32)
        return SimpleNamespace(
            shape=shape, dtype=dtype, is_cuda=on_gpu, numel=lambda: torch.Size(shape).numel()
        )

    assert convolution.serves(like(32), 64, 1) and convolution.serves(like(64, torch.bfloat16), 32, 1)
    assert not convolution.serves(like(16), 64, 2)
    assert not convolution.serves(like(64), 64, 1)
    assert not convolution.serves(like(16, torch.float64), 16, 1)
    assert not convolution.serves(like(16, on_gpu=False), 16, 1)
    assert not convolution.serves(like(16, images=0), 16, 1)
    assert not convolution.serves(like(64, images=2**14), 16, 1)  # 2³⁰ numbers
    assert not convolution.serves(like(16, images=2**14), 64, 1)  # as many errors
