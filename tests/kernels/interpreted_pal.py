"""PAL's kernels against the same formulas in torch."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pfa_cli.kernels import pal
from pfa_cli.ranks import Ranks

SHAPES = [
    ((7, 300), torch.contiguous_format),
    ((5, 16, 9, 8), torch.contiguous_format),
    ((5, 16, 9, 8), torch.channels_last),
]


def drawn(shape: tuple[int, ...], layout: torch.memory_format, n: int) -> list[Tensor]:
    draws = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=draws).contiguous(memory_format=layout) for _ in range(n)]


def rate(u: Tensor, rectified: bool) -> Tensor:
    return F.relu(u) if rectified else u


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize(("shape", "layout"), SHAPES)
def test_noise_and_what_it_does_to_the_rate(
    shape: tuple[int, ...], layout: torch.memory_format, rectified: bool
) -> None:
    u, h, normal = drawn(shape, layout, 3)
    noise, change = pal.excite(u, h, normal, torch.tensor(0.3), rectified)
    torch.testing.assert_close(noise, 0.3 * normal)
    torch.testing.assert_close(change, rate(u + noise, rectified) - h)
    assert noise.stride() == change.stride() == u.stride()


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize(("shape", "layout"), SHAPES)
def test_the_filtered_rate_leaks_from_the_image_before(
    shape: tuple[int, ...], layout: torch.memory_format, rectified: bool
) -> None:
    u, h, da, noise = drawn(shape, layout, 4)
    fast = pal.respond(u, h, da, noise, 0.2, rectified)
    expected = rate(u + da + noise, rectified) - h + 0.2 * (h - Ranks().previous(h))
    torch.testing.assert_close(fast, expected)
    assert fast.stride() == u.stride()


@pytest.mark.filterwarnings(
    "ignore:invalid value:RuntimeWarning"
)  # NumPy's, which does the interpreter's sums
def test_what_is_not_a_number_stays_so() -> None:
    u, nothing = torch.tensor([[float("nan"), 1.0]]), torch.zeros(1, 2)
    _, change = pal.excite(u, nothing, nothing, torch.tensor(1.0), True)
    fast = pal.respond(nothing, nothing, u, nothing, 0.2, True)
    assert change.isnan().tolist() == fast.isnan().tolist() == [[True, False]]


def test_they_serve_what_lies_alike_on_a_gpu() -> None:
    (u,) = drawn((5, 16, 9, 8), torch.channels_last, 1)
    assert not pal.serves(u)  # on the CPU


def test_what_has_gaps_is_left_to_torch() -> None:
    (u,) = drawn((4, 6, 4, 4), torch.contiguous_format, 1)
    assert pal._without_gaps(u) and pal._without_gaps(u.contiguous(memory_format=torch.channels_last))
    assert not pal._without_gaps(u[:, ::2]) and not pal._without_gaps(u.transpose(2, 3)[..., :2])
