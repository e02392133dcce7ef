"""Cells that train side by side on one stream of images: what is read and decoded once trains them all (`--together`).

With one seed every algorithm sees the same images in the same order, and decoding a photograph takes longer than a step of a
small network. Here each cell has a thread of its own, and the cells of one data set, seed and batch size read the same
batches. Their numbers are those of separate runs, bit for bit.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from threading import BoundedSemaphore, Condition, Lock, get_ident
from typing import NamedTuple

import torch
from torch import Tensor

from pfa_cli.configuration import Configuration
from pfa_cli.cores import physical_cores, share_cores
from pfa_cli.data import WHOLE, Dataset, Part, load_dataset
from pfa_cli.errors import StoppedWaiting
from pfa_cli.runs.backend import Backend, Report, Setup, Task
from pfa_cli.runs.gpu import Lanes
from pfa_cli.runs.worker import Datasets
from pfa_cli.signals import StopRequest
from pfa_cli.training.precision import uses_tf32

_AHEAD = 4  # batches that the fastest cell may be before the slowest one
_WAIT_SECONDS = 1.0  # until a waiting cell looks whether it has to stop, and whether its heartbeat is due

Batch = tuple[Tensor, ...]


def shares_by_default(configurations: Sequence[Configuration], device: torch.device) -> bool:
    """Whether cells read one stream unless the user says otherwise: all are of photographs, and a GPU trains them.

    16 cores decode about 2,000 photographs a second, of which an H200 takes 9,000 to 13,000 (ResNet-18, 224 pixels). A CPU
    takes fewer than it decodes. What is in memory already need not be shared.
    """
    photographs = [not one.dataset_entry.in_memory for one in configurations]
    return device.type == "cuda" and any(photographs) and all(photographs)


class SharedStream(Backend):
    """Groups of cells, one after the other; the cells of a group read one stream."""

    @classmethod
    def fits(cls, setup: Setup) -> bool:
        return setup.together and setup.ranks.size == 1

    def workers(self, tasks: Sequence[Task]) -> int:
        return max((len(group) for group in self._groups(tasks)), default=0)

    def run(self, tasks: Sequence[Task], report: Report, stop: StopRequest) -> None:
        share_cores(1)  # one process decodes for all
        for group in self._groups(tasks):
            if stop:
                return
            lanes = _Lanes(self.setup, len(group), report, stop)
            lanes.run(group)
            if lanes.broken:
                return

    def _groups(self, tasks: Sequence[Task]) -> list[list[Task]]:
        """Tasks of the same images in the same order, ``jobs`` at most, that can train at the same time (see `uses_tf32`)."""
        groups: dict[tuple[object, ...], list[Task]] = {}
        for task in tasks:
            c = task.configuration
            key = (c.dataset_identity, task.seed, c.batch_size, uses_tf32(c.precision))
            groups.setdefault(key, []).append(task)
        size = self.setup.jobs or len(tasks)
        return [group[n : n + size] for group in groups.values() for n in range(0, len(group), size)]


class _Held(NamedTuple):
    """A batch and, on a GPU, an event for each reader that has come back: once it happens, that reader has read the batch."""

    batch: Batch
    read: list[torch.cuda.Event]


class Pass(NamedTuple):
    """One way through the data, in the order in which every cell comes to them."""

    epoch: int
    part: int  # 0: the training images; n: the n-th split, evaluated after them


class Stream:
    """One pass over the data at a time, each batch to every reader that wants it.

    A pass begins when every reader waits for one; it is the earliest that any of them wants, so that the others wait for
    those behind. A reader may enter it at any step.

    On a GPU, batches are made on a CUDA stream of their own, which waits for every reader of a batch before it drops it: so
    the memory is not used again too early. `Tensor.record_stream` would do the same, but fails where a batch is dropped
    while one of its readers records a graph (seen as a crash of the process; pytorch/pytorch issue 193982).
    """

    def __init__(self, readers: int, at_a_time: AbstractContextManager[object], device: torch.device) -> None:
        """``readers``: how many there will be; each ends by `depart`. ``at_a_time``: held by a reader while it has a batch."""
        self._at_a_time = at_a_time
        self._cuda_stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.alone = Lock()  # for what readers ask of the data set itself
        self._changed = Condition()  # guards all that follows
        self._readers = readers  # that have not departed
        self._waiting: dict[object, tuple[Pass, int, Callable[[int], Iterator[Batch]]]] = {}
        self._at: dict[object, int] = {}  # the readers in the pass: at which step each of them is
        self._source: Iterator[Batch] = iter(())
        self._held: deque[_Held] = deque()
        self._first = 0  # the step of the first of these
        self._fetching = self._exhausted = False
        self._error: Exception | None = None

    def read(
        self,
        reader: object,
        wanted: Pass,
        step: int,
        begin: Callable[[int], Iterator[Batch]],
        stop: Callable[[], bool],
    ) -> Generator[Batch]:
        """The batches of a pass from ``step`` on, to be read in one thread.

        ``begin`` makes the pass from a step on, if no other reader's does; what that raises, every reader of the pass raises.
        ``stop`` is asked while waiting; StoppedWaiting once it says so.
        """
        try:
            with self._changed:
                self._waiting[reader] = wanted, step, begin
                self._begin_if_all_wait()
                while reader not in self._at:
                    self._wait(stop)
            while (held := self._take(reader, stop)) is not None:
                try:
                    with self._at_a_time:
                        yield held.batch
                finally:
                    if self._cuda_stream is not None:
                        held.read.append(torch.cuda.current_stream(self._cuda_stream.device).record_event())
                with self._changed:
                    self._at[reader] += 1
                    self._drop_read()
        finally:
            with self._changed:
                self._waiting.pop(reader, None)
                self._at.pop(reader, None)
                self._drop_read()
                self._begin_if_all_wait()

    def depart(self) -> None:
        """A reader reads no more; the others do not wait for it."""
        with self._changed:
            self._readers -= 1
            self._begin_if_all_wait()

    def _begin_if_all_wait(self) -> None:
        self._changed.notify_all()
        if self._at or not self._waiting or len(self._waiting) < self._readers:
            return
        earliest = min(wanted for wanted, _, _ in self._waiting.values())
        entering = [reader for reader, (wanted, _, _) in self._waiting.items() if wanted == earliest]
        found = {reader: self._waiting.pop(reader) for reader in entering}
        self._at = {reader: step for reader, (_, step, _) in found.items()}
        self._first = min(self._at.values())
        self._exhausted, self._error = False, None
        self._source = found[entering[0]][2](self._first)

    def _take(self, reader: object, stop: Callable[[], bool]) -> _Held | None:
        """The reader's next batch; None after the last."""
        with self._changed:
            while True:
                ahead = self._at[reader] - self._first
                if ahead < len(self._held):
                    return self._held[ahead]
                if self._error is not None:
                    raise self._error
                if self._exhausted:
                    return None
                if self._fetching or len(self._held) > _AHEAD:
                    self._wait(stop)
                else:
                    self._fetch()

    def _fetch(self) -> None:
        """Takes one batch from the source; the lock is not held meanwhile."""
        self._fetching = True
        self._changed.release()
        batch, error = None, None
        try:
            with torch.cuda.stream(self._cuda_stream):
                batch = next(self._source, None)
            if self._cuda_stream is not None:
                self._cuda_stream.synchronize()
        except Exception as found:
            error = found
        finally:
            self._changed.acquire()
            self._fetching = False
        if batch is not None:
            self._held.append(_Held(batch, []))
        self._error, self._exhausted = error, batch is None
        self._drop_read()
        self._changed.notify_all()

    def _drop_read(self) -> None:
        """Drops what every reader of the pass has read, or passed over."""
        least = min(self._at.values(), default=self._first + len(self._held))
        while self._held and self._first < least:
            for event in self._held.popleft().read:
                assert self._cuda_stream is not None
                self._cuda_stream.wait_event(event)
            self._first += 1
            self._changed.notify_all()

    def _wait(self, stop: Callable[[], bool]) -> None:
        self._changed.wait(_WAIT_SECONDS)
        if stop():
            raise StoppedWaiting("stopped while waiting for a batch of images")


