"""The kernels as a GPU does them, against torch in float64; and that they repeat bit for bit."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from pfa_cli import kernels
from pfa_cli.training.precision import Precision

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="kernels need a GPU, and torch finds none here"
)

# Of a weight gradient: the error relative to the whole. TF32 keeps 10 bits of a number, bf16 7; products are summed in fp32.
PRECISIONS = {"fp32": 2e-6, "tf32": 2e-3, "bf16": 1e-5}
SHAPES = [
    (3, 16, 32, 1),
    (16, 16, 32, 1),
    (16, 32, 32, 2),
    (32, 64, 16, 2),
]  # channels in and out, pixels, stride


@pytest.fixture
def device() -> torch.device:
    device = torch.device("cuda", 0)
    if reason := kernels.reason_against(device):
        pytest.skip(f"kernels cannot be used here: {reason}")
    return device


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_weight_gradients_on_a_gpu(device: torch.device, shape: tuple[int, ...], precision: str) -> None:
    from pfa_cli.kernels import convolution

    inputs, outputs, pixels, stride = shape
    form = Precision(precision, device)
    dtype = form.dtype or torch.float32
    draws = torch.Generator(device).manual_seed(0)
    x = form.lay_out(torch.randn(128, inputs, pixels, pixels, device=device, generator=draws).to(dtype))
    weight = torch.randn(outputs, inputs, 3, 3, device=device, generator=draws)
    geometry = {"stride": (stride, stride), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    delta = F.conv2d(x, weight.to(dtype), stride=stride, padding=1)
    assert convolution.serves(x, outputs, 1)
    found, again = (convolution.weight_gradient(x, delta, weight.shape, geometry) for _ in range(2))
    expected = conv2d_weight(x.double(), weight.shape, delta.double(), **geometry)  # type: ignore[arg-type]
    assert torch.equal(found, again)
    assert (found.double() - expected).norm() < PRECISIONS[precision] * expected.norm()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [(128, 16, 32, 32), (128, 64, 8, 8), (3, 5, 7, 9)], ids=str)
def test_batch_norm_on_a_gpu(device: torch.device, shape: tuple[int, ...], precision: str) -> None:
    from pfa_cli.kernels import batch_norm

    form = Precision(precision, device)
    draws = torch.Generator(device).manual_seed(0)
    x, dy = (
        form.lay_out(torch.randn(shape, device=device, generator=draws).to(form.dtype or torch.float32))
        for _ in range(2)
    )
    x += 3

    def passed(norm: nn.BatchNorm2d, dtype: torch.dtype) -> list[torch.Tensor]:
        here = x.to(dtype, copy=True).requires_grad_()
        y = norm(here)
        y.backward(dy.to(dtype))
        assert here.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
        assert norm.running_mean is not None and norm.running_var is not None
        return [y.detach(), here.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]

    found, again = (passed(batch_norm.BatchNorm2d(shape[1], device=device), x.dtype) for _ in range(2))
    expected = passed(nn.BatchNorm2d(shape[1], device=device).double(), torch.float64)
    close = 2e-2 if precision == "bf16" else 1e-4
    for one, other, known in zip(found, again, expected, strict=True):
        assert torch.equal(one, other)
        assert (one.double() - known).norm() < close * known.norm()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_pals_noise_on_a_gpu(device: torch.device, layout: torch.memory_format) -> None:
    from pfa_cli.kernels import pal

    draws = torch.Generator(device).manual_seed(0)
    u, h, normal, da = (
        torch.randn(16, 6, 9, 8, device=device, generator=draws).contiguous(memory_format=layout)
        for _ in range(4)
    )
    assert pal.serves(u, h, normal, da) and not pal.serves(u, h.double())
    noise, change = pal.excite(u, h, normal, u.new_tensor(0.3), True)
    torch.testing.assert_close(noise, 0.3 * normal)
    torch.testing.assert_close(change, F.relu(u + noise) - h)
    fast = pal.respond(u, h, da, noise, 0.2, True)
    torch.testing.assert_close(fast, F.relu(u + da + noise) - h + 0.2 * (h - torch.cat([h[-1:], h[:-1]])))
