"""What every algorithm is: a feedback path and how it changes; and `convert`, which gives one to any network."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from pfa_cli.algorithms.layers import FeedbackLayer, Reroute, adopt
from pfa_cli.errors import PfaError
from pfa_cli.randomness import generator, stream_seed
from pfa_cli.ranks import Ranks
from pfa_cli.registry import Entry, OptionValue
from pfa_cli.registry import algorithm as entry


class Algorithm:
    """The base of the algorithms; one object serves one network.

    With ``a = W·h + b`` and ``delta = dLoss/da``, an algorithm replaces only the tensor that carries delta down:
    ``grad_h = Vᵀ·delta`` in place of ``Wᵀ·delta``. A subclass says what V is (`path`), what it starts from (`draw`) and
    how it changes (`after_step`, or hooks that it sets in `attach`). The defaults are those of a path that never changes.
    """

    entry: Entry
    exact = False  # True: the layers backpropagate by W itself

    def __init__(self, options: Mapping[str, OptionValue], seed: int) -> None:
        self.options = dict(options)
        self.seed = seed
        self.layers: list[FeedbackLayer] = []
        self.ranks = Ranks()  # the processes that train this network together
        self.parts = 1  # in which a batch passes, one after the other (accumulated gradients)
        self.observing = True  # False while a probe passes that nothing may learn from
        self.generator: torch.Generator | None = None  # of the noise; None before the first is drawn
        self._epoch = 0

    @classmethod
    def create(cls, options: Mapping[str, OptionValue], seed: int) -> "Algorithm":
        """The algorithm for these options."""
        return cls(options, seed)

    # What a subclass says

    def draw(self, layer: FeedbackLayer, stream: torch.Generator) -> dict[str, Tensor]:
        """The initial feedback tensors of ``layer``, registered as its buffers under their names."""
        return {}

    def path(self, layer: FeedbackLayer) -> Tensor:
        """The feedback path V of ``layer``, shape of W."""
        return layer.V

    def send_back(self, layer: FeedbackLayer, delta: Tensor, input_shape: torch.Size) -> Tensor:
        """The error at the layer's input, of shape ``input_shape``, from the error ``delta`` at its output."""
        return layer.transpose(delta, self.path(layer), input_shape)

    # The moments at which it is called

    def attach(self, network: nn.Module) -> None:
        """Once, in `convert`, when every layer has its feedback tensors."""

    def prepare(self) -> None:
        """Once, before the first training step."""

    def start_epoch(self, epoch: int) -> None:
        """Before each epoch: from here on, noise comes from (seed, epoch) alone."""
        self._epoch = epoch
        if self.generator is not None:  # the same object: what was recorded for a GPU draws from it
            self.generator.manual_seed(stream_seed(self.seed, "noise", epoch))

    def connect(self, layer: FeedbackLayer, x: Tensor, a: Tensor) -> Tensor:
        """In the forward pass: joins the input ``x`` to the output ``a``, which was computed from a detached ``x``."""
        return Reroute.apply(x, a, layer)

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """After each optimiser step."""

    # Noise and state

    def noise(self, shape: torch.Size | tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
        """Standard normal noise from the algorithm's own stream."""
        if self.generator is None or self.generator.device != device:
            self.generator = generator(self.seed, "noise", self._epoch, device=device)
        return torch.randn(shape, generator=self.generator, device=device, dtype=dtype)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values, beside the layers' buffers, that a resumed run needs."""
        stream = {} if self.generator is None else {"generator": self.generator.get_state()}
        device = None if self.generator is None else str(self.generator.device)
        return stream, {"noise_epoch": self._epoch, "noise_device": device}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""
        self._epoch, self.generator = facts["noise_epoch"], None
        if "generator" in tensors:
            state, device = tensors["generator"].cpu(), self.layers[0].weight.device
            if torch.device(facts["noise_device"]).type == device.type:
                self.generator = torch.Generator(device=device)
                self.generator.set_state(state)
            else:
                # Generators of the CPU and of GPUs cannot go on from one another. This one is new, and so is its noise: from
                # (seed, epoch) alone, what this epoch has had already would come again.
                state_hash = hashlib.sha256(state.numpy().tobytes()).hexdigest()
                self.generator = generator(self.seed, "noise", self._epoch, state_hash, device=device)


def convert(network: nn.Module, algorithm: str, *, seed: int = 0, **options: object) -> nn.Module:
    """Makes ``network`` one that learns by ``algorithm``, in place, and returns it.

    Every nn.Linear and nn.Conv2d gets a feedback path; all else, and the forward pass, stays as it is. The algorithm is
    then ``network.algorithm``: call its ``prepare`` before the first step (WM's mirror starts there) and its ``after_step``
    after each, before gradients are cleared. Convert once the weights are initialised, have their dtype and are frozen where
    they shall be: feedback that learns starts from them. The optimiser comes after: in the literal form it steps R as well.

    Args:
        network: any module made of Linear and Conv2d layers, of normalising layers and of layers without weights. For DFA
            its output is [batch, classes]: logits, or what is made of the logits of a last Linear layer.
        algorithm: a name of `pfa_cli.algorithms.ALGORITHMS`, e.g. "pfa".
        seed: of the feedback weights, a stream of their own; the network's weights are not drawn here.
        **options: the algorithm's own, e.g. ``expansion=20`` for "pfa".

    Raises:
        UsageError: an unknown algorithm or option, or an option's value out of range.
        PfaError: a layer that has weights but no feedback path; the message names it.

    >>> import torch
    >>> from pfa_cli.algorithms import convert
    >>> _ = torch.manual_seed(0)
    >>> network = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> network = convert(network, "pfa", seed=0, expansion=10)
    >>> network.algorithm.prepare()
    >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    >>> images, labels = torch.randn(32, 8), torch.randint(4, (32,))
    >>> loss = torch.nn.functional.cross_entropy(network(images), labels)
    >>> loss.backward()
    >>> optimizer.step()
    >>> network.algorithm.after_step(optimizer)
    >>> network.algorithm.path(network[2]).shape == network[2].weight.shape
    True
    """
    description = entry(algorithm)
    chosen = description.load().create(description.check_options(options), seed)
    found = _weighted_layers(network, algorithm)
    for name, module in found:
        layer = adopt(module, name, chosen)
        for letter, tensor in chosen.draw(layer, generator(seed, "feedback", name)).items():
            value = _laid_out_as(layer.weight, tensor)
            if isinstance(tensor, nn.Parameter):
                layer.register_parameter(letter, nn.Parameter(value, requires_grad=tensor.requires_grad))
            else:
                layer.register_buffer(letter, value)
        chosen.layers.append(layer)
    network.algorithm = chosen  # type: ignore[assignment]
    chosen.attach(network)
    return network


def _laid_out_as(weight: Tensor, tensor: Tensor) -> Tensor:
    """``tensor`` on the device of ``weight`` and, where it has its shape, in its memory format.

    What a solver gives may lie transposed, and then each step would pay for it.
    """
    if tensor.shape == weight.shape:
        return torch.empty_like(weight, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
    return tensor.to(weight.device).contiguous()


def _weighted_layers(network: nn.Module, algorithm: str) -> list[tuple[str, nn.Module]]:
    """The layers to convert, in network order; PfaError for a weighted layer that cannot have a feedback path."""
    if isinstance(getattr(network, "algorithm", None), Algorithm):
        raise PfaError("this network is converted already: convert a fresh one (or a deep copy made before)")
    found = []
    for name, module in network.named_modules():
        if type(module) in (nn.Linear, nn.Conv2d):
            found.append((name or "layer", module))
        elif isinstance(module, FeedbackLayer):
            raise PfaError(f"layer {name or 'network'!r} is converted already: convert a fresh network")
        elif isinstance(module, _WITHOUT_PATH) or is_parametrized(module) or _owns_a_matrix(module):
            raise PfaError(
                f"layer {name or 'network'!r} is a {type(module).__name__}, for which {algorithm} has no feedback path: "
                "only plain nn.Linear and nn.Conv2d layers have one. Keep its weights in such layers, and call these"
            )
    if not found:
        raise PfaError("the network has no nn.Linear and no nn.Conv2d layer: there is nothing to convert")
    return found


# Layers that multiply by weights in a way no feedback path is defined for; subclasses of Linear and Conv2d among them,
# since they may multiply in their own way.
_WITHOUT_PATH = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
    nn.Bilinear,
)


# Weights that no error passes on its way down, or that scale it unit by unit.
_NOT_MULTIPLIED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)


def _owns_a_matrix(module: nn.Module) -> bool:
    """Whether a module of a user's or of a library's has weights of its own to multiply by: BP would carry errors there."""
    own = module.parameters(recurse=False)
    return not isinstance(module, _NOT_MULTIPLIED) and any(p.squeeze().ndim > 1 for p in own)


@contextmanager
def exact_backward(network: nn.Module) -> Iterator[None]:
    """Within it, ``network`` backpropagates by its own weights: BP's deltas in a network that learns otherwise."""
    algorithm = network.algorithm
    assert isinstance(algorithm, Algorithm)
    before = algorithm.exact
    algorithm.exact = True
    try:
        yield
    finally:
        algorithm.exact = before


@contextmanager
def unobserved(network: nn.Module) -> Iterator[None]:
    """Within it, nothing learns from what passes through ``network``."""
    algorithm = network.algorithm
    assert isinstance(algorithm, Algorithm)
    algorithm.observing = False
    try:
        yield
    finally:
        algorithm.observing = True
