"""`convert`, which gives an algorithm to any network, and `attach`, which joins it to the optimiser."""

import weakref
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from pfa_cli import registry
from pfa_cli.algorithms.base import Algorithm, FeedbackConv2d, FeedbackLayer, FeedbackLinear
from pfa_cli.algorithms.watch import NOT_MULTIPLIED, is_matrix, watch
from pfa_cli.errors import PfaError, UsageError
from pfa_cli.randomness import generator


def convert(
    network: nn.Module,
    algorithm: str | type[Algorithm],
    *,
    seed: int = 0,
    ignore: Collection[str] = (),
    drawn: Mapping[str, Sequence[Tensor]] | None = None,
    **options: object,
) -> nn.Module:
    """Makes ``network`` one that learns by ``algorithm``, in place, and returns it.

    Every nn.Linear and nn.Conv2d gets a feedback path; all else, and the forward pass, stays as it is. Then make the optimiser
    (in the literal form it steps R as well) and `attach` it. Convert once the weights are initialised, have their dtype and are
    frozen where they shall be: feedback that learns starts from them. The algorithm is ``network.algorithm``.

    Args:
        network: any module whose errors go down by Linear and Conv2d layers, by layers without weights, by sums and by
            scaling (biases, position embeddings, normalisation). For DFA its output is [batch, classes]: logits, or what is
            made of the logits of a last Linear layer.
        algorithm: a name of `pfa_cli.algorithms.ALGORITHMS`, e.g. "pfa"; the class of one; or a file, "frsf.py:FRSF".
        seed: of the feedback weights, a stream of their own; the network's weights are not drawn here.
        ignore: parameters, and modules with all they hold, that stay as they are: errors go down by them as in
            backpropagation. Names as in ``network.named_parameters()`` and ``network.named_modules()``.
        drawn: feedback weights in place of those of ``seed``, by the name of the layer: V, of W's shape, for FA; B [N̄, N_out]
            and R₀ [N̄, …] like W for PFA and PFA-o; none for BP and SF.
        **options: the algorithm's own, e.g. ``expansion=20`` for "pfa".

    Raises:
        UsageError: an unknown algorithm, option or name to ignore, or an option's value out of range.
        PfaError: weights that errors would go down by, without a feedback path; the message names them. Parameters of a
            module of one's own show what they do only in a pass: the first one with gradients raises it. Backpropagation
            refuses nothing.

    >>> import torch
    >>> from pfa_cli.algorithms import attach, convert
    >>> _ = torch.manual_seed(0)
    >>> network = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> network = convert(network, "pfa", seed=0, expansion=10)
    >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    >>> attach(network, optimizer)
    >>> images, labels = torch.randn(32, 8), torch.randint(4, (32,))
    >>> torch.nn.functional.cross_entropy(network(images), labels).backward()
    >>> optimizer.step()
    >>> network.algorithm.path(network[2]).shape == network[2].weight.shape
    True
    """
    entry = algorithm.declared() if isinstance(algorithm, type) else registry.algorithm(algorithm)
    chosen: Algorithm = entry.load().create(entry.check_options(options), seed)
    chosen.ignored = _parameters_in(network, [ignore] if isinstance(ignore, str) else ignore)
    found = _weighted_layers(network, chosen, entry.label)
    for name, module in found:
        layer = _adopt(module, name, chosen)
        if drawn is None:
            with torch.no_grad():
                tensors = chosen.draw(layer, generator(seed, "feedback", name))
        else:
            tensors = chosen.start_from(layer, *drawn[name])
        if not isinstance(tensors, dict) or not all(isinstance(one, Tensor) for one in tensors.values()):
            raise PfaError(
                f'{type(chosen).__name__}.draw must return a dict of tensors by name, such as {{"V": V}}'
            )
        for letter, tensor in tensors.items():
            value = _laid_out_as(layer.weight, tensor)
            if isinstance(tensor, nn.Parameter):
                layer.register_parameter(letter, nn.Parameter(value, requires_grad=tensor.requires_grad))
            else:
                layer.register_buffer(letter, value)
        chosen.layers.append(layer)
    network.algorithm = chosen  # type: ignore[assignment]
    chosen.attach(network)
    watch(network)
    return network


