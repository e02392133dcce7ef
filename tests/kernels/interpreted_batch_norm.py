"""BatchNorm's kernels against torch's BatchNorm in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pfa_cli.kernels import batch_norm

SHAPES = [(4, 16, 8, 8), (3, 5, 7, 9), (6, 40, 3, 3), (1, 2, 1, 2)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels serve the CPU's tensors, too, which Triton's interpreter takes; in few programs, since it takes long."""
    monkeypatch.setattr(batch_norm, "_DEVICE", "cpu")
    monkeypatch.setattr(batch_norm, "_PROGRAMS", 8)


def filled(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """With parameters and running statistics that differ from channel to channel."""
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert tensor is not None
            tensor.copy_(0.5 + torch.rand(len(tensor), generator=draws))
    return norm


def passed(norm: nn.BatchNorm2d, x: Tensor, dy: Tensor) -> list[Tensor]:
    """Output, gradients and running statistics of one training pass."""
    x = x.clone().requires_grad_()
    y = norm(x)
    y.backward(dy)
    assert x.grad is not None and norm.weight.grad is not None and norm.bias.grad is not None
    assert norm.running_mean is not None and norm.running_var is not None
    return [y.detach(), x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]


@pytest.mark.parametrize("tile", [64, 4096])  # in several steps, and in one
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_batch_norm(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], layout: torch.memory_format, tile: int
) -> None:
    monkeypatch.setattr(batch_norm, "_TILE", tile)
    draws = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(shape, generator=draws).contiguous(memory_format=layout) for _ in range(2))
    x += 30  # far from 0: a variance formed as E(x²) - E(x)² would be off by 1e-4
    expected = passed(filled(nn.BatchNorm2d(shape[1])).double(), x.double(), dy.double())
    ours = filled(batch_norm.BatchNorm2d(shape[1]))
    found = passed(ours, x, dy)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=5e-5)
    assert found[0].stride() == x.stride() and found[1].stride() == x.stride()
    assert ours.num_batches_tracked is not None and ours.num_batches_tracked.item() == 1


def test_half_precision_is_summed_in_fp32() -> None:
    draws = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(4, 6, 8, 8, generator=draws).to(torch.bfloat16) for _ in range(2))
    found = passed(filled(batch_norm.BatchNorm2d(6)), x, dy)
    expected = passed(filled(nn.BatchNorm2d(6)).double(), x.double(), dy.double())
    assert found[0].dtype == torch.bfloat16 and found[2].dtype == torch.float32
    for one, other in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=2**-7, atol=1e-2)  # the interpreter cuts off
    for one, other in zip(found[2:], expected[2:], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


def test_an_error_in_another_layout_is_taken() -> None:
    draws = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(4, 6, 8, 8, generator=draws) for _ in range(2))
    found = passed(batch_norm.BatchNorm2d(6), x, dy.contiguous(memory_format=torch.channels_last))
    expected = passed(nn.BatchNorm2d(6), x, dy)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 1])
@pytest.mark.parametrize("deviation", [1e-3, 1.0])
def test_running_statistics_keep_what_momentum_says(momentum: float, deviation: float) -> None:
    x = deviation * torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    ours, theirs = (cls(2, momentum=momentum) for cls in (batch_norm.BatchNorm2d, nn.BatchNorm2d))
    for norm in (ours, theirs):
        norm(x)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("mean", "deviation"), [(1e5, 1.0), (2e19, 1e18)])
def test_a_large_mean_costs_no_digits(mean: float, deviation: float) -> None:
    x = mean + deviation * torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    ours, exact = batch_norm.BatchNorm2d(2), nn.BatchNorm2d(2).double()
    torch.testing.assert_close(ours(x).double(), exact(x.double()), rtol=0, atol=0.02)
    torch.testing.assert_close(ours.running_var.double(), exact.running_var, rtol=1e-4, atol=0)  # type: ignore[union-attr]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.filterwarnings(
    "ignore:invalid value:RuntimeWarning"
)  # NumPy's, which does the interpreter's sums
def test_what_is_not_finite_shows_in_its_channel_alone(value: float) -> None:
    x = torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    x[1, 0, 2, 3] = value
    norm = batch_norm.BatchNorm2d(2)
    y = norm(x)
    assert y[:, 0].isnan().all() and y[:, 1].isfinite().all()
    assert norm.running_var is not None and norm.running_var.isnan().tolist() == [True, False]


def test_parameters_that_do_not_learn_and_a_second_derivative() -> None:
    norm = filled(batch_norm.BatchNorm2d(2)).requires_grad_(False)
    x = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert not norm(x.detach()).requires_grad
    (gradient,) = torch.autograd.grad(norm(x).square().sum(), x, create_graph=True)
    assert norm.weight.grad is None
    with pytest.raises(RuntimeError, match="twice"):
        gradient.sum().backward()


def statistics_taken_away(norm: nn.BatchNorm2d) -> None:
    norm.running_mean = norm.running_var = norm.num_batches_tracked = None


def statistics_kept(norm: nn.BatchNorm2d) -> None:
    norm.track_running_stats = False


def statistics_averaged(norm: nn.BatchNorm2d) -> None:
    norm.momentum = None


@pytest.mark.parametrize(
    "change", [nn.Module.eval, statistics_taken_away, statistics_kept, statistics_averaged]
)
def test_in_evaluation_and_with_other_statistics_it_is_torchs(change: Callable[[nn.Module], None]) -> None:
    ours, theirs = filled(batch_norm.BatchNorm2d(3)), filled(nn.BatchNorm2d(3))
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for norm in (ours, theirs):
        change(norm)
    assert torch.equal(ours(x), theirs(x))
    for one, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert torch.equal(one, other)


def test_what_the_kernels_do_not_serve_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = batch_norm.BatchNorm2d(3)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(torch.ones(1, 3, 1, 1))
    with pytest.raises(ValueError, match="4D"):
        norm(torch.ones(3, 3))
    with pytest.raises(RuntimeError, match="should contain 2 elements not 3"):
        norm(torch.ones(2, 2, 4, 4))
    assert norm(torch.ones(0, 3, 4, 4)).shape == (0, 3, 4, 4)
    monkeypatch.setattr(batch_norm, "_DEVICE", "cuda")  # a network that was moved to the CPU
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(norm(x), nn.BatchNorm2d(3)(x))


def test_plain_layers_are_adopted_and_others_stay() -> None:
    class Own(nn.BatchNorm2d):
        pass

    layers = nn.Sequential(
        nn.BatchNorm2d(2), Own(2), nn.BatchNorm2d(2, affine=False), nn.BatchNorm2d(2, track_running_stats=False),
        nn.BatchNorm2d(2, momentum=None), nn.BatchNorm2d(2).double(), nn.BatchNorm1d(2),
    )  # fmt: skip
    names = list(layers.state_dict())
    batch_norm.adopt(layers)
    assert [type(layer) is batch_norm.BatchNorm2d for layer in layers] == [True, *[False] * 6]
    assert list(layers.state_dict()) == names
