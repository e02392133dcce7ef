"""SF, sign-concordant feedback: V has the signs of W and one magnitude.

    grad_h = Vᵀ·delta,    V = s · sign(W),    s = sqrt(2 / (fan_in + fan_out))

s is the standard deviation of the layer's Glorot initialisation. Recomputed at every step (Liao et al. 2016; paper,
"Sign-concordant feedback"). The paper writes sign(Wᵀ) without s; its release scales, and unscaled signs explode.
"""

from torch import Tensor

from pfa_cli.algorithms.base import Algorithm, FeedbackLayer
from pfa_cli.algorithms.drawing import glorot_std
from pfa_cli.registry import Entry


class SF(Algorithm):
    """Sign-concordant feedback; nothing is stored."""

    entry = Entry(
        "sf",
        label="SF",
        title="Sign-concordant feedback",
        colour="#009E73",
        no_sign_transport=False,
        no_magnitude_transport=True,
        no_separate_phase="†",
    )

    def path(self, layer: FeedbackLayer) -> Tensor:
        return layer.weight.detach().sign().mul_(glorot_std(layer))
