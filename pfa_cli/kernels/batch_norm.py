"""BatchNorm of images in two kernels forward and two backward.

For each channel, over the N values that a batch has of it (Ioffe and Szegedy 2015, algorithm 1):

    y = (x - mean) / sqrt(var + eps)·weight + bias
    dx = weight / sqrt(var + eps)·(dy - sum(dy) / N - (x - mean)·sum(dy·(x - mean)) / (var + eps) / N)

The first kernel of each direction sums over shares of the batch, one share to a program; the second adds up the shares, in
every program alike, and writes the result. The sums are in fp32 whatever x is, and variances are sums of squared distances from
the mean, so that a large mean costs no digits.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_PROGRAMS = 256  # that share the values of all channels; on an H200 128 and 528 are no faster
_LARGE, _PROGRAMS_FOR_LARGE = 2**22, 512  # numbers from which on more programs are faster
_CUDNN_IS_FAST = 2**24  # numbers from which on cuDNN is as fast, in fp32 with channels last
_TILE = 4096  # values that a program holds at a time
_MOST_CHANNELS = 32  # of a tile, where channels lie side by side
_WARPS = 4
_LARGEST = 2**31  # indices are int32
_DEVICE = "cuda"  # in tests "cpu", where the kernels are interpreted
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class BatchNorm2d(nn.BatchNorm2d):
    """torch's BatchNorm2d, by the kernels of this module when it trains."""

    def forward(self, x: Tensor) -> Tensor:
        # Running statistics are taken away while angles are measured.
        moves = self.track_running_stats and self.running_mean is not None and self.momentum is not None
        if not (self.training and moves and _serve(x, self.num_features)):
            return super().forward(x)
        y = _BatchNorm.apply(
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.num_batches_tracked,
            self.momentum,
            self.eps,
        )
        assert isinstance(y, Tensor)
        return y


def adopt(network: nn.Module) -> None:
    """Has every plain BatchNorm2d of ``network`` use these kernels, in place: parameters, names and hooks stay."""
    for module in network.modules():
        plain = type(module) is nn.BatchNorm2d and module.affine and module.track_running_stats
        if plain and module.momentum is not None and module.weight.dtype == torch.float32:
            module.__class__ = BatchNorm2d