def attach(network: nn.Module, optimizer: torch.optim.Optimizer, *, prepare: bool = True) -> None:
    """Has ``optimizer`` tell the network's algorithm of every step, which a training loop needs not do then.

    Calls ``network.algorithm.prepare()`` unless that was done (WM learns the initial weights then), and ``after_step`` after
    each ``optimizer.step()``, also where a GradScaler decides whether there is one. A second call changes nothing.

    Args:
        network: a converted network.
        optimizer: made of its parameters after `convert`.
        prepare: False leaves `prepare` to the caller.

    Raises:
        PfaError: the network is not converted, or the optimiser does not hold its parameters.
    """
    algorithm = getattr(network, "algorithm", None)
    if not isinstance(algorithm, Algorithm):
        raise PfaError('this network has no algorithm: `convert(network, "pfa")` comes before `attach`')
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    learning = [layer for layer in algorithm.layers if id(layer.weight) in held]
    if not learning or any(
        id(p) not in held for layer in learning for name, p in layer.named_parameters() if name != "bias"
    ):
        raise PfaError(
            "the optimiser does not hold the parameters of this network: make it after `convert`, of network.parameters()"
        )
    if prepare and not algorithm.prepared:
        algorithm.prepare()
        algorithm.note_prepared()
    if algorithm.attached is not None and algorithm.attached() is optimizer:
        return
    algorithm.attached = weakref.ref(optimizer)
    # A GradScaler may skip a step; then the hook is skipped, too. It must hold nothing in a cycle, which Python's collector
    # would free at any moment and in any thread: that disturbs the recording of a CUDA graph.
    optimizer.register_step_post_hook(lambda optimizer, args, kwargs: algorithm.after_step(optimizer))


def _laid_out_as(weight: Tensor, tensor: Tensor) -> Tensor:
    """``tensor`` on the device of ``weight`` and, where it has its shape, in its memory format.

    What a solver gives may lie transposed, and then each step would pay for it.
    """
    if tensor.shape == weight.shape:
        return torch.empty_like(weight, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
    return tensor.to(weight.device).contiguous()


def _parameters_in(network: nn.Module, names: Collection[str]) -> frozenset[str]:
    """The parameters that ``names``, of parameters and modules, stand for; UsageError for a name that is neither."""
    parameters = [name for name, _ in network.named_parameters(remove_duplicate=False)]
    known = {*parameters, *(name for name, _ in network.named_modules(remove_duplicate=False) if name)}
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.4)
            hint = f": did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise UsageError(f"ignore: the network has no parameter and no module {name!r}{hint}")
    return frozenset(name for name in parameters if any(f"{name}.".startswith(f"{each}.") for each in names))


def _weighted_layers(network: nn.Module, algorithm: Algorithm, label: str) -> list[tuple[str, nn.Module]]:
    """The layers to convert, in network order; PfaError for a weighted layer that cannot have a feedback path."""
    if isinstance(getattr(network, "algorithm", None), Algorithm):
        raise PfaError("this network is converted already: convert a fresh one (or a deep copy made before)")
    found = []
    for name, module in network.named_modules():
        own = {f"{name}.{each}" if name else each: p for each, p in module.named_parameters(recurse=False)}
        if isinstance(module, FeedbackLayer):
            raise PfaError(f"layer {name or 'network'!r} is converted already: convert a fresh network")
        if any(each in algorithm.ignored for each in own):
            continue
        if type(module) in (nn.Linear, nn.Conv2d):
            found.append((name or "layer", module))
        elif not algorithm.exact and (isinstance(module, _WITHOUT_PATH) or is_parametrized(module)):
            raise PfaError(
                f"layer {name or 'network'!r} is a {type(module).__name__}, for which {label} has no feedback path: "
                "only plain nn.Linear and nn.Conv2d layers have one. Keep its weights in such layers, and call these; or "
                f'`convert(..., ignore=["{name}"])` leaves it to backpropagation'
            )
        elif not algorithm.exact and not isinstance(module, NOT_MULTIPLIED):
            for each, parameter in own.items():
                if not parameter.requires_grad and is_matrix(parameter):  # it has no node in autograd's graph
                    raise PfaError(
                        f"parameter {each!r} is frozen, so that no pass shows whether errors are multiplied by it: give "
                        f'`convert(..., ignore=["{each}"])` if it is only added, or may be left to backpropagation'
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


def _adopt(layer: nn.Module, name: str, algorithm: "Algorithm") -> FeedbackLayer:
    """Turns an nn.Linear or nn.Conv2d into its feedback layer in place: parameters, hooks and owners stay as they are."""
    layer.__class__ = FeedbackLinear if type(layer) is nn.Linear else FeedbackConv2d
    assert isinstance(layer, FeedbackLayer)
    layer.name = name
    layer.algorithm = algorithm
    return layer
