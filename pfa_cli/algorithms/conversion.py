"""`convert`, which gives an algorithm to any network."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from pfa_cli import registry
from pfa_cli.algorithms.base import Algorithm, FeedbackConv2d, FeedbackLayer, FeedbackLinear
from pfa_cli.errors import PfaError
from pfa_cli.randomness import generator


def convert(
    network: nn.Module, algorithm: str | type[Algorithm], *, seed: int = 0, **options: object
) -> nn.Module:
    """Makes ``network`` one that learns by ``algorithm``, in place, and returns it.

    Every nn.Linear and nn.Conv2d gets a feedback path; all else, and the forward pass, stays as it is. The algorithm is
    then ``network.algorithm``: call its ``prepare`` before the first step (WM's mirror starts there) and its ``after_step``
    after each, before gradients are cleared. Convert once the weights are initialised, have their dtype and are frozen where
    they shall be: feedback that learns starts from them. The optimiser comes after: in the literal form it steps R as well.

    Args:
        network: any module made of Linear and Conv2d layers, of normalising layers and of layers without weights. For DFA
            its output is [batch, classes]: logits, or what is made of the logits of a last Linear layer.
        algorithm: a name of `pfa_cli.algorithms.ALGORITHMS`, e.g. "pfa"; the class of one; or a file, "frsf.py:FRSF".
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
    entry = algorithm.declared() if isinstance(algorithm, type) else registry.algorithm(algorithm)
    chosen: Algorithm = entry.load().create(entry.check_options(options), seed)
    found = _weighted_layers(network, entry.label)
    for name, module in found:
        layer = _adopt(module, name, chosen)
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


def _adopt(layer: nn.Module, name: str, algorithm: "Algorithm") -> FeedbackLayer:
    """Turns an nn.Linear or nn.Conv2d into its feedback layer in place: parameters, hooks and owners stay as they are."""
    layer.__class__ = FeedbackLinear if type(layer) is nn.Linear else FeedbackConv2d
    assert isinstance(layer, FeedbackLayer)
    layer.name = name
    layer.algorithm = algorithm
    return layer
