"""What is watched of a converted network's passes: weights that errors go down by, and steps that its algorithm missed.

A forward hook looks at what autograd keeps on the host (names of nodes, version counters): no number is asked of the device,
and a CUDA graph replays without it.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node
from torch.utils._pytree import tree_leaves

from pfa_cli.algorithms.base import Algorithm, FeedbackLayer
from pfa_cli.errors import PfaError

# Weights that no error passes on its way down, or that scale it unit by unit.
NOT_MULTIPLIED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)

# Autograd's names of operations, without "Backward0": those that join tensors without multiplying them, ...
_ADDITIVE = {
    "Add", "Sub", "Rsub", "Cat", "Stack", "Where", "CopySlices", "IndexPut", "IndexAdd", "SliceScatter", "SelectScatter",
    "MaskedFill", "Maximum", "Minimum",
}  # fmt: skip
# ... and those that multiply by matrices. The first argument of these is added.
_FIRST_ADDED = {"Addmm", "Baddbmm", "Addbmm", "Addmv", "Addr"}
_PRODUCTS = _FIRST_ADDED | {
    "Mm", "Bmm", "Mv", "Dot", "Convolution", "NativeBatchNorm", "CudnnBatchNorm", "NativeLayerNorm",
}  # fmt: skip
_LOOKED_UP = {"Embedding", "EmbeddingBag"}  # of which token ids, that have no gradient, make an activity


def watch(network: nn.Module) -> None:
    """Watches every pass through a network that was just converted."""
    network.register_forward_hook(_after_pass)
    network.register_load_state_dict_post_hook(_loaded)


def _after_pass(network: nn.Module, inputs: object, output: object) -> None:
    algorithm = network.algorithm
    assert isinstance(algorithm, Algorithm)
    if algorithm.looked_through and algorithm.attached:
        return  # nothing is left to see
    if algorithm.exact or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return
    if not algorithm.looked_through:
        _refuse_multiplied(network, algorithm, output)
    if network.training and algorithm.observing and not algorithm.attached:
        algorithm.note_pass()


def _loaded(network: nn.Module, incompatible: Any) -> None:
    """What was loaded is the state after some step; a whole one has been prepared."""
    algorithm = network.algorithm
    assert isinstance(algorithm, Algorithm)
    algorithm.note_current()
    if not incompatible.missing_keys:
        algorithm.prepared = True


def _refuse_multiplied(network: nn.Module, algorithm: Algorithm, output: object) -> None:
    """PfaError if an error goes down by weights that have no feedback path; looks once, at the first pass that has a graph."""
    outputs = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.grad_fn is not None]
    if not outputs:
        return
    found = sorted(set(_multiplied([leaf.grad_fn for leaf in outputs], _matrices(network, algorithm))))
    if found:
        names = " and ".join(repr(name) for name in found)
        listed = ", ".join(f'"{name}"' for name in found)
        raise PfaError(
            f"errors go down by {names}, for which {algorithm.declared().label} has no feedback path: only nn.Linear and "
            "nn.Conv2d have one, where they are called as layers. Keep these weights in such layers and call them, or give "
            f"`convert(..., ignore=[{listed}])` to leave them to backpropagation"
        )
    algorithm.looked_through = True


def _matrices(network: nn.Module, algorithm: Algorithm) -> dict[int, tuple[str, bool]]:
    """The parameters that must not multiply, by their id: name, and whether a layer's own `connect` may use it."""
    found = {}
    for prefix, module in network.named_modules():
        is_layer = isinstance(module, FeedbackLayer)
        for own, parameter in module.named_parameters(recurse=False):
            name = f"{prefix}.{own}" if prefix else own
            drawn = is_layer and own not in ("weight", "bias")  # the algorithm's own, such as R
            if drawn or isinstance(module, nn.LayerNorm | nn.RMSNorm) or name in algorithm.ignored:
                continue
            if is_matrix(parameter):
                found[id(parameter)] = (name, is_layer)
    return found


def is_matrix(parameter: Tensor) -> bool:
    """Whether it could multiply otherwise than unit by unit."""
    return parameter.squeeze().ndim > 1


def _multiplied(roots: list[Node | None], matrices: dict[int, tuple[str, bool]]) -> Iterator[str]:
    """Names of the matrices by which an activity is multiplied on whose side a gradient goes on.

    Of every node: the ids of the parameters that it was made of, or None where an activity went in. Images need no gradient
    and so have no node; what a product makes of them is an activity.
    """
    made_of: dict[Node, frozenset[int] | None] = {}
    for node in _from_below(roots):
        if hasattr(node, "variable"):  # AccumulateGrad, of a parameter
            made_of[node] = frozenset({id(node.variable)})
            continue
        is_own = isinstance(
            node, BackwardCFunction
        )  # a Function written in Python; every layer's `connect` is one
        operation = node.name().removesuffix("0").removesuffix("1").removesuffix("Backward")
        inputs = [before for before, _ in node.next_functions]
        parts = [frozenset[int]() if before is None else made_of[before] for before in inputs]
        from_data = is_own or operation in _LOOKED_UP or (operation in _PRODUCTS and None in inputs)
        joins_activity = any(part is None for part in parts)
        made_of[node] = None
        if not from_data and not joins_activity:
            made_of[node] = frozenset[int]().union(*(part for part in parts if part is not None))
        elif joins_activity and operation not in _ADDITIVE:
            for part in parts[1:] if operation in _FIRST_ADDED else parts:
                for name, is_layers in (matrices[each] for each in part or () if each in matrices):
                    if not (is_own and is_layers):
                        yield name


def _from_below(roots: list[Node | None]) -> Iterator[Node]:
    """The nodes of a graph, each after all those that it was made of."""
    seen: set[Node] = set()
    waiting: list[tuple[Node | None, bool]] = [(root, False) for root in roots]
    while waiting:
        node, is_ready = waiting.pop()
        if node is None:
            continue
        if is_ready:
            yield node
        elif node not in seen:
            seen.add(node)
            waiting.append((node, True))
            waiting.extend((before, False) for before, _ in node.next_functions)
