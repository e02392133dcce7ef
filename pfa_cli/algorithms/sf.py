"""SF, sign-concordant feedback: V has the signs of W and one magnitude.

    grad_h = Vᵀ·delta,    V = s · sign(W),    s = sqrt(2 / (fan_in + fan_out))

s is the standard deviation of the layer's Glorot initialisation. Recomputed at every step (Liao et al. 2016; paper,
"Sign-concordant feedback"). The paper writes sign(Wᵀ) without s; its release scales, and unscaled signs explode. With
``density`` below 1 each synapse of V exists with that probability, and s is divided by the density's square root.
"""

import torch
from torch import Tensor

from pfa_cli.algorithms.base import Algorithm, FeedbackLayer
from pfa_cli.algorithms.drawing import glorot_std, sparse
from pfa_cli.registry import Entry, Option


class SF(Algorithm):
    """Sign-concordant feedback; with a density below 1 per layer ``M``, shape of W: 0, or 1/√density where a synapse exists."""

    entry = Entry(
        "sf",
        label="SF",
        title="Sign-concordant feedback",
        colour="#009E73",
        options={
            "density": Option(1.0, "probability that a feedback synapse exists", minimum=1e-6, maximum=1)
        },
        no_sign_transport=False,
        no_magnitude_transport=True,
        no_separate_phase="†",
    )

    def draw(self, layer: FeedbackLayer, stream: torch.Generator) -> dict[str, Tensor]:
        density = float(self.options["density"])
        ones = torch.ones(layer.weight.shape, dtype=layer.weight.dtype)
        return {} if density == 1 else {"M": sparse(ones, density, stream)}

    def path(self, layer: FeedbackLayer) -> Tensor:
        V = layer.weight.detach().sign().mul_(glorot_std(layer))
        return V if self.options["density"] == 1 else V.mul_(layer.M)
