"""Feedback that takes the same SGD steps as W, without a second set of weights to step.

Let R be stepped like W, with gradient B·grad_W and the same learning rate, momentum and coupled weight decay. An SGD step
is linear in (parameter, gradient), so at any time t

    W(t) = α(t)·W₀ + S(t),    R(t) = α(t)·R₀ + B·S(t)

with the same S and one scalar α for the whole network:

    m ← μ·m + wd·α,    α ← α - lr·m,    α₀ = 1, m₀ = 0

Hence V(t) = BᵀR(t) is

    V(t) = G·W(t) + α(t)·C₀,    G = BᵀB,    C₀ = BᵀR₀ - G·W₀

exactly, and nothing of B's size is kept.
"""

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pfa_cli.algorithms.base import Algorithm, FeedbackLayer
from pfa_cli.errors import PfaError
from pfa_cli.registry import OptionValue


class ClosedForm(Algorithm):
    """V = W + α·C₀; a subclass whose G is not I says what α = 0 leaves in place of W (`limit`).

    A layer whose weights were frozen when the network was converted keeps its path as it was at the start. α belongs to
    the network's ``state_dict``, as "algorithm.alpha": α and m, float64 [2].
    """

    def __init__(self, options: Mapping[str, OptionValue], seed: int) -> None:
        super().__init__(options, seed)
        # α and m. Tensors, beside the weights, so that a step can be recorded as kernels and replayed without Python.
        self._alpha = torch.ones((), dtype=torch.float64)
        self._momentum = torch.zeros((), dtype=torch.float64)
        self._frozen: set[FeedbackLayer] = set()
        self._optimizer: weakref.ref[torch.optim.Optimizer] | None = None  # whose momentum m is

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_optimizer": None}  # a weak reference cannot be pickled

    def attach(self, network: nn.Module) -> None:
        self._frozen = {layer for layer in self.layers if not layer.weight.requires_grad}
        owners: dict[int, FeedbackLayer] = {}
        for layer in self.layers:
            if (first := owners.setdefault(id(layer.weight), layer)) is not layer:
                raise PfaError(
                    f"layers {first.name!r} and {layer.name!r} share one weight, of which the closed form of "
                    f"{type(self).__name__} cannot tell the steps apart: give each its own, or use one layer twice"
                )
        network.register_state_dict_post_hook(_save_alpha)
        network.register_load_state_dict_pre_hook(_load_alpha)

    @property
    def alpha(self) -> float:
        """α: how much of the initial mismatch between W and V is left. Waits for the device."""
        return self._alpha.item()

    def path(self, layer: FeedbackLayer) -> Tensor:
        return torch.addcmul(self.limit(layer), layer.C0, self.alpha_beside(layer))

    def limit(self, layer: FeedbackLayer) -> Tensor:
        """G·W, what V is once α is 0."""
        return layer.weight.detach()

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        rate, momentum, decay = self._shared_step(optimizer)
        self._stay_with(self.layers[0].weight)
        if self._optimizer is not None and self._optimizer() is not optimizer:
            self._momentum.zero_()  # another optimiser, which had no momentum either
        self._optimizer = weakref.ref(optimizer)
        self._momentum.mul_(momentum).add_(self._alpha, alpha=decay)
        self._alpha.sub_(self._momentum, alpha=rate)

    def alpha_beside(self, layer: FeedbackLayer) -> Tensor:
        """α as a float64 scalar on the device of ``layer``; 1 where the layer is frozen."""
        self._stay_with(layer.weight)
        return torch.ones_like(self._alpha) if layer in self._frozen else self._alpha

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
                if not layer.weight.requires_grad:
                    continue
                raise PfaError(
                    f"layer {layer.name!r} was frozen when the network was converted, and learns now: the closed form of "
                    f"{type(self).__name__} has no feedback for it. Unfreeze layers before `convert`"
                )
            group = owner.get(id(layer.weight))
            if group is None or layer.weight.grad is None:
                raise self._refusal(
                    f"layer {layer.name!r} took no step: it has no optimiser, or no gradient (zero_grad comes after "
                    "after_step, not before it)"
                )
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


# α in the network's state_dict. Functions that ask the network for its algorithm, so that a copy of it saves its own α.


def _save_alpha(network: nn.Module, state: dict[str, Tensor], prefix: str, metadata: object) -> None:
    algorithm = network.algorithm
    assert isinstance(algorithm, ClosedForm)
    state[prefix + _ALPHA] = torch.stack([algorithm._alpha, algorithm._momentum])


def _load_alpha(
    network: nn.Module,
    state: dict[str, Tensor],
    prefix: str,
    metadata: object,
    strict: bool,
    missing_keys: list[str],
    *others: object,
) -> None:
    algorithm = network.algorithm
    assert isinstance(algorithm, ClosedForm)
    if prefix + _ALPHA in state:
        alpha, momentum = state.pop(prefix + _ALPHA)
        algorithm._alpha.copy_(alpha)
        algorithm._momentum.copy_(momentum)
        algorithm._optimizer = None  # m is that of whoever takes the next step
    elif strict:
        missing_keys.append(prefix + _ALPHA)


_ALPHA = "algorithm.alpha"
_PLAIN_SGD = ("nesterov", "dampening", "maximize")
_PLAIN = (False, 0, False)
