"""mix: the cortex's own mixture of feedback, some units by PFA, some by FA and some by KP.

The paper's Discussion: the symmetry measured in cortex (31 % of connected pairs are connected both ways, with correlation 0.36
among these and about 0.2 over all, which is an angle of 78°) "can be directly achieved by combining different groups of
synapses separately learned by PFA (no correlation), FA (partial correlation), and KP (full correlation)". Here every unit i of
a layer belongs to one group, and its error goes down by that group's rule, so that the feedback path V is made row by row:

    PFA units P:   V_P = G_P·W_P + α·C₀,   G_P = BᵀB, where B sees the errors of these units only (pfa.py)
    KP units K:    V_K = W_K + α·C₀,        C₀ = V₀ - W₀                                           (kp.py)
    FA units F:    V_F fixed, Glorot uniform                                                        (fa.py)

With G = G_P on the PFA units, the identity on the KP units and zero on the FA units this is one formula,

    V = G·W + α·C₀ + V_F,

with the α of closed_form.py, exact under the same SGD. Shapes: G [groups, N_out / groups, N_out / groups]; C₀ and V_F like W,
with zero rows where another group's rule holds.

The direct synapses, which answer a weight of W between the same two neurons, are those of the KP and FA units. With shares p_F
and p_K of the units, a fraction p_F + p_K of the pairs is connected both ways; among these the correlation with W is
r = (p_K + p_F·r_F) / (p_F + p_K), and over all pairs R = (p_K + p_F·r_F) / √(p_F + p_K), where r_F is what FA reaches alone.

Units are assigned to groups at random, once, by the feedback's own stream. Where it differs from the paper: the paper mixes
single synapses, here whole units are mixed, so that each unit's error has one path.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from pfa_cli.algorithms.base import Algorithm, FeedbackLayer
from pfa_cli.algorithms.drawing import glorot, glorot_path
from pfa_cli.algorithms.pfa import PFA
from pfa_cli.registry import Entry, Option, OptionValue


class Mix(PFA):
    """Groups of units by PFA, FA and KP; per layer ``G``, ``C0``, ``V`` (the FA units' rows) and ``M``.

    ``M`` [N_out, 1, …] is 1 where a unit's feedback is direct (FA and KP) and 0 where it is PFA's.
    """

    entry = Entry(
        "mix",
        label="mix",
        title="Mixture of PFA, FA and KP, unit by unit",
        colour="#7800F0",
        measure="path",
        limit="pfa_cli.theory.propositions:no_limit",
        options={
            "pfa_share": Option(
                0.69, "share of the units whose error goes down by PFA", minimum=0, maximum=1
            ),
            "fa_share": Option(0.22, "share of the units whose error goes down by FA", minimum=0, maximum=1),
            "kp_share": Option(0.09, "share of the units whose error goes down by KP", minimum=0, maximum=1),
            "expansion": Option(10.0, "expansion ratio 1/λ: error units per PFA unit", minimum=0.01),
        },
        shares=("pfa_share", "fa_share", "kp_share"),
        no_sign_transport=True,
        no_magnitude_transport=True,
        no_separate_phase=True,
    )

    @classmethod
    def create(cls, options: Mapping[str, OptionValue], seed: int) -> Algorithm:
        return cls(options, seed)  # it has no literal form

    def draw(self, layer: FeedbackLayer, stream: torch.Generator) -> dict[str, Tensor]:
        dtype = torch.promote_types(layer.weight.dtype, torch.float32)
        W0 = layer.by_group(layer.weight.detach().cpu().to(dtype))
        V0 = layer.by_group(glorot_path(layer, stream).to(dtype))
        n_out = W0.shape[1]
        G = torch.zeros(layer.groups, n_out, n_out, dtype=dtype)
        C0, V, M = torch.zeros_like(W0), torch.zeros_like(W0), torch.ones_like(W0[..., :1])
        for g in range(layer.groups):
            pfa, fa, kp = self._groups(n_out, stream)
            G[g, kp, kp] = 1.0
            C0[g, kp] = V0[g, kp] - W0[g, kp]
            V[g, fa] = V0[g, fa]
            M[g, pfa] = 0.0
            if len(pfa):
                units = max(1, round(float(self.options["expansion"]) * len(pfa)))
                B = glorot((units, len(pfa)), V0, stream, ((1 + len(pfa) / units) / 2) ** 0.5)
                R0 = glorot((units, *layer.weight.shape[1:]), V0, stream).flatten(1)
                G[g, pfa[:, None], pfa] = B.T @ B
                C0[g, pfa] = B.T @ R0 - (B.T @ B) @ W0[g, pfa]
        own = layer.weight
        return {
            "G": G.to(own.dtype),
            "C0": C0.reshape(own.shape).to(own.dtype),
            "V": V.reshape(own.shape).to(own.dtype),
            "M": M.reshape(-1, *[1] * (own.ndim - 1)).to(own.dtype),
        }

    def path(self, layer: FeedbackLayer) -> Tensor:
        return super().path(layer) + layer.V

    def _send_by_rest(self, layer: FeedbackLayer, delta: Tensor, input_shape: torch.Size) -> Tensor:
        rest = torch.addcmul(layer.V, layer.C0, self.alpha_beside(layer))
        return layer.transpose(delta, rest, input_shape)

    def direct(self, layer: FeedbackLayer) -> Tensor:
        return self.path(layer) * layer.M

    def _groups(self, n_out: int, stream: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Indices of the PFA, FA and KP units among ``n_out``."""
        order = torch.randperm(n_out, generator=stream)
        first = round(float(self.options["pfa_share"]) * n_out)
        second = first + min(n_out - first, round(float(self.options["fa_share"]) * n_out))
        return order[:first], order[first:second], order[second:]
