"""PAL, phaseless alignment learning: V learns W from noise that rides on the activity, while the network works.

For the path from a population p (u_p → h_p = φ(u_p)) to the next one, q, of one minibatch of n images:

    ξ_p = σ_p·N(0, 1),    σ_p = noise·std(u_p)                                     noise on every population
    da = W·(φ(u_p + ξ_p) - h_p)                                                    what it does to q's input
    r̂ = φ(u_q + da + ξ_q) - φ(u_q) + ε·(h_q - roll(h_q))                           q's rate, high-pass filtered
    V ← (1 - λ)·V + λ·r̂ᵀξ_p / (n·σ_p²·p̄),    grad_h = Vᵀ·delta

p̄ = 1/2 for each of p and q that has a nonlinearity (1/4 from ReLU to ReLU, 1 from pooled features to logits). The fixed
point is E[φ'_p Wᵀ φ'_q], so V aligns to a W weighted by how often both ends are active together: an angle of 33-40° stays.
(Max et al. 2022, 2024; paper, "phaseless alignment learning".) roll shifts the batch by one image: the slow signal that
leaks through the filter. W trains on the activity without noise. ‖V‖ is held to 3·‖V₀‖.

Where it differs from its paper: a minibatch stands in for continuous time; and convolutions learn by the same rule (which
the authors' code has, switched off: their paths of convolutions stay fixed): da is the one convolution's response, before
BatchNorm, gated by the ReLU that follows (after the addition, for the last of a residual block), and r̂ᵀξ its weight
gradient, divided at each tap by the number of positions where the tap lies inside the image (this division alone is ours). A
layer that reads pooled or reshaped activity, or the image itself, reads a linear population; one whose output is pooled
before its ReLU feeds a linear one. Where a batch passes in several parts, V moves by 1 - (1 - λ)^(1/parts) with each, so
that the batch moves it by λ.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pfa_cli.algorithms.base import Algorithm, FeedbackLayer, as_it_lies, lying_as
from pfa_cli.algorithms.drawing import glorot_path
from pfa_cli.kernels import reason_against
from pfa_cli.ranks import Ranks
from pfa_cli.registry import Entry, Option, OptionValue

NORM_BOUND = 3.0

_OUT_OF_PLACE = (
    F.relu6, F.hardtanh, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.softplus,
    F.softsign, F.prelu,
)  # fmt: skip

# The functions that make a population's rates, each with its form that leaves its argument as it is.
_ACTIVATIONS: dict[Callable[..., Tensor], Callable[..., Tensor]] = {
    **dict(zip(_OUT_OF_PLACE, _OUT_OF_PLACE, strict=True)),
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_), torch.relu),
    **dict.fromkeys((torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_), torch.sigmoid),
    **dict.fromkeys((torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_), torch.tanh),
}


_NOT_YET = torch.empty(0)


@dataclass(eq=False)
class _Population:
    """Units with input ``u`` and rate ``h`` = φ(u), as one forward pass met them; φ None is the identity."""

    u: Tensor
    h: Tensor
    phi: Callable[[Tensor], Tensor] | None = None
    rectified: bool = False  # whether φ is ReLU
    deviation: Tensor = _NOT_YET  # σ, a scalar
    noise: Tensor = _NOT_YET  # ξ, shape of u
    change: Tensor = _NOT_YET  # φ(u + ξ) - h: what the noise does to the rate

    @property
    def gain(self) -> float:
        return 1.0 if self.phi is None else 0.5

    def rate(self, u: Tensor) -> Tensor:
        return u if self.phi is None else self.phi(u)

    def excite(self, normal: Tensor) -> None:
        """Takes up noise: ``normal`` N(0, 1), shape of u."""
        if kernels := self._kernels(normal):
            self.noise, self.change = kernels.excite(self.u, self.h, normal, self.deviation, self.rectified)
        else:
            self.noise = self.deviation * normal
            self.change = self.rate(self.u + self.noise) - self.h

    def respond(self, da: Tensor, leak: float, ranks: Ranks) -> Tensor:
        """r̂, the high-pass filtered rate when ``da`` comes to the input."""
        if ranks.size == 1 and (kernels := self._kernels(da)):
            return kernels.respond(self.u, self.h, da, self.noise, leak, self.rectified)
        return self.rate(self.u + da + self.noise) - self.h + leak * (self.h - ranks.previous(self.h))

    def _kernels(self, *more: Tensor) -> Any:
        """Those that do the two above at once, on a GPU where they can be used."""
        if not self.u.is_cuda or not (self.phi is None or self.rectified) or reason_against(self.u.device):
            return None
        from pfa_cli.kernels import pal

        return pal if pal.serves(self.u, self.h, *more) else None


@dataclass(eq=False)
class _Path:
    """One passage through one layer: from ``lower`` to the population it feeds, known once the pass has gone on."""

    layer: FeedbackLayer
    lower: _Population
    a: Tensor
    upper: _Population | None = None


class PAL(Algorithm):
    """Phaseless alignment learning; per layer ``V``, shape of W, and ``V0_norm``."""

    entry = Entry(
        "pal",
        label="PAL",
        title="Phaseless alignment learning",
        colour="#CC79A7",
        options={
            "rate": Option(0.001, "λ: share of a minibatch in the feedback path", minimum=1e-6, maximum=1),
            "noise": Option(0.3, "noise in units of each population's standard deviation", minimum=1e-6),
            "leak": Option(
                0.2, "ε: share of the slow signal that leaks through the high-pass filter", minimum=0
            ),
        },
        no_sign_transport=True,
        no_magnitude_transport=True,
        no_separate_phase=True,
    )

    def __init__(self, options: Mapping[str, OptionValue], seed: int) -> None:
        super().__init__(options, seed)
        self._ear: _Ear | None = None  # while a forward pass is listened to
        self._samples: dict[tuple[object, ...], Tensor | float] = {}  # see `_samples_of`
        self._forget()

    def draw(self, layer: FeedbackLayer, stream: torch.Generator) -> dict[str, Tensor]:
        V = glorot_path(layer, stream)
        return {"V": V, "V0_norm": V.norm()}

    # Listening to the forward pass

    def attach(self, network: nn.Module) -> None:
        network.register_forward_pre_hook(self._start)
        network.register_forward_hook(self._finish, always_call=True)  # also when the pass fails

    def _forget(self) -> None:
        self._populations: list[_Population] = []
        self._paths: list[_Path] = []
        self._origins: dict[Node, _Population | _Path] = {}  # by the autograd node that made h or a

    def _start(self, network: nn.Module, inputs: object) -> None:
        if self.observing and network.training and torch.is_grad_enabled():
            self._forget()
            self._ear = _Ear(self)
            self._ear.__enter__()

    def _finish(self, network: nn.Module, inputs: object, output: object) -> None:
        if self._ear is None:
            return
        self._ear.__exit__(None, None, None)
        self._ear = None
        if output is not None and self._paths:
            self._learn()
        self._forget()

    def connect(self, layer: FeedbackLayer, x: Tensor, a: Tensor) -> Tensor:
        if self._ear is None:
            return super().connect(layer, x, a)
        lower = next((p for p in self._populations if p.h is x), None)
        if lower is None:
            lower = self.meet(_Population(x, x), x.grad_fn, x.grad_fn)
        path = _Path(layer, lower, a.detach())
        self._paths.append(path)
        output = super().connect(layer, x, a)
        if output.grad_fn is not None:
            self._origins[output.grad_fn] = path
        return output

    def meet(self, population: _Population, input_node: Node | None, output_node: Node | None) -> _Population:
        """Takes up a population, above all paths that lead to ``input_node``, the origin of its u."""
        self._populations.append(population)
        for path in self._arriving(input_node):
            if path.upper is None and path.a.shape == population.u.shape:
                path.upper = population
        if output_node is not None:
            self._origins[output_node] = population
        return population

    def _arriving(self, node: Node | None) -> Iterator[_Path]:
        """The paths whose output reaches ``node`` without passing another population."""
        waiting: list[Node | None] = [node]
        seen: set[Node] = set()
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            origin = self._origins.get(node)
            if isinstance(origin, _Path):
                yield origin
            elif origin is None:
                waiting.extend(before for before, _ in node.next_functions)

    # Learning from what was heard

    @torch.no_grad()
    def _learn(self) -> None:
        for path in self._paths:
            path.upper = path.upper or self.meet(_Population(path.a, path.a), None, None)
        weight = self.layers[0].weight
        with torch.autocast(weight.device.type, enabled=False):
            self._excite(weight.dtype)
            targets = self._targets()
            layers = [path.layer for path in self._paths]
            if len(set(layers)) == len(layers):
                self._follow(layers, targets)
            else:  # a layer that was passed twice follows twice
                for layer, target in zip(layers, targets, strict=True):
                    self._follow([layer], [target])

    def _excite(self, dtype: torch.dtype) -> None:
        """Draws each population's noise, and has its activity in the weights' dtype: differences of rates are small."""
        for population in self._populations:
            if population.u.dtype != dtype:
                population.u = population.u.to(dtype)
                population.h = population.rate(population.u)
        deviations = float(self.options["noise"]) * self._spread([p.u for p in self._populations])
        # Drawn for the whole batch, so that its parts on several ranks have the noise that one process would give them. On a
        # GPU it lies in memory as u does, or each sum of the two would take twice the time.
        lying = [as_it_lies(p.u) if p.u.is_cuda else p.u for p in self._populations]
        shapes = [(self.ranks.size * u.shape[0], *u.shape[1:]) for u in lying]
        everywhere = self.noises(shapes, lying[0])
        for population, deviation, noise in zip(self._populations, deviations, everywhere, strict=True):
            share = noise.chunk(self.ranks.size)[self.ranks.rank]
            population.deviation = deviation
            population.excite(lying_as(share, population.u) if share.is_cuda else share)

    def _spread(self, inputs: list[Tensor]) -> Tensor:
        """The standard deviation of each of ``inputs``, over the elements of all ranks."""
        if self.ranks.size > 1 or not inputs[0].is_cuda:
            return torch.stack([self.ranks.std(u) for u in inputs])
        # Image by image first, which takes a GPU half the time: var(u) is the mean of the images' variances and the variance
        # of their means.
        images = [torch.var_mean(as_it_lies(u).flatten(1), 1, correction=0) for u in inputs]
        within, means = (torch.stack(parts) for parts in zip(*images, strict=True))
        return (within.mean(1) + means.var(1, correction=0)).sqrt()

    def _targets(self) -> list[Tensor]:
        """What the feedback of each path goes towards: r̂ᵀξ_p / (n·σ_p²·p̄)."""
        leak = float(self.options["leak"])
        deviations = torch.stack([path.lower.deviation for path in self._paths])
        variances, audible, nothing = deviations.square(), deviations > 0, deviations.new_zeros(())
        targets = []
        for path, variance, heard in zip(self._paths, variances, audible, strict=True):
            layer, p, q = path.layer, path.lower, path.upper
            assert q is not None
            fast = q.respond(layer.response(p.change), leak, self.ranks)
            correlation = layer.outer(fast, p.noise, layer.weight.shape) / self._samples_of(path) / variance
            # A silent population has no noise to learn from.
            targets.append(torch.where(heard, self.ranks.mean(correlation), nothing))
        return targets

    def _follow(self, layers: list[FeedbackLayer], targets: list[Tensor]) -> None:
        """V ← (1 - λ)·V + λ·target, within its bound, for layers that differ: on a GPU in a few kernels for all of them."""
        rate = float(self.options["rate"])
        paths = [layer.V for layer in layers]
        torch._foreach_lerp_(paths, targets, rate if self.parts == 1 else 1 - (1 - rate) ** (1 / self.parts))
        bounds = NORM_BOUND * torch.stack([layer.get_buffer("V0_norm") for layer in layers])
        shares = (bounds / torch.stack(torch._foreach_norm(paths))).clamp(max=1)
        for V, share in zip(paths, shares, strict=True):
            V.mul_(share)

    def _samples_of(self, path: _Path) -> Tensor | float:
        """n·p̄: how many samples the weight gradient sums over, times p̄; counted once for each shape."""
        p, q = path.lower, path.upper
        assert q is not None
        gain = p.gain * q.gain
        key = (path.layer.name, gain, p.u.shape, q.u.shape, p.u.device, p.u.dtype)
        if key not in self._samples:
            self._samples[key] = gain * path.layer.samples(p.u, q.u)
        return self._samples[key]


class _Ear(TorchFunctionMode):
    """Hears the activation functions that a forward pass calls, as a module or as a function, in place or not."""

    def __init__(self, algorithm: PAL) -> None:
        super().__init__()
        self._algorithm = algorithm

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: object,
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        activation = _ACTIVATIONS.get(function)
        if activation is None or not args:
            return function(*args, **kwargs)
        u, origin = args[0].detach(), args[0].grad_fn
        if kwargs.get("inplace") or function.__name__.endswith("_"):
            u = u.clone()  # needed after it is overwritten
        h = function(*args, **kwargs)
        settings = {key: value for key, value in kwargs.items() if key != "inplace"}
        population = _Population(
            u, h, lambda v: activation(v, *args[1:], **settings), rectified=activation is torch.relu
        )
        self._algorithm.meet(population, origin, h.grad_fn)
        return h
