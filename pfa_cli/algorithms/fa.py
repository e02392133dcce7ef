"""FA, feedback alignment: V is random and stays as it is.

    grad_h = Vᵀ·delta,    V fixed, Glorot uniform, shape of W

The network learns weights for which this V carries useful errors (Lillicrap et al. 2016; paper, "Feedback alignment").
As in its paper, but for the initialisation, which is Glorot's here for all algorithms alike. With ``density`` below 1 each
synapse of V exists with that probability, and its variance is divided by it.
"""

import torch
from torch import Tensor

from pfa_cli.algorithms.base import Algorithm, FeedbackLayer
from pfa_cli.algorithms.drawing import glorot_path, sparse
from pfa_cli.registry import Entry, Option


class FA(Algorithm):
    """Feedback alignment; per layer ``V``, shape of W."""

    entry = Entry(
        "fa",
        label="FA",
        title="Feedback alignment",
        colour="#E69F00",
        options={
            "density": Option(1.0, "probability that a feedback synapse exists", minimum=1e-6, maximum=1)
        },
        no_sign_transport=True,
        no_magnitude_transport=True,
        no_separate_phase=True,
    )

    def draw(self, layer: FeedbackLayer, stream: torch.Generator) -> dict[str, Tensor]:
        return {"V": sparse(glorot_path(layer, stream), float(self.options["density"]), stream)}
