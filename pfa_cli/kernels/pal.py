"""What PAL does element by element, each in one kernel in place of four to eight.

The letters are those of `pfa_cli.algorithms.pal`. All tensors of a call are fp32 and of one shape [b, …], b images, and lie in
memory alike and without gaps, images outermost; so do the results.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK, _WARPS = 2048, 4
_LARGEST = 2**31 - 1  # indices are int32


def serves(*tensors: Tensor) -> bool:
    """Whether these kernels can be used on the tensors."""
    first = tensors[0]
    return first.numel() <= _LARGEST and all(
        tensor.is_cuda
        and tensor.dtype == torch.float32
        and tensor.stride() == first.stride()
        and _without_gaps(tensor)
        for tensor in tensors
    )


def excite(u: Tensor, h: Tensor, normal: Tensor, deviation: Tensor, rectified: bool) -> tuple[Tensor, Tensor]:
    """ξ = σ·``normal``, and φ(u + ξ) - h; φ is ReLU, or the identity where not ``rectified``. σ, ``deviation``, is a scalar."""
    noise, change = torch.empty_like(u), torch.empty_like(u)
    settings = {"RECTIFIED": rectified, "BLOCK": _BLOCK, "num_warps": _WARPS}
    with torch.cuda.device_of(u):
        _excite[_grid(u)](u, h, normal, deviation, noise, change, u.numel(), **settings)
    return noise, change


def respond(u: Tensor, h: Tensor, da: Tensor, noise: Tensor, leak: float, rectified: bool) -> Tensor:
    """r̂ = φ(u + da + ξ) - h + leak·(h - roll(h)); the batch is rolled by one image."""
    fast = torch.empty_like(u)
    settings = {"RECTIFIED": rectified, "BLOCK": _BLOCK, "num_warps": _WARPS}
    with torch.cuda.device_of(u):
        _respond[_grid(u)](u, h, da, noise, fast, u.numel(), u[0].numel(), leak, **settings)
    return fast


def try_out(device: torch.device) -> None:
    """Does each with few numbers; whatever keeps it from working comes out."""
    u = torch.ones(2, 2, device=device)
    noise, change = excite(u, u, u, u.sum(), True)
    respond(u, change, u, noise, 0.2, True)


def _without_gaps(tensor: Tensor) -> bool:
    return tensor.is_contiguous() or (
        tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    )


def _grid(tensor: Tensor) -> tuple[int]:
    return (triton.cdiv(tensor.numel(), _BLOCK),)


@triton.jit
def _rate(u, RECTIFIED: tl.constexpr):  # type: ignore[no-untyped-def]
    if RECTIFIED:
        return tl.maximum(u, 0.0, propagate_nan=tl.PropagateNan.ALL)
    return u


@triton.jit
def _excite(  # type: ignore[no-untyped-def]
    u, h, normal, deviation, noise, change, numbers, RECTIFIED: tl.constexpr, BLOCK: tl.constexpr
):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = at < numbers
    xi = tl.load(normal + at, mask=known) * tl.load(deviation)
    tl.store(noise + at, xi, mask=known)
    rate = _rate(tl.load(u + at, mask=known) + xi, RECTIFIED)
    tl.store(change + at, rate - tl.load(h + at, mask=known), mask=known)


@triton.jit
def _respond(  # type: ignore[no-untyped-def]
    u, h, da, noise, fast, numbers, image, leak, RECTIFIED: tl.constexpr, BLOCK: tl.constexpr
):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = at < numbers
    here = tl.load(h + at, mask=known)
    before = tl.load(h + tl.where(at < image, at + numbers - image, at - image), mask=known)
    drive = tl.load(u + at, mask=known) + tl.load(da + at, mask=known) + tl.load(noise + at, mask=known)
    tl.store(fast + at, _rate(drive, RECTIFIED) - here + leak * (here - before), mask=known)
