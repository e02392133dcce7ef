"""Feedback that takes the same SGD steps as W, without a second set of weights to step.

Let R be stepped like W, with gradient B·grad_W and the same learning rate, momentum and coupled weight decay. An SGD step
is linear in (parameter, gradient), so at any time t

    W(t) = α(t)·W₀ + S(t),    R(t) = α(t)·R₀ + B·S(t)

with the same S and one scalar α for the whole network:

    m ← μ·m + wd·α,    α ← α - lr·m,    α₀ = 1, m₀ = 0

Since BᵀB·B⁺ = Bᵀ for the pseudo-inverse B⁺ of any B, V(t) = BᵀR(t) is

    V(t) = G·(W(t) + α(t)·C₀),    G = BᵀB,    C₀ = B⁺R₀ - W₀

exactly, and nothing of B's size is kept.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pfa_cli.algorithms.feedback import Algorithm
from pfa_cli.algorithms.layers import FeedbackLayer
from pfa_cli.algorithms.registry import OptionValue
from pfa_cli.errors import PfaError


class ClosedForm(Algorithm):
    """V = W + α·C₀; a subclass whose BᵀB is not I multiplies by it.

    A layer whose weights were frozen when the network was converted keeps its path as it was at the start.
    """

    def __init__(self, options: Mapping[str, OptionValue], seed: int) -> None:
        super().__init__(options, seed)
        # α and m. Tensors, beside the weights, so that a step can be recorded as kernels and replayed without Python.
        self._alpha = torch.ones((), dtype=torch.float64)
        self._momentum = torch.zeros((), dtype=torch.float64)
        self._frozen: set[FeedbackLayer] = set()

    def attach(self, network: nn.Module) -> None:
        self._frozen = {layer for layer in self.layers if not layer.weight.requires_grad}

    @property
    def alpha(self) -> float:
        """α: how much of the initial mismatch between W and V is left. Waits for the device."""
        return self._alpha.item()

    def path(self, layer: FeedbackLayer) -> Tensor:
        W = layer.weight.detach()
        if layer in self._frozen:
            return W + layer.C0
        self._stay_with(W)
        return torch.addcmul(W, layer.C0, self._alpha)

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        rate, momentum, decay = self._shared_step(optimizer)
        self._stay_with(self.layers[0].weight)
        self._momentum.mul_(momentum).add_(self._alpha, alpha=decay)
        self._alpha.sub_(self._momentum, alpha=rate)

    def _stay_with(self, weight: Tensor) -> None:
        """Moves α and m to the device of ``weight``, where the network may have gone since it was converted."""
        if self._alpha.device != weight.device:
            self._alpha, self._momentum = self._alpha.to(weight.device), self._momentum.to(weight.device)

    def _shared_step(self, optimizer: torch.optim.Optimizer) -> tuple[float, float, float]:
        """Learning rate, momentum and weight decay of the step just taken; PfaError where the closed form is not exact."""
        owner = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        steps = set()
        for layer in self.layers:
            if layer in self._frozen:
                continue
            group = owner.get(id(layer.weight))
            if group is None or layer.weight.grad is None:
                raise self._refusal(f"layer {layer.name!r} took no step (it has no gradient or no optimiser)")
            steps.add(
                (group["lr"], group.get("momentum"), group.get("weight_decay"), *map(group.get, _PLAIN_SGD))
            )
        if type(optimizer) is not torch.optim.SGD or any(step[3:] != _PLAIN for step in steps):
            raise self._refusal(
                f"the optimiser is {type(optimizer).__name__}, or SGD with Nesterov, dampening or maximize"
            )
        if len(steps) > 1:
            raise self._refusal("the layers differ in learning rate, momentum or weight decay")
        rate, momentum, decay = steps.pop()[:3] if steps else (0.0, 0.0, 0.0)
        return float(rate), momentum, decay

    def _refusal(self, reason: str) -> PfaError:
        return PfaError(
            f"the closed form of {type(self).__name__} needs one plain SGD step, the same for every layer, but {reason}. "
            'Use torch.optim.SGD with shared settings, or form="literal" where the algorithm has it'
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, facts = super().state()
        return tensors, facts | {"alpha": self.alpha, "alpha_momentum": self._momentum.item()}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        super().restore(tensors, facts)
        self._alpha.fill_(facts["alpha"])
        self._momentum.fill_(facts["alpha_momentum"])


_PLAIN_SGD = ("nesterov", "dampening", "maximize")
_PLAIN = (False, 0, False)
