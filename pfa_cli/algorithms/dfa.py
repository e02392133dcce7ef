"""DFA, direct feedback alignment: every layer hears the output error itself.

    dense:        grad_h = Dᵀ·e_L,    e_L = dLoss/dlogits,    D fixed, Glorot uniform [n_classes, N_in]
    convolution:  grad_h = conv_transpose(e_L at every output position, D),    D [n_classes, N_in, kh, kw]

(Nøkland 2016; paper, "Direct feedback alignment".) This includes the output layer. The gradient that a shortcut brings is
added as always. Where no dense layer makes the logits, e_L is the gradient at the network's output, which must then be its
logits. ``error_scale`` multiplies e_L on its way to the hidden layers, while the output layer learns as always: a small one
leaves the hidden layers nearly as they were drawn. With ``density`` below 1 each synapse of D exists with that probability, and
its variance is divided by it.

Where it differs from its paper: Nøkland's networks are dense or flatten their maps; here a convolution broadcasts e_L over its
output map and keeps its own stride, padding and dilation, but not its groups, since e_L has none.
"""

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor, nn

from pfa_cli.algorithms.base import Algorithm, FeedbackConv2d, FeedbackLayer
from pfa_cli.algorithms.drawing import glorot, sparse
from pfa_cli.errors import PfaError
from pfa_cli.randomness import generator
from pfa_cli.registry import Entry, Option, OptionValue


class DFA(Algorithm):
    """Direct feedback alignment; per layer ``D``, [n_classes, N_in] or [n_classes, N_in, kh, kw].

    The number of classes is the width of the network's last weighted layer.
    """

    entry = Entry(
        "dfa",
        label="DFA",
        title="Direct feedback alignment",
        colour="#7A5230",
        options={
            "error_scale": Option(1.0, "factor of the output error in hidden layers", minimum=0),
            "density": Option(1.0, "probability that a feedback synapse exists", minimum=1e-6, maximum=1),
        },
        no_sign_transport=True,
        no_magnitude_transport=True,
        no_separate_phase=True,
    )

    def __init__(self, options: Mapping[str, OptionValue], seed: int) -> None:
        super().__init__(options, seed)
        self._output_error: Tensor | None = None
        self._at_output = False  # in the backward pass, above the first layer
        self._tables: dict[tuple[int, int, torch.Size, torch.dtype], tuple[Tensor, Tensor, Tensor]] = {}

    def draw(self, layer: FeedbackLayer, stream: torch.Generator) -> dict[str, Tensor]:
        # The number of classes is known once the last layer is: see `attach`.
        return {}

    def attach(self, network: nn.Module) -> None:
        classes = self.layers[-1].n_out
        for layer in self.layers:
            inputs = layer.weight.shape[1] * layer.groups
            shape = (classes, inputs, *layer.weight.shape[2:])
            stream = generator(self.seed, "feedback", layer.name)
            D = sparse(glorot(shape, layer.weight, stream), float(self.options["density"]), stream)
            layer.register_buffer("D", D.to(layer.weight.device))
        network.register_forward_hook(self._watch_output)

    def path(self, layer: FeedbackLayer) -> Tensor:
        return layer.D

    def send_back(self, layer: FeedbackLayer, delta: Tensor, input_shape: torch.Size) -> Tensor:
        if self._at_output and layer is self.layers[-1] and delta.ndim == 2:
            # dLoss/dlogits, also where the network goes on to make (log-)probabilities of its logits.
            self._output_error = delta
        self._at_output = False
        error = self._output_error
        assert error is not None, "the output's hook runs before any layer's"
        if (scale := float(self.options["error_scale"])) != 1:
            error = error * scale
        if isinstance(layer, FeedbackConv2d):
            return self._broadcast(layer, error, delta.shape, input_shape)
        grad = error @ layer.D.to(error.dtype)
        # A dense layer that serves many positions of a map hears the same error at each.
        between = (1,) * (len(input_shape) - 2)
        return grad.reshape(grad.shape[0], *between, grad.shape[1]).expand(input_shape)

    def _watch_output(self, network: nn.Module, inputs: object, output: object) -> None:
        if not isinstance(output, Tensor) or output.ndim != 2 or output.shape[1] != self.layers[-1].n_out:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise PfaError(
                f"DFA needs an output of shape [batch, {self.layers[-1].n_out}], the width of the last weighted layer "
                f"({self.layers[-1].name!r}), but the network gives {shape}"
            )
        if output.requires_grad:
            output.register_hook(self._take_output_error)

    def _take_output_error(self, error: Tensor) -> None:
        self._output_error, self._at_output = error, True

    def _broadcast(
        self, layer: FeedbackConv2d, error: Tensor, output_shape: torch.Size, input_shape: torch.Size
    ) -> Tensor:
        """The transposed convolution of an error that is the same at every output position.

        An input position's sum depends only on which taps reach it, and few such sets differ (inside, edges, corners),
        so D is summed once for each of them and the sums are handed out to the positions.
        """
        D = layer.D
        key = (D.data_ptr(), D._version, input_shape[2:], error.dtype)  # a checkpoint may give D new values
        if key not in self._tables:
            rows, row_of = _tap_sets(layer, 0, input_shape[2], output_shape[2])
            columns, column_of = _tap_sets(layer, 1, input_shape[3], output_shape[3])
            sums = torch.einsum("kcij,pi,qj->kcpq", D, rows.to(D), columns.to(D))
            self._tables[key] = (sums.to(error.dtype), row_of.to(D.device), column_of.to(D.device))
        sums, row_of, column_of = self._tables[key]
        distinct = (error @ sums.flatten(1)).reshape(error.shape[0], *sums.shape[1:])
        return distinct.index_select(2, row_of).index_select(3, column_of)


def _tap_sets(layer: FeedbackConv2d, axis: int, n_in: int, n_out: int) -> tuple[Tensor, Tensor]:
    """The distinct sets of kernel taps that reach an input position along ``axis``, [sets, taps], and each position's set."""
    geometry = layer.geometry
    return _cached_tap_sets(
        layer.kernel_size[axis],
        geometry["stride"][axis],
        geometry["padding"][axis],
        geometry["dilation"][axis],
        n_in,
        n_out,
    )


@lru_cache(maxsize=256)
def _cached_tap_sets(
    taps: int, stride: int, padding: int, dilation: int, n_in: int, n_out: int
) -> tuple[Tensor, Tensor]:
    position = torch.arange(n_in)[:, None] + padding - dilation * torch.arange(taps)[None, :]
    reached = (position % stride == 0) & (position >= 0) & (position < stride * n_out)
    return torch.unique(reached, dim=0, return_inverse=True)
