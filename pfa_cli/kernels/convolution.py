"""The weight gradient of a small convolution in one kernel, and the sum of its parts.

    dW[o, i, r, s] = sum over images and positions of delta[o]·x[i] where tap (r, s) meets the image

Each program has a share of the positions and one row r of the kernel: the inputs of its taps s and channels i are the columns
of a matrix, and what it adds up is deltaᵀ times that matrix. The shares are added afterwards, in one order.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_MOST_PAIRS = 32 * 64  # of an input with an output channel: with more, cuDNN's kernels are as fast
_PROGRAMS = 528  # that share a weight gradient
_ROWS, _COLUMNS, _CHANNELS = 32, 64, 64  # at most, of a tile: positions; inputs; outputs
_LEAST = 16  # in each direction of a product
_WARPS, _STAGES = 2, 3
_LARGEST = 2**30  # numbers of input or error: indices are int32


def serves(x: Tensor, n_out: int, groups: int) -> bool:
    """Whether the kernel is faster than cuDNN's for inputs like ``x`` [b, N_in, h, w] and ``n_out`` output channels."""
    inputs = x.shape[1]
    few = inputs * n_out <= _MOST_PAIRS and groups == 1
    small = 0 < x.numel() // max(1, inputs) * max(inputs, n_out) < _LARGEST
    return few and small and x.is_cuda and x.dtype in (torch.float32, torch.bfloat16, torch.float16)


def weight_gradient(x: Tensor, delta: Tensor, shape: torch.Size, geometry: dict[str, Any]) -> Tensor:
    """What `torch.nn.grad.conv2d_weight` gives, in fp32: [N_out, N_in, kh, kw], summed over images and positions.

    Args:
        x: [b, N_in, h, w], the input, in any memory format. The result has the same.
        delta: [b, N_out, h', w'], the error at the output, of the dtype of ``x``.
        shape: that of the weight.
        geometry: stride, padding and dilation, as `torch.nn.functional.conv2d` takes them; groups are ignored.

    Raises:
        ValueError: the tensors are not those of such a weight.
    """
    (n_out, n_in, height, width), (images, _, rows, columns) = shape, delta.shape
    if x.shape[:2] != (images, n_in) or delta.shape[1] != n_out:  # the kernel would read beyond them
        raise ValueError(
            f"a weight of shape {list(shape)} has no gradient from an input {list(x.shape)} and an error {list(delta.shape)}"
        )
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    strides = torch.empty(shape, device="meta", memory_format=layout).stride()
    block, outputs = _power(width * n_in, _COLUMNS), _power(n_out, _CHANNELS)
    blocks = triton.cdiv(width * n_in, block) * triton.cdiv(n_out, outputs)
    positions = images * rows * columns
    share = triton.cdiv(positions, max(1, _PROGRAMS // (blocks * height)))
    share = triton.cdiv(share, _ROWS) * _ROWS
    shares = triton.cdiv(positions, share)
    parts = torch.empty(shares, shape.numel(), device=x.device)
    (sh, sw), (ph, pw), (dh, dw) = (geometry[name] for name in ("stride", "padding", "dilation"))
    with torch.cuda.device_of(x):
        _share_of_gradient[(shares, height, blocks)](
            *(x, delta, parts, *x.stride(), *delta.stride(), *strides, shape.numel(), positions, share),
            N_IN=n_in, N_OUT=n_out, H=x.shape[2], W=x.shape[3], H_OUT=rows, W_OUT=columns, KW=width,
            SH=sh, SW=sw, PH=ph, PW=pw, DH=dh, DW=dw,
            ROWS=_ROWS, COLUMNS=block, OUTPUTS=outputs, PRECISION=_precision(), num_warps=_WARPS, num_stages=_STAGES,
        )  # fmt: skip
    return parts.sum(0).as_strided(shape, strides)


def _precision() -> str:
    """How fp32 numbers are multiplied: in TF32 where that is allowed, else as three products in TF32 (error as fp32's, 2e-7).

    In TF32 they are cut off after ten bits: an error of 8e-4 of the gradient. cuDNN's kernels have 3e-4 to 8e-4.
    """
    return "tf32" if torch.backends.cudnn.allow_tf32 else "tf32x3"


def _power(n: int, most: int) -> int:
    return max(_LEAST, min(triton.next_power_of_2(n), most))


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: dict[str, Any]) -> Tensor:
    """`torch.nn.functional.conv2d`, whose weight gradient is formed by `weight_gradient`."""
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    result = _Convolution.apply(x, weight, bias, geometry)
    assert isinstance(result, Tensor)
    return result


class _Convolution(torch.autograd.Function):
    # The weight goes in as it is, and its gradient comes out in fp32: in mixed precision autograd would round it to 16 bits.
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: dict[str, Any]) -> Tensor:
        used = weight.to(x.dtype)
        ctx.save_for_backward(x, used)
        ctx.geometry = geometry
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x, used, None if bias is None else bias.to(x.dtype), **geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _input_gradient(x, weight, delta, ctx.geometry)
        if ctx.needs_input_grad[1]:
            grad_weight = weight_gradient(x, delta, weight.shape, ctx.geometry)
        if ctx.needs_input_grad[2]:
            grad_bias = delta.sum((0, 2, 3), dtype=torch.float32)
        return grad_x, grad_weight, grad_bias, None


