"""The weight gradient of a convolution as a product with the patches of its input (im2col), where that is much faster.

For small convolutions on a GPU the library's deterministic kernels can be slow: on an H200 the 32-to-32-channel convolutions
of ResNet-20 take 157 µs in TF32, and the product with the patches takes 58; others are the other way round. So each way is
timed, once for each kind of layer in a process. Both are deterministic, and they differ in the order of summing, so that only
a clear difference decides: a small one could turn round by chance, and then runs would not repeat one another.
"""

from collections.abc import Callable
from statistics import median
from threading import Lock
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

MUCH_FASTER = 0.5  # of the library's time
_MOST_BYTES = 2**28  # of patches, or of the images' products: beyond it the library's way is the only one
_TIMES, _WARM_UPS = 5, 3
_BEHIND = 1_000_000  # cycles that the GPU is kept busy with meanwhile, or it would wait for Python, and that would be timed

_lock = Lock()
_faster: dict[object, bool] = {}  # by kind of layer, in this process


class Convolution(Protocol):
    """What is asked of the layer: a `FeedbackConv2d`."""

    weight: Tensor
    groups: int

    @property
    def geometry(self) -> dict[str, Any]: ...


def possible(layer: Convolution) -> bool:
    """Whether there is such a product: not for groups, whose products would be many small ones."""
    return layer.groups == 1 and layer.weight.ndim == 4


def are_faster(layer: Convolution, x: Tensor) -> bool:
    """Whether the weight gradient for inputs like ``x`` is much faster by patches on this GPU, which is waited for."""
    with torch.no_grad():
        # Detached: autocast may keep what it converts here, and the pass itself would get that without its gradient.
        a = F.conv2d(x, layer.weight.detach(), **layer.geometry)
        x, delta, shape = x.to(a.dtype), torch.ones_like(a), layer.weight.shape
        key = (
            x.device, x.dtype, torch.backends.cudnn.allow_tf32, x.shape, x.stride(), shape, *map(str, layer.geometry.values())
        )  # fmt: skip
        with _lock:
            if key not in _faster:
                numbers = max(a[:, :1].numel() * shape[1:].numel(), a.shape[0] * shape.numel())
                _faster[key] = numbers * x.element_size() <= _MOST_BYTES and _much_faster(
                    lambda: weight_gradient(x, delta, shape, layer.geometry),
                    lambda: conv2d_weight(x, shape, delta, **layer.geometry),
                )
            return _faster[key]


def _much_faster(ours: Callable[[], object], library: Callable[[], object]) -> bool:
    try:
        times = _times(ours, library)
    except torch.OutOfMemoryError:
        return False
    return median(times[ours]) < MUCH_FASTER * median(times[library])


def _times(
    ours: Callable[[], object], library: Callable[[], object]
) -> dict[Callable[[], object], list[float]]:
    """Milliseconds of each on the GPU, taken in turn."""
    times: dict[Callable[[], object], list[float]] = {ours: [], library: []}
    for turn in range(_WARM_UPS + _TIMES):
        for work, seen in times.items():
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(_BEHIND)
            before.record()
            work()
            after.record()
            after.synchronize()
            if turn >= _WARM_UPS:
                seen.append(before.elapsed_time(after))
    return times


def weight_gradient(x: Tensor, delta: Tensor, shape: torch.Size, geometry: dict[str, Any]) -> Tensor:
    """What `torch.nn.grad.conv2d_weight` gives: [N_out, N_in, kh, kw], summed over images and positions.

    Args:
        x: [b, N_in, h, w], the input.
        delta: [b, N_out, h', w'], the error at the output.
        shape: that of the weight.
        geometry: stride, padding and dilation, as `torch.nn.functional.conv2d` takes them; groups are ignored.
    """
    (images, n_out, rows, columns), (n_in, height, width) = delta.shape, shape[1:]
    stride, padding, dilation = (_pair(geometry[name]) for name in ("stride", "padding", "dilation"))
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0])).permute(0, 2, 3, 1).contiguous()
    image, row, column, channel = padded.stride()
    patches = padded.as_strided(
        (images, rows, columns, height, width, n_in),
        (image, row * stride[0], column * stride[1], row * dilation[0], column * dilation[1], channel),
    ).reshape(images, rows * columns, -1)
    errors = delta.permute(0, 2, 3, 1).reshape(images, rows * columns, n_out)
    # A product for each image, then their sum: as parallel as a GPU needs, and always in the same order.
    product = (errors.mT @ patches).sum(0)
    return product.view(n_out, height, width, n_in).permute(0, 3, 1, 2)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: dict[str, Any]) -> Tensor:
    """`torch.nn.functional.conv2d`, whose weight gradient is formed by `weight_gradient`."""
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    result = _Convolution.apply(x, weight, bias, geometry)
    assert isinstance(result, Tensor)
    return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: dict[str, Any]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return F.conv2d(x, weight, bias, **geometry)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.nn.grad.conv2d_input(x.shape, weight, delta, **ctx.geometry)
        if ctx.needs_input_grad[1]:
            grad_weight = weight_gradient(x, delta, weight.shape, ctx.geometry)
        if ctx.needs_input_grad[2]:
            grad_bias = delta.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias, None


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value
