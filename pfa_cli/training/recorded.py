"""A training step as a CUDA graph: recorded once, then replayed without Python, which is slower than a small network.

What a recording holds are kernels, their scalar arguments and the addresses of their tensors. So a step can be recorded if
it does all of its work in kernels, changes its state in place, and never asks the device for a number; and it must be
recorded anew when a number that Python hands to a kernel changes, such as the learning rate.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor

Recorder = Callable[[Callable[[], None], Sequence[torch.Generator]], Callable[[], None]]
"""Takes work on the device, and the generators it draws from; returns what does that work again. Does not do it itself."""

EAGER_STEPS = 3

ONE_RECORDS = Lock()
"""Held while a graph is recorded: memory must not be given back meanwhile, by any thread."""


class RecordedStep:
    """``step``, a function of tensors of fixed shapes, as a recording of ``record``.

    The first steps are done by ``step`` itself: libraries choose their kernels then, and the optimiser makes its state.
    """

    def __init__(self, step: Callable[..., None], record: Recorder) -> None:
        self._step, self._record = step, record
        self._eager_left = EAGER_STEPS
        self._inputs: list[Tensor] = []
        self._replay: Callable[[], None] | None = None

    def __call__(self, inputs: Sequence[Tensor], generators: Sequence[torch.Generator] = ()) -> None:
        """One step on ``inputs``, which may be overwritten as soon as this returns; does not wait for it."""
        if self._eager_left:
            self._eager_left -= 1
            self._step(*inputs)
            return
        if self._replay is None:
            self._inputs = [tensor.clone() for tensor in inputs]
            self._replay = self._record(lambda: self._step(*self._inputs), generators)
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given, non_blocking=True)
        self._replay()

    def forget(self) -> None:
        """The recording no longer holds: a number in the step has changed, or where its state lies."""
        self._replay = None


def cuda_graphs(device: torch.device) -> Recorder:
    """The recorder of an NVIDIA GPU; to be used within `side_stream`."""

    def record(work: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        stream = torch.cuda.current_stream(device)
        # Other threads may go on with cells of their own: only this one is forbidden to wait for the device.
        with ONE_RECORDS, torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            work()
        return graph.replay

    return record


@contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Within it, work on a GPU is not on the default stream, where nothing can be recorded; it follows what was there before.

    The steps before a recording belong there too: what autograd keeps of them would lead the recording astray.
    """
    if device.type == "cpu" or torch.cuda.current_stream(device) != torch.cuda.default_stream(device):
        yield
        return
    before, stream = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    stream.wait_stream(before)
    with torch.cuda.stream(stream):
        yield
    before.wait_stream(stream)