class Reader(Dataset):
    """One cell's view of the data set: the same, but its batches come from the stream. See `pfa_cli.data.Dataset`."""

    def __init__(self, dataset: Dataset, stream: Stream, stop: Callable[[], bool]) -> None:
        self.name, self.description = dataset.name, dataset.description
        self.n_classes, self.input_shape = dataset.n_classes, dataset.input_shape
        self.train_size, self.splits, self.device = dataset.train_size, dataset.splits, dataset.device
        self._dataset, self._stream, self._stop = dataset, stream, stop
        self._key = object()  # of this reader in the stream
        self._reading: Generator[Batch] | None = None
        self._epoch = 0  # the one that the cell trained last

    def steps_per_epoch(self, batch_size: int) -> int:
        return self._dataset.steps_per_epoch(batch_size)

    def requests(
        self, seed: int, epoch: int, batch_size: int, start_step: int = 0, part: Part = WHOLE
    ) -> Iterator[Batch]:
        def begin(step: int) -> Iterator[Batch]:
            return self._dataset.requests(seed, epoch, batch_size, step, part)

        self._epoch = epoch
        return self._read(Pass(epoch, 0), start_step, begin, self._stop)

    def batch(self, *request: Tensor) -> tuple[Tensor, Tensor]:
        return self._dataset.batch(*request)

    def evaluation_batches(
        self, split: str, batch_size: int | None = None, part: Part = WHOLE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        size = {} if batch_size is None else {"batch_size": batch_size}

        def begin(step: int) -> Iterator[Batch]:
            return self._dataset.evaluation_batches(split, part=part, **size)

        after_training = Pass(self._epoch, 1 + self.splits.index(split))
        for images, labels in self._read(after_training, 0, begin, lambda: False):
            yield images.clone(), labels  # a network may work in place

    def probe(self, n: int) -> tuple[Tensor, Tensor]:
        with self._stream.alone:
            found = self._dataset.probe(n)
            if self.device.type == "cuda":  # the data set may keep it for readers on other CUDA streams
                torch.cuda.current_stream(self.device).synchronize()
            return found

    def close(self) -> None:
        """Ends what is being read."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def _read(
        self, wanted: Pass, step: int, begin: Callable[[int], Iterator[Batch]], stop: Callable[[], bool]
    ) -> Iterator[Batch]:
        self.close()
        with closing(self._stream.read(self._key, wanted, step, begin, stop)) as self._reading:
            yield from self._reading


class _Readers(Datasets):
    """The data set of a group, loaded once; each cell gets a view of it."""

    def __init__(self, stream: Stream, stop: Callable[[], bool]) -> None:
        super().__init__()
        self._stream, self._stop = stream, stop
        self._dataset: Dataset | None = None
        self._of_lane: dict[int, Reader] = {}  # by thread

    def load(self, configuration: Configuration, data_dir: Path, device: torch.device) -> Dataset:
        with self._lock:
            if self._dataset is None:
                self._dataset = load_dataset(configuration, data_dir, device)
                if device.type == "cuda":  # other threads use it on streams of their own
                    torch.cuda.current_stream(device).synchronize()
            reader = self._of_lane[get_ident()] = Reader(self._dataset, self._stream, self._stop)
            return reader

    def close(self) -> None:
        """This thread reads no more."""
        if (reader := self._of_lane.pop(get_ident(), None)) is not None:
            reader.close()
        self._stream.depart()


class _Lanes(Lanes):
    """A lane for each cell of a group."""

    def __init__(self, setup: Setup, count: int, report: Report, stop: StopRequest) -> None:
        super().__init__(setup, count, report, stop)
        # A CPU's cores are kept busy by as many; the others' steps would only push one another out of its caches.
        on_cpu = self._device.type == "cpu"
        at_a_time = BoundedSemaphore(physical_cores()) if on_cpu else nullcontext()
        stream = Stream(count, at_a_time, self._device)
        self._datasets: _Readers = _Readers(stream, self._should_stop)

    def _lane(self) -> None:
        try:
            super()._lane()
        finally:
            self._datasets.close()
