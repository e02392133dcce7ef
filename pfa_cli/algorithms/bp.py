"""BP, backpropagation: V = W.

The error travels down by the transpose of the very weights that carried the activity up (paper, eq. 2):

    grad_h = Wᵀ·delta

It is what the other algorithms approximate, and what torch's autograd computes; the layers are left to it.
"""

from torch import Tensor

from pfa_cli.algorithms.base import Algorithm, FeedbackLayer
from pfa_cli.registry import Entry


class BP(Algorithm):
    """Backpropagation (paper, "Backpropagation (BP)"; Rumelhart et al. 1986)."""

    entry = Entry(
        "bp",
        label="BP",
        title="Backpropagation",
        colour="#000000",
        limit="pfa_cli.theory.propositions:backpropagation_limit",
        no_sign_transport=False,
        no_magnitude_transport=False,
        no_separate_phase=True,
    )

    exact = True

    def path(self, layer: FeedbackLayer) -> Tensor:
        return layer.weight.detach()
