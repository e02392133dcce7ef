"""A CUDA graph's contract, kept on the CPU: kernels recorded once run again, with their addresses and scalars, without Python.

What a graph cannot do fails here too: a number that Python computed stays what it was, a tensor made anew is not seen, and
asking the device for a number while recording is an error.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

# What makes the host wait for the device: a number, or a shape that depends on one.
WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "unique2",
    "_unique2",
    "unique_dim",
    "masked_select",
    "equal",
    "is_nonzero",
}


def tape(work: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
    """A `pfa_cli.training.cuda_graph.Recorder`."""
    states = [generator.get_state() for generator in generators]
    with _Recording(generators) as recording:
        work()
    recording.undo()
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
    return recording.play


class _Recording(TorchDispatchMode):
    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self._generators = generators
        self._kernels: list[tuple[Callable[..., Any], Any, Any, Any]] = []
        self._overwritten: dict[int, tuple[Tensor, Tensor]] = {}  # by address: a tensor and what was in it

    def __torch_dispatch__(self, kernel: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = kernel._schema.name.removeprefix("aten::")
        if name in WAITING:
            raise AssertionError(f"{name} waits for the device: a CUDA graph cannot record that")
        generator = kwargs.get("generator")
        # Compared by their seeds: every call wraps the generator in an object of its own.
        known = generator is None or generator.initial_seed() in [g.initial_seed() for g in self._generators]
        assert known, "an unregistered generator"
        for written in _written(kernel, args, kwargs):
            self._overwritten.setdefault(written.data_ptr(), (written, written.clone()))
        result = kernel(*args, **kwargs)
        self._kernels.append((kernel, args, kwargs, result))
        return result

    def undo(self) -> None:
        """A CUDA graph does not do what it records."""
        with torch.no_grad():
            for tensor, before in self._overwritten.values():
                tensor.copy_(before)

    @torch.no_grad()
    def play(self) -> None:
        for kernel, args, kwargs, result in self._kernels:
            again = kernel(*args, **kwargs)
            for old, new in zip(_tensors(result), _tensors(again), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _written(kernel: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    if kernel._schema.name == "aten::native_batch_norm":  # its schema does not tell of the running statistics
        yield from _tensors(args[3:5])
    for argument, value in zip(kernel._schema.arguments, args, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from _tensors(value)
    for argument in kernel._schema.arguments:
        if argument.name in kwargs and argument.alias_info is not None and argument.alias_info.is_write:
            yield from _tensors(kwargs[argument.name])


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]
