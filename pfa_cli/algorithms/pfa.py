"""PFA, product feedback alignment: the error passes an extra population, and no neuron answers its own input.

Literally (paper, eq. 4-6 and 11-12; written out in literal.py), with B fixed and R stepped by the same SGD as W:

    ē = B·delta,    grad_h = Rᵀ·ē,    grad_R = ē hᵀ

The feedback path is the product V = BᵀR. Since B is fixed, grad_R = B·grad_W, and V has a closed form (closed_form.py):

    V = G·W + α·C₀,    G = BᵀB,    C₀ = BᵀR₀ - G·W₀

PFA draws the elements of B independently with variance 1/N̄, so that E[BᵀB] = I (Appendix 1.1: Glorot with gain
sqrt((1+λ)/2), λ = N_out/N̄ = 1/expansion). PFA-o takes a semi-orthogonal B: G = I.

Beyond the paper: an expansion ratio below 1, so that fewer units carry the errors than there are errors; and sparse B and R.
Each synapse of B (R) exists with probability ``b_density`` (``r_density``), drawn once, and its initial variance is divided by
it. A sparse R learns only where its synapses are, which has no closed form: it trains literally.

Shapes: B [N̄, N_out], R [N̄, …] like W, G [N_out, N_out]. In a grouped convolution B keeps the grouping: it is
block-diagonal, stored as [groups · N̄, N_out / groups], and G as [groups, N_out / groups, N_out / groups].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pfa_cli.algorithms.base import Algorithm, FeedbackLayer, FeedbackLinear
from pfa_cli.algorithms.closed_form import ClosedForm
from pfa_cli.algorithms.drawing import glorot, sparse
from pfa_cli.algorithms.literal import Literal
from pfa_cli.registry import Entry, Option, OptionValue


class PFA(ClosedForm):
    """Product feedback alignment; per layer ``G`` = BᵀB and ``C0`` = BᵀR₀ - G·W₀.

    Once α is 0, the angle between W and V is arccos(1/√(1+λ)) and the norm ratio √(1+λ) (Proposition 3).
    """

    entry = Entry(
        "pfa",
        label="PFA",
        title="Product feedback alignment",
        colour="#D55E00",
        measure="path",
        limit="pfa_cli.theory.propositions:path_limit",
        options={
            "expansion": Option(
                10.0, "expansion ratio 1/λ: error units per unit of the layer above", minimum=0.01
            ),
            "form": Option(
                "closed",
                "closed form at BP's cost, or the paper's equations literally",
                choices=("closed", "literal"),
            ),
            "least_units": Option(1, "error units of a layer, at least (at most its own units)", minimum=1),
            "b_density": Option(1.0, "probability that a synapse of B exists", minimum=1e-6, maximum=1),
            "r_density": Option(
                1.0,
                "probability that a synapse of R exists; below 1 in literal form",
                minimum=1e-6,
                maximum=1,
            ),
        },
        no_sign_transport=True,
        no_magnitude_transport=True,
        no_separate_phase=True,
    )

    @classmethod
    def create(cls, options: Mapping[str, OptionValue], seed: int) -> Algorithm:
        if options["form"] == "literal" or options.get("r_density", 1) != 1:
            return Literal(options, seed, cls.draw_pair)
        return cls(options, seed)

    @classmethod
    def extra_numbers(cls, options: Mapping[str, Any], layers: Sequence[tuple[int, int]]) -> float:
        # B and R, which also the closed form draws, one layer after the other.
        return max(float(options["expansion"]) * n_out * (n_out + fan_in) for n_out, fan_in in layers)

    @staticmethod
    def draw_pair(
        layer: FeedbackLayer, options: Mapping[str, OptionValue], stream: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """B [groups · N̄, N_out / groups], whose elements have variance 1/N̄, and R₀ [groups · N̄, …] like W."""
        n_out, units = layer.n_out // layer.groups, extra_units(layer, options)
        gain = ((1 + n_out / units) / 2) ** 0.5
        blocks = [glorot((units, n_out), layer.weight, stream, gain) for _ in range(layer.groups)]
        R0 = draw_R(layer, units, stream)
        B = sparse(torch.cat(blocks), float(options.get("b_density", 1)), stream)
        return B, sparse(R0, float(options.get("r_density", 1)), stream)

    def draw(self, layer: FeedbackLayer, stream: torch.Generator) -> dict[str, Tensor]:
        return self.start_from(layer, *self.draw_pair(layer, self.options, stream))

    def start_from(self, layer: FeedbackLayer, *drawn: Tensor) -> dict[str, Tensor]:
        B, R0, W0 = (layer.by_group(_at_least_float32(tensor)) for tensor in (*drawn, layer.weight))
        G = B.mT @ B
        C0 = (B.mT @ R0 - G @ W0).reshape(layer.weight.shape)
        return {"G": G.to(layer.weight.dtype), "C0": C0.to(layer.weight.dtype)}

    def limit(self, layer: FeedbackLayer) -> Tensor:
        return layer.mix_rows(layer.G, super().limit(layer))

    def send_back(self, layer: FeedbackLayer, delta: Tensor, input_shape: torch.Size) -> Tensor:
        # The cheaper way, in multiplications: V = G·W + rest, then Vᵀ·delta; or, for few errors, Wᵀ·(G·delta) + restᵀ·delta.
        # V in full precision where the errors are not: its two parts may nearly cancel.
        mixing, carrying = layer.n_out // layer.groups, layer.fan_in  # for each error, by G and by V
        few = delta.numel() * (mixing + carrying) < layer.n_out * mixing * carrying
        if few and delta.dtype == layer.G.dtype:
            W = layer.weight.detach()
            return layer.transpose(_mixed(layer, delta), W, input_shape) + self._send_by_rest(
                layer, delta, input_shape
            )
        return layer.transpose(delta, self.path(layer), input_shape)

    def _send_by_rest(self, layer: FeedbackLayer, delta: Tensor, input_shape: torch.Size) -> Tensor:
        """What V - G·W sends back: α·C₀ᵀ·delta."""
        return layer.transpose(delta * self.alpha_beside(layer), layer.C0, input_shape)


class PFAO(PFA):
    """Product feedback alignment with a semi-orthogonal B (PFA-o); per layer ``C0`` = BᵀR₀ - W₀, shape of W.

    No error angle is left once α is 0 (Propositions 1 and 2). With fewer error units than errors (expansion below 1) B has
    orthonormal rows in place of columns, BᵀB is a projection, and ``G`` is kept as PFA keeps it.
    """

    entry = Entry(
        "pfa-o",
        label="PFA-o",
        title="Product feedback alignment, semi-orthogonal B",
        colour="#0072B2",
        dashed=True,  # lies on top of PFA and BP
        measure="path",
        limit="pfa_cli.theory.propositions:orthogonal_limit",
        options={
            "expansion": Option(
                1.0, "expansion ratio 1/λ: error units per unit of the layer above", minimum=0.01
            ),
            "form": Option(
                "closed",
                "closed form at BP's cost, or the paper's equations literally",
                choices=("closed", "literal"),
            ),
            "least_units": Option(1, "error units of a layer, at least (at most its own units)", minimum=1),
        },
        no_sign_transport=True,
        no_magnitude_transport=True,
        no_separate_phase=True,
        variant_of="pfa",
    )

    @staticmethod
    def draw_pair(
        layer: FeedbackLayer, options: Mapping[str, OptionValue], stream: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """B and R₀; B's columns are orthonormal, its rows too where N̄ = N_out; its rows alone where N̄ < N_out."""
        units = extra_units(layer, options)
        full = _at_least_float32(layer.weight)  # LAPACK has no half precision
        blocks = [
            nn.init.orthogonal_(full.new_empty(units, layer.n_out // layer.groups), generator=stream)
            for _ in range(layer.groups)
        ]
        return torch.cat(blocks).to(layer.weight.dtype), draw_R(layer, units, stream)

    def start_from(self, layer: FeedbackLayer, *drawn: Tensor) -> dict[str, Tensor]:
        if extra_units(layer, self.options) * layer.groups < layer.n_out:
            return super().start_from(layer, *drawn)
        B, R0 = drawn
        V0 = (layer.by_group(B).mT @ layer.by_group(R0)).reshape(layer.weight.shape)
        return {"C0": V0 - layer.weight.detach().cpu()}

    def limit(self, layer: FeedbackLayer) -> Tensor:
        return super().limit(layer) if hasattr(layer, "G") else ClosedForm.limit(self, layer)

    def send_back(self, layer: FeedbackLayer, delta: Tensor, input_shape: torch.Size) -> Tensor:
        if hasattr(layer, "G"):
            return super().send_back(layer, delta, input_shape)
        return ClosedForm.send_back(self, layer, delta, input_shape)


def extra_units(layer: FeedbackLayer, options: Mapping[str, OptionValue]) -> int:
    """N̄ of each group: expansion · N_out, at least one, and at least ``least_units`` where the layer has as many."""
    n_out = layer.n_out // layer.groups
    wanted = round(float(options["expansion"]) * layer.n_out / layer.groups)
    return max(wanted, min(n_out, int(options.get("least_units", 1))))


def _mixed(layer: FeedbackLayer, delta: Tensor) -> Tensor:
    """G·delta, by group. G is symmetric."""
    if isinstance(layer, FeedbackLinear):
        return delta @ layer.G[0]
    return F.conv2d(delta, layer.G.reshape(layer.n_out, -1, 1, 1), groups=layer.groups)


def draw_R(layer: FeedbackLayer, units: int, stream: torch.Generator) -> Tensor:
    """R₀ [groups · N̄, …] like W, Glorot uniform."""
    return glorot((layer.groups * units, *layer.weight.shape[1:]), layer.weight, stream)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().to(torch.promote_types(tensor.dtype, torch.float32))
