"""PFA exactly as the paper writes it (eq. 4-6, 11-12): the reference for the closed form, at many times its cost.

ē = B·delta              the error of the extra population, N̄ = expansion·N_out units or channels     (eq. 4, 11)
grad_h = Rᵀ-path·ē       down to the layer below, in the layer's own geometry                         (eq. 5, 12)
grad_R = ē hᵀ            what R learns from, by the same SGD step as W                                (eq. 6)
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pfa_cli.algorithms.base import Algorithm, FeedbackLayer, pass_on
from pfa_cli.registry import OptionValue

DrawPair = Callable[[FeedbackLayer, Mapping[str, OptionValue], torch.Generator], tuple[Tensor, Tensor]]


class Literal(Algorithm):
    """PFA or PFA-o with its extra population; per layer ``B`` [N̄, N_out] (fixed) and the parameter ``R`` [N̄, …].

    Where R is sparse, ``M``, of its shape, says which of its synapses exist.
    """

    def __init__(self, options: Mapping[str, OptionValue], seed: int, draw_pair: DrawPair) -> None:
        super().__init__(options, seed)
        self._draw_pair = draw_pair

    def draw(self, layer: FeedbackLayer, stream: torch.Generator) -> dict[str, Tensor]:
        return self.start_from(layer, *self._draw_pair(layer, self.options, stream))

    def start_from(self, layer: FeedbackLayer, *drawn: Tensor) -> dict[str, Tensor]:
        B, R = drawn
        found = {"B": B, "R": nn.Parameter(R, requires_grad=layer.weight.requires_grad)}
        if self._is_sparse:
            found["M"] = (R != 0).to(R.dtype)
        return found

    @property
    def _is_sparse(self) -> bool:
        """Whether only some synapses of R exist; the others stay zero."""
        return self.options.get("r_density", 1) != 1

    def path(self, layer: FeedbackLayer) -> Tensor:
        return (layer.by_group(layer.B).mT @ layer.by_group(layer.R.detach())).reshape(layer.weight.shape)

    def connect(self, layer: FeedbackLayer, x: Tensor, a: Tensor) -> Tensor:
        return _ProductFeedback.apply(x, a, layer.R, layer)


class _ProductFeedback(torch.autograd.Function):
    """The identity on a layer's output; backward, the error passes the extra population and R gets its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, R: Tensor, layer: FeedbackLayer) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x, R)
        return pass_on(ctx, a)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        layer = ctx.layer
        x, R = ctx.saved_tensors
        error = _extra_population(layer, delta)
        grad_h = layer.transpose(error, R, x.shape) if ctx.needs_input_grad[0] else None
        grad_R = layer.outer(error, x.to(error.dtype), R.shape) if ctx.needs_input_grad[2] else None
        if grad_R is not None and hasattr(layer, "M"):
            grad_R = grad_R * layer.M
        return grad_h, delta, grad_R, None


def _extra_population(layer: FeedbackLayer, delta: Tensor) -> Tensor:
    """ē = B·delta; for a convolution B is a 1×1 kernel."""
    B = layer.B.to(delta.dtype)
    if isinstance(layer, nn.Linear):
        return F.linear(delta, B)
    return F.conv2d(delta, B[:, :, None, None], groups=layer.groups)