def try_out(device: torch.device) -> None:
    """Does a small one, forward and backward; whatever keeps it from working comes out."""
    norm = BatchNorm2d(2, device=device)
    norm(torch.ones(2, 2, 2, 2, device=device)).sum().backward()


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        batches: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        x = _dense(x)
        sizes, tiles, grid = _division(x)
        shares, channels = grid[0], x.shape[1]
        means, squares = torch.empty(2, shares, channels, device=x.device)
        mean, scale = torch.empty(2, channels, device=x.device)
        y = torch.empty_like(x)
        with torch.cuda.device_of(x):
            _statistics[grid](x, means, squares, **sizes, **tiles)
            _normalise[grid](
                *(x, means, squares, weight, bias, y, mean, scale, running_mean, running_var, batches),
                **(sizes | {"momentum": momentum, "eps": eps}),
                **(tiles | _all_shares(shares)),
            )
        ctx.save_for_backward(x, weight, mean, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        if dy.stride() != x.stride():
            dy = torch.empty_like(x).copy_(dy)
        sizes, tiles, grid = _division(x)
        shares, channels = grid[0], x.shape[1]
        sums, products = torch.empty(2, shares, channels, device=x.device)
        dweight, dbias = torch.empty(2, channels, device=x.device)
        dx = torch.empty_like(x)
        with torch.cuda.device_of(x):
            _sums[grid](x, dy, mean, scale, sums, products, **sizes, **tiles)
            _send_back[grid](
                *(x, dy, mean, scale, weight, sums, products, dx, dweight, dbias),
                **sizes,
                **(tiles | _all_shares(shares)),
            )
        return dx, dweight, dbias, None, None, None, None, None


def _serve(x: Tensor, channels: int) -> bool:
    """Whether the kernels can be used on ``x``, which must have so many channels, and are faster."""
    if x.device.type != _DEVICE or x.dtype not in _DTYPES or x.ndim != 4 or x.shape[1] != channels:
        return False
    return channels < x.numel() < _LARGEST and not _cudnn_is_fast(x)  # one value has no variance


def _cudnn_is_fast(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.numel() >= _CUDNN_IS_FAST and not x.is_contiguous()


def _dense(x: Tensor) -> Tensor:
    """``x`` without gaps, channels first or channels last."""
    return x if x.is_contiguous(memory_format=torch.channels_last) else x.contiguous()


def _division(x: Tensor) -> tuple[dict[str, int], dict[str, Any], tuple[int, int]]:
    """Sizes, settings and grid of the kernels: how the values of all channels are divided among programs."""
    images, channels, height, width = x.shape
    values, side_by_side = images * height * width, not x.is_contiguous()
    block = min(triton.next_power_of_2(channels), _MOST_CHANNELS) if side_by_side else 1
    blocks = triton.cdiv(channels, block)
    programs = _PROGRAMS if x.numel() < _LARGE else _PROGRAMS_FOR_LARGE
    share = triton.cdiv(values, max(1, programs // blocks))
    rows = min(_TILE // block, triton.next_power_of_2(share))
    share = triton.cdiv(share, rows) * rows
    sizes = {"values": values, "channels": channels, "area": height * width, "share": share}
    tiles = {"ROWS": rows, "CHANNELS": block, "SIDE_BY_SIDE": side_by_side, "num_warps": _WARPS}
    return sizes, tiles, (triton.cdiv(values, share), blocks)


def _all_shares(shares: int) -> dict[str, int]:
    return {"SHARES": shares, "SHARES_2": triton.next_power_of_2(shares)}


# The kernels. A program has share number p of the channels c; a channel's value v is pixel v % area of image v // area.


@triton.jit
def _places(v, c, channels, area, SIDE_BY_SIDE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where the values lie."""
    if SIDE_BY_SIDE:
        return v[:, None] * channels + c[None, :]
    return (v // area * (channels * area) + v % area)[:, None] + (c * area)[None, :]


@triton.jit
def _next(start, end, c, channels, area, ROWS: tl.constexpr, SIDE_BY_SIDE: tl.constexpr):  # type: ignore[no-untyped-def]
    """The values from ``start`` on, before ``end``: where they lie, and which of them there are."""
    v = start + tl.arange(0, ROWS)
    inside = (v < end)[:, None] & (c < channels)[None, :]
    return _places(v, c, channels, area, SIDE_BY_SIDE), inside


@triton.jit
def _all_parts(c, channels, SHARES: tl.constexpr, SHARES_2: tl.constexpr):  # type: ignore[no-untyped-def]
    """What every share has stored of the channels: where it lies, and which of it there is."""
    q = tl.arange(0, SHARES_2)
    known = (q < SHARES)[:, None] & (c < channels)[None, :]
    return q[:, None] * channels + c[None, :], known


@triton.jit
def _statistics(  # type: ignore[no-untyped-def]
    x, means, squares, values, channels, area, share,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, SIDE_BY_SIDE: tl.constexpr,
):  # fmt: skip
    """Of each share: its mean, and the sum of the squared distances from it (Chan, Golub and LeVeque 1983)."""
    p = tl.program_id(0)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    end = tl.minimum((p + 1) * share, values)
    count = 0.0
    mean = tl.zeros((CHANNELS,), tl.float32)
    square = tl.zeros((CHANNELS,), tl.float32)
    for start in range(p * share, end, ROWS):
        place, inside = _next(start, end, c, channels, area, ROWS, SIDE_BY_SIDE)
        here = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        new = tl.minimum(end - start, ROWS).to(tl.float32)
        new_mean = tl.sum(here, 0) / new
        away = tl.where(inside, here - new_mean[None, :], 0.0)
        step = new_mean - mean
        # In this order: the square of a large step could be infinite, and at first it counts 0 times.
        square += tl.sum(away * away, 0) + step * (step * (count * new / (count + new)))
        mean += step * (new / (count + new))
        count += new
    tl.store(means + p * channels + c, mean, mask=c < channels)
    tl.store(squares + p * channels + c, square, mask=c < channels)


@triton.jit
def _normalise(  # type: ignore[no-untyped-def]
    x, means, squares, weight, bias, y, mean_kept, scale_kept, running_mean, running_var, batches,
    values, channels, area, share, momentum, eps,
    SHARES: tl.constexpr, SHARES_2: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, SIDE_BY_SIDE: tl.constexpr,
):  # fmt: skip
    """y; the first program of a channel also keeps its mean and 1 / sqrt(var + eps), and moves the running statistics."""
    p = tl.program_id(0)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    at, known = _all_parts(c, channels, SHARES, SHARES_2)
    share_means = tl.load(means + at, mask=known, other=0.0)
    share_squares = tl.load(squares + at, mask=known, other=0.0)
    left = values - tl.arange(0, SHARES_2) * share
    counts = tl.maximum(tl.minimum(share, left), 0).to(tl.float32)[:, None]
    mean = tl.sum(share_means * counts, 0) / values
    away = tl.where(known, share_means - mean[None, :], 0.0)
    var = tl.sum(share_squares + away * away * counts, 0) / values
    scale = 1.0 / tl.sqrt(var + eps)
    if p == 0:
        tl.store(mean_kept + c, mean, mask=c < channels)
        tl.store(scale_kept + c, scale, mask=c < channels)
        before = tl.load(running_mean + c, mask=c < channels)
        tl.store(running_mean + c, (1 - momentum) * before + momentum * mean, mask=c < channels)
        before = tl.load(running_var + c, mask=c < channels)
        unbiased = var * (values / (values - 1.0))
        tl.store(running_var + c, (1 - momentum) * before + momentum * unbiased, mask=c < channels)
        if tl.program_id(1) == 0:
            tl.store(batches, tl.load(batches) + 1)
    factor = tl.load(weight + c, mask=c < channels) * scale
    shift = tl.load(bias + c, mask=c < channels)
    end = tl.minimum((p + 1) * share, values)
    for start in range(p * share, end, ROWS):
        place, inside = _next(start, end, c, channels, area, ROWS, SIDE_BY_SIDE)
        here = tl.load(x + place, mask=inside).to(tl.float32)
        tl.store(y + place, (here - mean[None, :]) * factor[None, :] + shift[None, :], mask=inside)


@triton.jit
def _sums(  # type: ignore[no-untyped-def]
    x, dy, mean, scale, sums, products, values, channels, area, share,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, SIDE_BY_SIDE: tl.constexpr,
):  # fmt: skip
    """Of each share: the sum of dy, and of dy times the normalised x."""
    p = tl.program_id(0)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    middle = tl.load(mean + c, mask=c < channels, other=0.0)
    total = tl.zeros((CHANNELS,), tl.float32)
    product = tl.zeros((CHANNELS,), tl.float32)
    end = tl.minimum((p + 1) * share, values)
    for start in range(p * share, end, ROWS):
        place, inside = _next(start, end, c, channels, area, ROWS, SIDE_BY_SIDE)
        here = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        error = tl.load(dy + place, mask=inside, other=0.0).to(tl.float32)
        total += tl.sum(error, 0)
        product += tl.sum(error * (here - middle[None, :]), 0)
    product *= tl.load(scale + c, mask=c < channels, other=0.0)
    tl.store(sums + p * channels + c, total, mask=c < channels)
    tl.store(products + p * channels + c, product, mask=c < channels)


@triton.jit
def _send_back(  # type: ignore[no-untyped-def]
    x, dy, mean, scale, weight, sums, products, dx, dweight, dbias, values, channels, area, share,
    SHARES: tl.constexpr, SHARES_2: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, SIDE_BY_SIDE: tl.constexpr,
):  # fmt: skip
    """dx; the first program of a channel also writes the gradients of its weight and bias."""
    p = tl.program_id(0)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    at, known = _all_parts(c, channels, SHARES, SHARES_2)
    total = tl.sum(tl.load(sums + at, mask=known, other=0.0), 0)
    product = tl.sum(tl.load(products + at, mask=known, other=0.0), 0)
    if p == 0:
        tl.store(dweight + c, product, mask=c < channels)
        tl.store(dbias + c, total, mask=c < channels)
    middle = tl.load(mean + c, mask=c < channels, other=0.0)
    factor = tl.load(scale + c, mask=c < channels, other=0.0)
    slope = product * factor / values
    offset = total / values
    factor *= tl.load(weight + c, mask=c < channels, other=0.0)
    end = tl.minimum((p + 1) * share, values)
    for start in range(p * share, end, ROWS):
        place, inside = _next(start, end, c, channels, area, ROWS, SIDE_BY_SIDE)
        here = tl.load(x + place, mask=inside).to(tl.float32)
        error = tl.load(dy + place, mask=inside).to(tl.float32)
        sent = error - offset[None, :] - (here - middle[None, :]) * slope[None, :]
        tl.store(dx + place, sent * factor[None, :], mask=inside)
