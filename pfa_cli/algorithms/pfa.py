"""PFA, product feedback alignment: the error passes an extra population, and no neuron answers its own input.

Literally (paper, eq. 4-6 and 11-12; written out in literal.py), with B fixed and R stepped by the same SGD as W:

    ē = B·delta,    grad_h = Rᵀ·ē,    grad_R = ē hᵀ

The feedback path is the product V = BᵀR. Since B is fixed, grad_R = B·grad_W, and V has a closed form (closed_form.py):

    V = G·(W + α·C₀),    G = BᵀB,    C₀ = B⁺R₀ - W₀,    B⁺ the pseudo-inverse of B

PFA draws the elements of B independently with variance 1/N̄, so that E[BᵀB] = I (Appendix 1.1: Glorot with gain
sqrt((1+λ)/2), λ = N_out/N̄ = 1/expansion). PFA-o takes a semi-orthogonal B: G = I, B⁺ = Bᵀ.

Shapes: B [N̄, N_out], R [N̄, …] like W, G [N_out, N_out]. In a grouped convolution B keeps the grouping: it is
block-diagonal, stored as [groups · N̄, N_out / groups], and G as [groups, N_out / groups, N_out / groups].
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pfa_cli.algorithms.closed_form import ClosedForm
from pfa_cli.algorithms.drawing import glorot
from pfa_cli.algorithms.feedback import Algorithm
from pfa_cli.algorithms.layers import FeedbackLayer, FeedbackLinear
from pfa_cli.algorithms.literal import Literal
from pfa_cli.algorithms.registry import OptionValue


class PFAO(ClosedForm):
    """Product feedback alignment with a semi-orthogonal B (PFA-o); per layer ``C0`` = BᵀR₀ - W₀, shape of W.

    No error angle is left once α is 0 (Propositions 1 and 2).
    """

    @classmethod
    def create(cls, options: Mapping[str, OptionValue], seed: int) -> Algorithm:
        if options["form"] == "literal":
            return Literal(options, seed, cls.draw_pair)
        return cls(options, seed)

    @staticmethod
    def draw_pair(layer: FeedbackLayer, expansion: float, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """B and R₀; B's columns are orthonormal, B's rows too where N̄ = N_out."""
        units = _extra_units(layer, expansion)
        blocks = [
            nn.init.orthogonal_(
                torch.empty(units, layer.n_out // layer.groups, dtype=layer.weight.dtype), generator=stream
            )
            for _ in range(layer.groups)
        ]
        return torch.cat(blocks), _draw_R(layer, units, stream)

    def draw(self, layer: FeedbackLayer, stream: torch.Generator) -> dict[str, Tensor]:
        B, R0 = self.draw_pair(layer, float(self.options["expansion"]), stream)
        return {"C0": initial_mismatch(layer, layer.by_group(B).mT @ layer.by_group(R0))}


class PFA(PFAO):
    """Product feedback alignment; per layer ``G`` = BᵀB and ``C0`` = B⁺R₀ - W₀.

    Once α is 0, the angle between W and V is arccos(1/√(1+λ)) and the norm ratio √(1+λ) (Proposition 3).
    """

    @staticmethod
    def draw_pair(layer: FeedbackLayer, expansion: float, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """B, whose elements have variance 1/N̄, and R₀."""
        n_out, units = layer.n_out // layer.groups, _extra_units(layer, expansion)
        gain = ((1 + n_out / units) / 2) ** 0.5
        blocks = [glorot((units, n_out), layer.weight, stream, gain) for _ in range(layer.groups)]
        return torch.cat(blocks), _draw_R(layer, units, stream)

    def draw(self, layer: FeedbackLayer, stream: torch.Generator) -> dict[str, Tensor]:
        B, R0 = self.draw_pair(layer, float(self.options["expansion"]), stream)
        blocks, starts = layer.by_group(B), layer.by_group(R0)
        precise = blocks.double()
        G = precise.mT @ precise
        # B⁺R₀ by the smaller of B's two Gram matrices: a thousand times faster than an SVD of B.
        if blocks.shape[1] >= blocks.shape[2]:
            preimage = torch.linalg.solve(G, (blocks.mT @ starts).double())
        else:
            preimage = precise.mT @ torch.linalg.solve(precise @ precise.mT, starts.double())
        return {"G": G.to(B.dtype), "C0": initial_mismatch(layer, preimage.to(B.dtype))}

    def path(self, layer: FeedbackLayer) -> Tensor:
        return (layer.G @ layer.by_group(super().path(layer))).reshape(layer.weight.shape)

    def send_back(self, layer: FeedbackLayer, delta: Tensor, input_shape: torch.Size) -> Tensor:
        few = isinstance(layer, FeedbackLinear) and delta.numel() < layer.n_out**2
        if few and delta.dtype == layer.G.dtype:
            # It is cheaper to multiply few errors by G than to multiply the weights by it. The same Vᵀ·delta, but in half
            # precision, where the parts of V must cancel in full precision first.
            return layer.transpose(delta @ layer.G[0], super().path(layer), input_shape)
        return super().send_back(layer, delta, input_shape)


def initial_mismatch(layer: FeedbackLayer, preimage: Tensor) -> Tensor:
    """C₀ = B⁺R₀ - W₀, shape of W, from B⁺R₀ by group [groups, N_out / groups, fan_in]."""
    return preimage.reshape(layer.weight.shape) - layer.weight.detach().cpu()


def _extra_units(layer: FeedbackLayer, expansion: float) -> int:
    """N̄ of each group: expansion · N_out, at least one."""
    return max(1, round(expansion * layer.n_out / layer.groups))


def _draw_R(layer: FeedbackLayer, units: int, stream: torch.Generator) -> Tensor:
    return glorot((layer.groups * units, *layer.weight.shape[1:]), layer.weight, stream)
