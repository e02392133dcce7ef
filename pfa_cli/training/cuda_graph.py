"""Work on a GPU as a CUDA graph: recorded once, then replayed without Python, which is slower than a small network.

What a recording holds are kernels, their scalar arguments and the addresses of their tensors. So work can be recorded if it
is all done in kernels, changes its state in place, and never asks the device for a number; and it must be recorded again
when a number that Python hands to a kernel changes, such as the learning rate.

While one thread records, memory of the GPU must not be given back, least of all by that thread: CUDA then ends the recording
with an error. Three rules keep to that. Recordings are made one at a time, under a lock, with Python's garbage collector
off. `release_memory` takes the same lock. And a graph that nobody needs any more, whichever thread drops it, is kept in a list
until someone who holds the lock empties it.

Nor may another thread do its work directly meanwhile: autograd does the backward passes of all threads in one thread of its
own, and there cuDNN would meet a stream that records and one that does not (seen on an H200 in fp32: internal error of
cuDNN). So that takes the lock too (`undisturbing`); replays do not.
"""

import gc
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from threading import RLock
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor

from pfa_cli.errors import PfaError

Recorder = Callable[[Callable[[], None], Sequence[torch.Generator]], Callable[[], None]]
"""Takes work on the device, and the generators it draws from; returns what does that work again. Does not do it itself."""

EAGER_STEPS = 3

_lock = RLock()
_dropped: list[torch.cuda.CUDAGraph] = []  # graphs to be freed by the next who holds the lock
_idle_streams: defaultdict[torch.device, list[torch.cuda.Stream]] = defaultdict(list)


class NotRecorded(PfaError):
    """The work cannot be recorded here, or its recording does not do what the work does. It has not been done.

    ``generators``: the states that its generators had, which a failed recording may have left unusable.
    """

    def __init__(self, reason: str, generators: Sequence[Tensor]) -> None:
        super().__init__(reason)
        self.generators = generators


class Recorded:
    """Work, a function of tensors, as a recording of ``record`` for tensors of the shapes that come most often.

    The first ``eager_steps`` calls do the work directly: libraries choose their kernels then, and the optimiser makes its
    state. The next one records it. Inputs of other shapes than those recorded are always worked on directly.
    """

    def __init__(self, record: Recorder, eager_steps: int = EAGER_STEPS) -> None:
        self._record, self._eager_left = record, eager_steps
        self._inputs: list[Tensor] = []
        self._replay: Callable[[], None] | None = None

    def __call__(
        self,
        work: Callable[..., None],
        inputs: Sequence[Tensor],
        generators: Sequence[torch.Generator] = (),
        changes: Callable[[], Iterable[Tensor]] | None = None,
    ) -> None:
        """Does ``work`` on ``inputs``, which may be overwritten as soon as this returns; does not wait for it.

        Args:
            work: the same at every call until `forget`.
            inputs: its arguments.
            generators: those that it draws from.
            changes: gives every tensor that ``work`` changes. With it, a new recording is first compared with the work
                itself: two steps each, from one state, bit for bit.

        Raises:
            NotRecorded: nothing was done; go on without a recording.
            torch.OutOfMemoryError: nothing was done either.
        """
        if self._eager_left:
            self._eager_left -= 1
            with undisturbing():
                work(*inputs)
            return
        if self._replay is None:
            self._inputs = [tensor.clone() for tensor in inputs]
            self._replay = self._recording(work, generators, changes)
        if [tensor.shape for tensor in inputs] != [tensor.shape for tensor in self._inputs]:
            with undisturbing():
                work(*inputs)
            return
        for held, given in zip(self._inputs, inputs, strict=True):
            held.copy_(given, non_blocking=True)
        self._replay()

    @property
    def recorded(self) -> bool:
        """Whether there is a recording now."""
        return self._replay is not None

    def forget(self) -> None:
        """The recording no longer holds: a number in the work has changed, or where its tensors lie."""
        self._replay = None
        _free_dropped()

    def _recording(
        self,
        work: Callable[..., None],
        generators: Sequence[torch.Generator],
        changes: Callable[[], Iterable[Tensor]] | None,
    ) -> Callable[[], None]:
        states = [generator.get_state() for generator in generators]
        try:
            replay = self._record(lambda: work(*self._inputs), generators)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise NotRecorded(f"it could not be recorded ({_first_line(error)})", states) from error
        if changes is not None:
            before = _State(changes(), generators)
            with undisturbing():
                for _ in range(2):
                    work(*self._inputs)
            eager = _State(changes(), generators)
            before.put_back()
            for _ in range(2):
                replay()
            same = _State(changes(), generators) == eager
            before.put_back()
            if not same:
                raise NotRecorded("its recording does not repeat it bit for bit", states)
        return replay


class _State:
    """What tensors and generators hold at one moment, copied to the host's memory, since a GPU's may be full."""

    def __init__(self, tensors: Iterable[Tensor], generators: Sequence[torch.Generator]) -> None:
        self._tensors, self._generators = [tensor.detach() for tensor in tensors], generators
        self._values = [tensor.to("cpu", copy=True) for tensor in self._tensors]
        self._states = [generator.get_state() for generator in generators]

    def put_back(self) -> None:
        for tensor, value in zip(self._tensors, self._values, strict=True):
            # What has not changed is not written: DFA keeps tables of its D until D's version counter moves.
            if not torch.equal(_bits(tensor.cpu()), _bits(value)):
                tensor.copy_(value)
        for generator, state in zip(self._generators, self._states, strict=True):
            generator.set_state(state)

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, _State)
        pairs = zip([*self._values, *self._states], [*other._values, *other._states], strict=True)
        return all(torch.equal(_bits(ours), _bits(theirs)) for ours, theirs in pairs)