def _input_gradient(x: Tensor, weight: Tensor, delta: Tensor, geometry: dict[str, Any]) -> Tensor:
    # `torch.nn.grad.conv2d_input` takes no x and copies one made of nothing, as large.
    sizes = (geometry[name] for name in ("stride", "padding", "dilation"))
    found = torch.ops.aten.convolution_backward(
        delta, x, weight, None, *sizes, False, (0, 0), geometry["groups"], (True, False, False)
    )
    assert isinstance(found[0], Tensor)
    return found[0]


def try_out(device: torch.device) -> None:
    """Forms a small weight gradient; whatever keeps it from working comes out."""
    x, delta = torch.ones(1, 2, 4, 4, device=device), torch.ones(1, 3, 4, 4, device=device)
    geometry = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    weight_gradient(x, delta, torch.Size((3, 2, 1, 1)), geometry)


@triton.jit
def _share_of_gradient(  # type: ignore[no-untyped-def]
    x, delta, parts,
    x_image, x_channel, x_row, x_column, d_image, d_channel, d_row, d_column, w_out, w_in, w_row, w_column,
    numbers, positions, share,
    N_IN: tl.constexpr, N_OUT: tl.constexpr, H: tl.constexpr, W: tl.constexpr, H_OUT: tl.constexpr, W_OUT: tl.constexpr,
    KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, DH: tl.constexpr,
    DW: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, OUTPUTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of share p of the positions and row r of the kernel: the gradient of the columns k, which are taps s and inputs i."""
    p = tl.program_id(0)
    r = tl.program_id(1)
    block = tl.program_id(2)
    BLOCKS: tl.constexpr = (KW * N_IN + COLUMNS - 1) // COLUMNS
    k = block % BLOCKS * COLUMNS + tl.arange(0, COLUMNS)
    s = k // N_IN
    i = k % N_IN
    o = block // BLOCKS * OUTPUTS + tl.arange(0, OUTPUTS)
    end = tl.minimum((p + 1) * share, positions)
    total = tl.zeros((OUTPUTS, COLUMNS), tl.float32)
    for start in range(p * share, end, ROWS):
        position = start + tl.arange(0, ROWS)
        image = position // (H_OUT * W_OUT)
        row = position // W_OUT % H_OUT
        column = position % W_OUT
        x_at = row * SH + r * DH - PH
        y_at = (column * SW - PW)[:, None] + (s * DW)[None, :]
        known = position < end
        meets = (
            (known & (x_at >= 0) & (x_at < H))[:, None] & (y_at >= 0) & (y_at < W) & (k < KW * N_IN)[None, :]
        )
        inputs = tl.load(
            x + (image * x_image + x_at * x_row)[:, None] + y_at * x_column + (i * x_channel)[None, :],
            mask=meets,
            other=0.0,
        )
        errors = tl.load(
            delta + (image * d_image + row * d_row + column * d_column)[:, None] + (o * d_channel)[None, :],
            mask=known[:, None] & (o < N_OUT)[None, :],
            other=0.0,
        )
        total = tl.dot(tl.trans(errors), inputs, total, input_precision=PRECISION)
    at = (o * w_out)[:, None] + (i * w_in + s * w_column)[None, :] + r * w_row
    tl.store(parts + p * numbers + at, total, mask=(o < N_OUT)[:, None] & (k < KW * N_IN)[None, :])
