"""KP, the Kollen-Pollack algorithm: V takes the same steps as W, and weight decay makes them meet.

    grad_h = Vᵀ·delta,    grad_V = grad_W,    V₀ Glorot uniform, independent of W₀

Stepped by the same SGD with decay, W - V = α(t)·(W₀ - V₀) shrinks to nothing (Akrout et al. 2019; paper, "Kollen-Pollack
algorithm"). It is PFA with B = I, and trains by PFA's schedule; V is never stored (see closed_form.py):

    V = W + α·C₀,    C₀ = V₀ - W₀
"""

import torch
from torch import Tensor

from pfa_cli.algorithms.base import FeedbackLayer
from pfa_cli.algorithms.closed_form import ClosedForm
from pfa_cli.algorithms.drawing import glorot_path
from pfa_cli.registry import Entry


class KP(ClosedForm):
    """The Kollen-Pollack algorithm; per layer ``C0`` = V₀ - W₀, shape of W."""

    entry = Entry(
        "kp",
        label="KP",
        title="Kollen-Pollack algorithm",
        colour="#56B4E9",
        limit="pfa_cli.theory.propositions:backpropagation_limit",  # it is PFA with B = I
        no_sign_transport=True,
        no_magnitude_transport=True,
        no_separate_phase=True,
    )

    def draw(self, layer: FeedbackLayer, stream: torch.Generator) -> dict[str, Tensor]:
        return {"C0": glorot_path(layer, stream) - layer.weight.detach().cpu()}
