"""What every algorithm is, a feedback path and how it changes; and the layers whose backward pass asks it for the error."""

import hashlib
import math
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from pfa_cli.errors import PfaError, UsageError
from pfa_cli.randomness import generator, stream_seed
from pfa_cli.ranks import Ranks
from pfa_cli.registry import Entry, OptionValue

_ALIGNED = 64  # numbers: where each tensor of a shared piece of memory begins, so that kernels can load four at a time
_ONE_OF = ("path", "draw", "send_back", "connect")  # what an algorithm overrides, at least one


class Algorithm:
    """The base of the algorithms; one object serves one network.

    With ``a = W·h + b`` and ``delta = dLoss/da``, an algorithm replaces only the tensor that carries delta down:
    ``grad_h = Vᵀ·delta`` in place of ``Wᵀ·delta``. A subclass says what V is (`path`), what it starts from (`draw`) and
    how it changes (`after_step`, or hooks that it sets in `attach`). The defaults are those of a path that never changes.
    """

    entry: ClassVar[Entry]  # what the command line and the figures say of it
    exact = False  # True: the layers backpropagate by W itself

    def __init__(self, options: Mapping[str, OptionValue], seed: int) -> None:
        self.options = dict(options)
        self.seed = seed
        self.layers: list[FeedbackLayer] = []
        self.ranks = Ranks()  # the processes that train this network together
        self.parts = 1  # in which a batch passes, one after the other (accumulated gradients)
        self.observing = True  # False while a probe passes that nothing may learn from
        self.generator: torch.Generator | None = None  # of the noise; None before the first is drawn
        self.steps = 0  # taken so far, where they are not all of one kind (`step_kind`); a trainer sets it
        self._epoch = 0
        self.ignored: frozenset[str] = (
            frozenset()
        )  # parameters that `convert` was told to leave to backpropagation
        self.looked_through = False  # whether a pass showed that no other weights multiply errors (watch.py)
        self.attached: weakref.ref[torch.optim.Optimizer] | None = None  # calls `after_step` by itself
        self.prepared = False  # whether `prepare` was called
        self._warned = False
        self._learns: FeedbackLayer | None = None  # a layer whose weights are not frozen
        self._version: int | None = None  # of its weights in the last training pass; None after `after_step`

    def __init_subclass__(cls, **settings: Any) -> None:
        """Has `prepare` and `after_step` run without gradients, and noted, so that a loop that leaves one out is warned.

        A rule that computes with ``layer.weight`` would else keep the graph of all steps so far, and with it a copy of W each.
        """
        super().__init_subclass__(**settings)
        for name, note in (("prepare", Algorithm.note_prepared), ("after_step", Algorithm.note_step)):
            if name in cls.__dict__:
                setattr(cls, name, _noted(cls.__dict__[name], note))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"attached": None}  # a copy has no optimiser

    @classmethod
    def declared(cls) -> Entry:
        """Its `entry`; one that declares none is called by its class's name and has its base's options.

        Raises:
            UsageError: the class has no feedback path, or its entry is none.
        """
        if all(getattr(cls, method) is getattr(Algorithm, method) for method in _ONE_OF):
            raise UsageError(
                f"{cls.__name__} has no feedback path: it needs one of the methods {', '.join(_ONE_OF)}"
            )
        entry = cls.__dict__.get("entry")
        if entry is None:
            base = getattr(cls, "entry", None) or Entry("")
            entry = Entry(
                cls.__name__.lower(), label=cls.__name__, options=base.options, measure=base.measure
            )
        if not isinstance(entry, Entry):
            raise UsageError(f"{cls.__name__}.entry must be an Entry(...) of pfa_cli.registry, not {entry!r}")
        return replace(entry, implementation=cls)

    @classmethod
    def create(cls, options: Mapping[str, OptionValue], seed: int) -> "Algorithm":
        """The algorithm for these options."""
        return cls(options, seed)

    # What a subclass says

    def draw(self, layer: "FeedbackLayer", stream: torch.Generator) -> dict[str, Tensor]:
        """The initial feedback tensors of ``layer``, registered as its buffers under their names."""
        return {}

    def start_from(self, layer: "FeedbackLayer", *drawn: Tensor) -> dict[str, Tensor]:
        """As `draw`, from matrices drawn elsewhere (see `convert`): here from V, or from none."""
        return {"V": drawn[0]} if drawn else {}

    def path(self, layer: "FeedbackLayer") -> Tensor:
        """The feedback path V of ``layer``, shape of W."""
        try:
            return layer.V
        except AttributeError:
            raise PfaError(
                f"{type(self).__name__} has neither a method `path` nor a V that `draw` makes"
            ) from None

    def send_back(self, layer: "FeedbackLayer", delta: Tensor, input_shape: torch.Size) -> Tensor:
        """The error at the layer's input, of shape ``input_shape``, from the error ``delta`` at its output."""
        path = self.path(layer)
        if not isinstance(path, Tensor) or path.shape != layer.weight.shape:
            shown = list(path.shape) if isinstance(path, Tensor) else path
            raise PfaError(
                f"{type(self).__name__}: the feedback path V of layer {layer.name!r} must be a tensor of the shape of W, "
                f"{list(layer.weight.shape)}, not {shown}"
            )
        return layer.transpose(delta, path, input_shape)

    @classmethod
    def extra_numbers(cls, options: Mapping[str, Any], layers: Sequence[tuple[int, int]]) -> float:
        """How many numbers it needs beside one feedback path per layer; ``layers``: N_out and fan_in of each."""
        return 0

    def carries(self, layer: "FeedbackLayer") -> bool:
        """Whether an error goes down by ``layer``, so that it has a feedback path to be measured."""
        return True

    def direct(self, layer: "FeedbackLayer") -> Tensor | None:
        """Of feedback that is direct for some pairs of neurons only: its synapses, shape of W, zero where there is none.

        None: it is direct for all pairs (`path`), or for none.
        """
        return None

    # The moments at which it is called

    def attach(self, network: nn.Module) -> None:
        """Once, in `convert`, when every layer has its feedback tensors."""

    @property
    def preparation(self) -> str | None:
        """What `prepare` does, in a few words for the user, if it takes long."""
        return None

    def prepare(self) -> None:
        """Once, before the first training step; without gradients."""

    def start_epoch(self, epoch: int) -> None:
        """Before each epoch: from here on, noise comes from (seed, epoch) alone."""
        self._epoch = epoch
        if self.generator is not None:  # the same object: what was recorded for a GPU draws from it
            self.generator.manual_seed(stream_seed(self.seed, "noise", epoch))

    def connect(self, layer: "FeedbackLayer", x: Tensor, a: Tensor) -> Tensor:
        """In the forward pass: joins the input ``x`` to the output ``a``, which was computed from a detached ``x``."""
        return Reroute.apply(x, a, layer)

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """After each optimiser step; without gradients."""

    @property
    def step_kind(self) -> int:
        """Which of its kinds of step follows after ``steps`` steps. On a GPU each kind has a recording of its own."""
        return 0

    @property
    def period(self) -> int:
        """After how many steps the kinds of step come again in the same order."""
        return 1

    # Whether it is called: see watch.py

    def note_prepared(self) -> None:
        """`prepare` was called."""
        self.prepared = True

    def note_step(self) -> None:
        """`after_step` was called."""
        self.note_current()
        self._warn_unprepared()

    def note_current(self) -> None:
        """Feedback and weights belong to the same step."""
        self._version = None

    def note_pass(self) -> None:
        """A training pass begins; warns, once, if a step was taken since the last one and `after_step` was not called."""
        if self._learns is None:
            self._learns = next((layer for layer in self.layers if layer.weight.requires_grad), None)
            if self._learns is None:
                return
        before, self._version = (
            self._version,
            self._learns.weight._version,
        )  # changes in place, counted on the host
        if before is None or before == self._version:
            return
        self._warn_unprepared()
        if type(self).after_step is not Algorithm.after_step:
            self._warn(
                "the weights took a step, and network.algorithm.after_step(optimizer) was not called: the feedback is that of "
                "earlier weights. Call it after each optimizer.step(), or once pfa_cli.attach(network, optimizer)"
            )

    def _warn_unprepared(self) -> None:
        if not self.prepared and not self.attached and type(self).prepare is not Algorithm.prepare:
            self._warn(
                "a step was taken, and network.algorithm.prepare() was not called: the feedback has not learned the initial "
                "weights. Call it before the first step, or once pfa_cli.attach(network, optimizer)"
            )

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"{type(self).__name__}: {text}", UserWarning, stacklevel=_users_level())

    # Noise and state

    def noise(self, shape: torch.Size | tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
        """Standard normal noise of ``shape`` from the algorithm's own stream."""
        if self.generator is None or self.generator.device != device:
            self.generator = generator(self.seed, "noise", self._epoch, device=device)
        return torch.empty(shape, device=device, dtype=dtype).normal_(generator=self.generator)

    def noises(self, shapes: Sequence[tuple[int, ...]], like: Tensor) -> Iterator[Tensor]:
        """Noise of each shape in turn, of the dtype and on the device of ``like``.

        On a GPU all is drawn at once, since a draw takes as long for few numbers as for many.
        """
        if not like.is_cuda:
            yield from (self.noise(shape, like.device, like.dtype) for shape in shapes)
            return
        sizes = [math.prod(shape) for shape in shapes]
        rooms = [-(-size // _ALIGNED) * _ALIGNED for size in sizes]
        together = self.noise((sum(rooms),), like.device, like.dtype)
        for room, size, shape in zip(together.split(rooms), sizes, shapes, strict=True):
            yield room[:size].view(shape)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values, beside the layers' buffers, that a resumed run needs."""
        stream = {} if self.generator is None else {"generator": self.generator.get_state()}
        device = None if self.generator is None else str(self.generator.device)
        return stream, {"noise_epoch": self._epoch, "noise_device": device}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""
        self._epoch, self.generator = facts["noise_epoch"], None
        if facts["noise_device"] is not None:
            state, device = tensors["generator"].cpu(), self.layers[0].weight.device
            if torch.device(facts["noise_device"]).type == device.type:
                self.generator = torch.Generator(device=device)
                self.generator.set_state(state)
            else:
                # Generators of the CPU and of GPUs cannot go on from one another. This one is new, and so is its noise: from
                # (seed, epoch) alone, what this epoch has had already would come again.
                state_hash = hashlib.sha256(state.numpy().tobytes()).hexdigest()
                self.generator = generator(self.seed, "noise", self._epoch, state_hash, device=device)


def _noted(method: Callable[..., None], note: Callable[[Algorithm], None]) -> Callable[..., None]:
    @wraps(method)
    def call(self: Algorithm, *args: Any) -> None:
        with torch.no_grad():
            method(self, *args)
        note(self)

    return call


def _users_level() -> int:
    """What makes a warning of the caller of this show the line, outside pfa and torch, that led here."""
    level, frame = 1, sys._getframe(1)
    while frame.f_globals["__name__"].partition(".")[0] in ("pfa_cli", "torch") and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    return level


class FeedbackLayer(nn.Module):
    """What an algorithm may ask of a weighted layer, whether it is dense or convolutional.

    ``weight`` W has shape [N_out, N_in] (dense) or [N_out, N_in / groups, kh, kw] (convolution). The tensors below are
    buffers that an algorithm registers when it needs them; their letters are those of the paper.
    """

    weight: Tensor
    groups: int
    name: str
    algorithm: "Algorithm"
    V: Tensor  # feedback path, shape of W
    D: Tensor  # direct feedback from the output error
    B: Tensor  # [groups · N̄, N_out / groups], from the errors to the extra population
    R: Tensor  # [groups · N̄, …] like W, from the extra population to the layer below
    G: Tensor  # BᵀB by group: [groups, N_out / groups, N_out / groups]
    M: Tensor  # which synapses of a sparse matrix exist: 0, or a positive number
    C0: Tensor  # how the initial feedback path and G·W differ, shape of W

    @property
    def fan_in(self) -> int:
        return self.weight[0].numel()

    @property
    def fan_out(self) -> int:
        return self.weight.shape[0] * self.weight[0, 0].numel()

    @property
    def n_out(self) -> int:
        return self.weight.shape[0]

    def by_group(self, tensor: Tensor) -> Tensor:
        """``tensor`` with one row per output unit, seen as [groups, rows / groups, fan_in]."""
        return tensor.reshape(self.groups, tensor.shape[0] // self.groups, -1)

    def mix_rows(self, mixing: Tensor, tensor: Tensor) -> Tensor:
        """``mixing`` [groups, n, n] times the rows of ``tensor`` by group, with its shape and in its memory format."""
        rows = as_it_lies(tensor)
        return lying_as((mixing @ self.by_group(rows)).reshape(rows.shape), tensor)

    def response(self, x: Tensor) -> Tensor:
        """W·x without the bias; ``x`` has the shape of the layer's input."""
        raise PfaError(f"{type(self).__name__} defines no response")

    def transpose(self, delta: Tensor, path: Tensor, input_shape: torch.Size) -> Tensor:
        """``path``ᵀ·delta: the error at the layer's input, of shape ``input_shape``."""
        raise PfaError(f"{type(self).__name__} defines no transpose")

    def outer(self, delta: Tensor, x: Tensor, shape: torch.Size) -> Tensor:
        """delta·xᵀ summed over the batch: a weight gradient of ``shape``."""
        raise PfaError(f"{type(self).__name__} defines no outer product")

    def samples(self, x: Tensor, a: Tensor) -> Tensor | int:
        """How many samples `outer` sums over for input ``x`` and output ``a``: a number, or one per tap, [1, 1, kh, kw]."""
        raise PfaError(f"{type(self).__name__} counts no samples")


class FeedbackLinear(FeedbackLayer, nn.Linear):
    """A dense layer, a = W·h + b, whose error travels down by its algorithm's feedback path."""

    groups = 1

    def forward(self, x: Tensor) -> Tensor:
        if self.algorithm.exact:
            return F.linear(x, self.weight, self.bias)
        return self.algorithm.connect(self, x, F.linear(x.detach(), self.weight, self.bias))

    def response(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)

    def transpose(self, delta: Tensor, path: Tensor, input_shape: torch.Size) -> Tensor:
        return delta @ path.to(delta.dtype)

    def outer(self, delta: Tensor, x: Tensor, shape: torch.Size) -> Tensor:
        return delta.flatten(0, -2).T @ x.flatten(0, -2)

    def samples(self, x: Tensor, a: Tensor) -> int:
        return a.numel() // a.shape[-1]


class FeedbackConv2d(FeedbackLayer, nn.Conv2d):
    """A convolution, a = W * h + b, whose error travels down by its algorithm's feedback path."""

    groups: int
    own_kernel = False
    """Whether `pfa_cli.kernels.convolution` forms the weight gradient where it is faster; a trainer on a GPU sets it."""

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            cure = "; for rows of pixels the network begins with nn.Unflatten(1, (channels, height, width))"
            raise PfaError(
                f"layer {self.name!r} takes images [batch, channels, height, width], not {list(x.shape)}"
                f"{cure if x.ndim == 2 else ''}"
            )
        if self._zeros is None:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=mode)
        if self.algorithm.exact:
            return self._convolve(x)
        return self.algorithm.connect(self, x, self._convolve(x.detach()))

    def _convolve(self, x: Tensor) -> Tensor:
        if self.own_kernel and torch.is_grad_enabled():
            from pfa_cli.kernels import convolution

            if convolution.serves(x, self.out_channels, self.groups):
                return convolution.convolve(x, self.weight, self.bias, self.geometry)
        return F.conv2d(x, self.weight, self.bias, **self.geometry)

    @property
    def _zeros(self) -> tuple[int, ...] | None:
        """The zero padding that the convolution itself does; None where it is done before, with autograd's own gradient."""
        if self.padding_mode != "zeros":
            return None
        if not isinstance(self.padding, str):
            return self.padding
        left, right, top, bottom = self._reversed_padding_repeated_twice
        return (top, left) if (top, left) == (bottom, right) else None

    @property
    def geometry(self) -> dict[str, Any]:
        """Stride, padding, dilation and groups of the convolution proper."""
        padding = self._zeros or (0, 0)
        return {"stride": self.stride, "padding": padding, "dilation": self.dilation, "groups": self.groups}

    def response(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, **self.geometry)

    def transpose(self, delta: Tensor, path: Tensor, input_shape: torch.Size) -> Tensor:
        # conv_transpose flips the kernel itself: the path is not flipped again. Output padding is for the positions at
        # the far edges that a stride leaves out.
        stride, padding, dilation = (self.geometry[name] for name in ("stride", "padding", "dilation"))
        left_out = [
            input_shape[2 + i]
            - (delta.shape[2 + i] - 1) * stride[i]
            + 2 * padding[i]
            - dilation[i] * (self.kernel_size[i] - 1)
            - 1
            for i in (0, 1)
        ]
        return F.conv_transpose2d(delta, path.to(delta.dtype), output_padding=left_out, **self.geometry)

    def outer(self, delta: Tensor, x: Tensor, shape: torch.Size) -> Tensor:
        if self.own_kernel:
            from pfa_cli.kernels import convolution

            if convolution.serves(x, shape[0], self.groups):
                return convolution.weight_gradient(x, delta, shape, self.geometry)
        return conv2d_weight(x, shape, delta, **self.geometry)

    def samples(self, x: Tensor, a: Tensor) -> Tensor:
        # The weight gradient of ones counts the positions where a tap lies inside the image.
        inputs, outputs = (torch.ones_like(t[:1, :1]) for t in (x, a))
        geometry = self.geometry | {"groups": 1}
        inside = conv2d_weight(inputs, (1, 1, *self.kernel_size), outputs, **geometry)
        return x.shape[0] * inside.clamp(min=1)  # a tap that only ever meets padding has nothing to divide


def as_it_lies(tensor: Tensor) -> Tensor:
    """A view of ``tensor`` whose dimensions come in the order of its memory: channels last, if they lie so, and contiguous."""
    return tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 and not tensor.is_contiguous() else tensor


def lying_as(view: Tensor, tensor: Tensor) -> Tensor:
    """``view``, of the shape that `as_it_lies` gave ``tensor``, in the shape and the memory format of ``tensor``."""
    return view if tensor.ndim != 4 or tensor.is_contiguous() else view.permute(0, 3, 1, 2)


def pass_on(ctx: Any, a: Tensor) -> Tensor:
    """``a`` as the output of an autograd function that does not change it."""
    if a._is_view():  # of a product in two dimensions: autograd would take another backward for a view's base
        return a.clone()
    # Marked as changed in place, so that no copy is made and an in-place ReLU may follow.
    ctx.mark_dirty(a)
    return a


class Reroute(torch.autograd.Function):
    """The identity on a layer's output; backward, it sends delta to the layer's input by the feedback path.

    The weight and bias gradients do not pass here: they are autograd's own, through the second argument.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, layer: "FeedbackLayer") -> Tensor:
        ctx.layer, ctx.input_shape = layer, x.shape
        return pass_on(ctx, a)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, Tensor, None]:
        grad_h = None
        if ctx.needs_input_grad[0]:
            grad_h = ctx.layer.algorithm.send_back(ctx.layer, delta, ctx.input_shape)
        return grad_h, delta, None


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
