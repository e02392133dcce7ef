"""Linear and Conv2d layers whose backward pass asks an algorithm how the error reaches the layer's input."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from pfa_cli.errors import PfaError

if TYPE_CHECKING:
    from pfa_cli.algorithms.feedback import Algorithm


class FeedbackLayer(nn.Module):
    """What an algorithm may ask of a weighted layer, whether it is dense or convolutional.

    ``weight`` W has shape [N_out, N_in] (dense) or [N_out, N_in / groups, kh, kw] (convolution). The tensors below are
    buffers that an algorithm registers when it needs them; their letters are those of the paper.
    """

    weight: Tensor
    groups: int
    name: str
    algorithm: "Algorithm"
    V: Tensor  # feedback path, shape of W
    D: Tensor  # direct feedback from the output error
    B: Tensor  # [groups · N̄, N_out / groups], from the errors to the extra population
    R: Tensor  # [groups · N̄, …] like W, from the extra population to the layer below
    G: Tensor  # BᵀB by group: [groups, N_out / groups, N_out / groups]
    C0: Tensor  # how the initial feedback path and G·W differ, shape of W

    @property
    def fan_in(self) -> int:
        return self.weight[0].numel()

    @property
    def fan_out(self) -> int:
        return self.weight.shape[0] * self.weight[0, 0].numel()

    @property
    def n_out(self) -> int:
        return self.weight.shape[0]

    def by_group(self, tensor: Tensor) -> Tensor:
        """``tensor`` with one row per output unit, seen as [groups, rows / groups, fan_in]."""
        return tensor.reshape(self.groups, tensor.shape[0] // self.groups, -1)

    def response(self, x: Tensor) -> Tensor:
        """W·x without the bias; ``x`` has the shape of the layer's input."""
        raise PfaError(f"{type(self).__name__} defines no response")

    def transpose(self, delta: Tensor, path: Tensor, input_shape: torch.Size) -> Tensor:
        """``path``ᵀ·delta: the error at the layer's input, of shape ``input_shape``."""
        raise PfaError(f"{type(self).__name__} defines no transpose")

    def outer(self, delta: Tensor, x: Tensor, shape: torch.Size) -> Tensor:
        """delta·xᵀ summed over the batch: a weight gradient of ``shape``."""
        raise PfaError(f"{type(self).__name__} defines no outer product")

    def samples(self, x: Tensor, a: Tensor) -> Tensor | int:
        """How many samples `outer` sums over for input ``x`` and output ``a``: a number, or one per tap, [1, 1, kh, kw]."""
        raise PfaError(f"{type(self).__name__} counts no samples")


class FeedbackLinear(FeedbackLayer, nn.Linear):
    """A dense layer, a = W·h + b, whose error travels down by its algorithm's feedback path."""

    groups = 1

    def forward(self, x: Tensor) -> Tensor:
        if self.algorithm.exact:
            return F.linear(x, self.weight, self.bias)
        return self.algorithm.connect(self, x, F.linear(x.detach(), self.weight, self.bias))

    def response(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)

    def transpose(self, delta: Tensor, path: Tensor, input_shape: torch.Size) -> Tensor:
        return delta @ path.to(delta.dtype)

    def outer(self, delta: Tensor, x: Tensor, shape: torch.Size) -> Tensor:
        return delta.flatten(0, -2).T @ x.flatten(0, -2)

    def samples(self, x: Tensor, a: Tensor) -> int:
        return a.numel() // a.shape[-1]


class FeedbackConv2d(FeedbackLayer, nn.Conv2d):
    """A convolution, a = W * h + b, whose error travels down by its algorithm's feedback path."""

    groups: int

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise PfaError(
                f"layer {self.name!r} takes images [batch, channels, height, width], not {list(x.shape)}"
            )
        if self._zeros is None:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=mode)
        if self.algorithm.exact:
            return F.conv2d(x, self.weight, self.bias, **self.geometry)
        return self.algorithm.connect(self, x, F.conv2d(x.detach(), self.weight, self.bias, **self.geometry))

    @property
    def _zeros(self) -> tuple[int, ...] | None:
        """The zero padding that the convolution itself does; None where it is done before, with autograd's own gradient."""
        if self.padding_mode != "zeros":
            return None
        if not isinstance(self.padding, str):
            return self.padding
        left, right, top, bottom = self._reversed_padding_repeated_twice
        return (top, left) if (top, left) == (bottom, right) else None

    @property
    def geometry(self) -> dict[str, Any]:
        """Stride, padding, dilation and groups of the convolution proper."""
        padding = self._zeros or (0, 0)
        return {"stride": self.stride, "padding": padding, "dilation": self.dilation, "groups": self.groups}

    def response(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, **self.geometry)

    def transpose(self, delta: Tensor, path: Tensor, input_shape: torch.Size) -> Tensor:
        # conv_transpose flips the kernel itself: the path is not flipped again. Output padding is for the positions at
        # the far edges that a stride leaves out.
        stride, padding, dilation = (self.geometry[name] for name in ("stride", "padding", "dilation"))
        left_out = [
            input_shape[2 + i]
            - (delta.shape[2 + i] - 1) * stride[i]
            + 2 * padding[i]
            - dilation[i] * (self.kernel_size[i] - 1)
            - 1
            for i in (0, 1)
        ]
        return F.conv_transpose2d(delta, path.to(delta.dtype), output_padding=left_out, **self.geometry)

    def outer(self, delta: Tensor, x: Tensor, shape: torch.Size) -> Tensor:
        return conv2d_weight(x, shape, delta, **self.geometry)

    def samples(self, x: Tensor, a: Tensor) -> Tensor:
        # The weight gradient of ones counts the positions where a tap lies inside the image.
        inputs, outputs = (torch.ones_like(t[:1, :1]) for t in (x, a))
        geometry = self.geometry | {"groups": 1}
        inside = conv2d_weight(inputs, (1, 1, *self.kernel_size), outputs, **geometry)
        return x.shape[0] * inside.clamp(min=1)  # a tap that only ever meets padding has nothing to divide


def adopt(layer: nn.Module, name: str, algorithm: "Algorithm") -> FeedbackLayer:
    """Turns an nn.Linear or nn.Conv2d into its feedback layer in place: parameters, hooks and owners stay as they are."""
    layer.__class__ = FeedbackLinear if type(layer) is nn.Linear else FeedbackConv2d
    assert isinstance(layer, FeedbackLayer)
    layer.name = name
    layer.algorithm = algorithm
    return layer


def pass_on(ctx: Any, a: Tensor) -> Tensor:
    """``a`` as the output of an autograd function that does not change it."""
    if a._is_view():  # of a product in two dimensions: autograd would take another backward for a view's base
        return a.clone()
    # Marked as changed in place, so that no copy is made and an in-place ReLU may follow.
    ctx.mark_dirty(a)
    return a


class Reroute(torch.autograd.Function):
    """The identity on a layer's output; backward, it sends delta to the layer's input by the feedback path.

    The weight and bias gradients do not pass here: they are autograd's own, through the second argument.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, layer: FeedbackLayer) -> Tensor:
        ctx.layer, ctx.input_shape = layer, x.shape
        return pass_on(ctx, a)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, Tensor, None]:
        grad_h = None
        if ctx.needs_input_grad[0]:
            grad_h = ctx.layer.algorithm.send_back(ctx.layer, delta, ctx.input_shape)
        return grad_h, delta, None
