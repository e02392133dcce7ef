"""FRSF, fixed random-magnitude sign-concordant feedback: the signs of W, and magnitudes that stay as they were drawn.

    grad_h = Vᵀ·delta,    V = sign(W) ∘ |M|,    M Glorot uniform, shape of W

(Liao et al. 2016; Moskovitz et al. 2018.)
"""

import torch
from torch import Tensor

from pfa_cli.algorithms import Algorithm, Entry, FeedbackLayer, glorot_path


class FRSF(Algorithm):
    """Fixed random-magnitude sign-concordant feedback; per layer ``M`` ≥ 0, shape of W."""

    entry = Entry(
        "frsf",
        label="FRSF",
        title="Fixed random-magnitude sign-concordant feedback",
        no_sign_transport=False,
        no_magnitude_transport=True,
        no_separate_phase=True,
    )

    def draw(self, layer: FeedbackLayer, stream: torch.Generator) -> dict[str, Tensor]:
        return {"M": glorot_path(layer, stream).abs()}

    def path(self, layer: FeedbackLayer) -> Tensor:
        return layer.weight.detach().sign() * layer.get_buffer("M")