def _bits(tensor: Tensor) -> Tensor:
    """The bytes of ``tensor``: NaN equals itself, and 0 is not -0."""
    return tensor.contiguous().flatten().view(torch.uint8)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class _Graph:
    """A CUDA graph that is freed only where that disturbs no recording."""

    def __init__(self) -> None:
        self.graph = torch.cuda.CUDAGraph()

    def __del__(self, dropped: list[torch.cuda.CUDAGraph] = _dropped) -> None:
        dropped.append(self.graph)  # not freed here: the collector may run this in any thread, at any moment

    def replay(self) -> None:
        self.graph.replay()


def cuda_graphs(device: torch.device) -> Recorder:
    """A recorder of an NVIDIA GPU, to be used within `side_stream`; its recordings share their working memory.

    So only one of them may run at a time, and nothing may be kept in a tensor that was made in one.
    """
    pool = torch.cuda.graph_pool_handle()
    alive: WeakSet[_Graph] = WeakSet()  # those of the pool

    def record(work: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
        nonlocal pool
        failure: Exception | None = None
        stream = torch.cuda.current_stream(device)
        with _lock, _collector_off():
            _free_dropped()
            if not alive:  # a pool whose last graph is gone cannot be used again
                pool = torch.cuda.graph_pool_handle()
            recording = _Graph()
            if _NEEDS_REGISTRATION:
                for generator in generators:
                    recording.graph.register_generator_state(generator)
            try:
                # Other threads may go on with cells of their own: only this one is forbidden to wait for the device.
                with torch.cuda.graph(
                    recording.graph, pool, stream=stream, capture_error_mode="thread_local"
                ):
                    try:
                        work()
                    except Exception as error:
                        failure = error
                        raise
            except Exception as error:
                alive.clear()  # a new pool: before torch 2.14 the old one stays in use by what failed
                pool = torch.cuda.graph_pool_handle()
                # Ending a recording that has failed fails too; what failed first says why.
                raise (failure or error) from None
            finally:
                failure = None  # its traceback holds this frame
        alive.add(recording)
        return recording.replay

    return record


# From 2.14 on torch does it by itself, and warns of the call.
_NEEDS_REGISTRATION = tuple(int(n) for n in torch.__version__.split(".")[:2]) < (2, 14)


def collect_without_modules(device: torch.device) -> None:
    """To be called once, before anything is trained on ``device``: on a GPU, makes the collections before recordings short.

    They would look through all that the imported modules hold, 0.1 to 0.2 s each time, while all cells wait.
    """
    if device.type == "cuda":
        torch.optim.SGD([torch.zeros(1)])  # imports half of torch when the first one is made
        gc.freeze()


@contextmanager
def _collector_off() -> Iterator[None]:
    """Within it, Python's garbage collector does not run by itself; what there is to collect was collected before."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def undisturbing() -> Iterator[None]:
    """Within it, work on the device is done directly, and no thread records meanwhile."""
    with _lock:
        yield


def release_memory(device: torch.device, *, idle: bool = False) -> None:
    """Gives back to a GPU what no tensor and no graph needs any more; nothing is needed on the CPU.

    ``idle``: no other thread uses the device, and no graph is left. Then cuBLAS's working memory, some 32 MB for each
    stream that was ever used, is given back too.
    """
    if device.type != "cuda":
        return
    gc.collect()
    with _lock:
        _free_dropped()
        if idle:
            torch.cuda.current_stream(device).synchronize()
            torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()


def _free_dropped() -> None:
    with _lock:
        _dropped.clear()


@contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """Within it, work on a GPU is not on the default stream, where nothing can be recorded; it follows what was there before.

    All that belongs to one cell is done there, its network and optimiser made there too: what autograd keeps of the steps
    before a recording would lead the recording astray. A stream that has been left serves the next who needs one, since
    the libraries keep working memory for each.
    """
    if device.type != "cuda" or torch.cuda.current_stream(device) != torch.cuda.default_stream(device):
        yield
        return
    before, idle = torch.cuda.current_stream(device), _idle_streams[device]
    try:
        stream = idle.pop()
    except IndexError:
        stream = torch.cuda.Stream(device)
    stream.wait_stream(before)
    try:
        with torch.cuda.stream(stream):
            yield
        before.wait_stream(stream)
    finally:
        idle.append(stream)


class _OnDevice(Protocol):
    device: torch.device


_Self = TypeVar("_Self", bound=_OnDevice)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def on_side_stream(
    method: Callable[Concatenate[_Self, _Arguments], _Result],
) -> Callable[Concatenate[_Self, _Arguments], _Result]:
    """A method done within `side_stream` of its object's device."""

    @wraps(method)
    def within(self: _Self, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Any:
        with side_stream(self.device):
            return method(self, *args, **kwargs)

    return within
