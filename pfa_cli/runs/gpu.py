"""Cells side by side on one GPU: each in a thread of its own, on a CUDA stream of its own. Such a thread is a lane.

A small network leaves most of a GPU idle. Processes would take turns on it; the streams of one process share it, and a
recorded step needs Python for microseconds only, so that threads do not get into one another's way.
"""

import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Barrier, Lock, Thread, get_ident

import torch

from pfa_cli.configuration import Configuration
from pfa_cli.cores import share_cores
from pfa_cli.data import Dataset
from pfa_cli.errors import PfaError, UsageError
from pfa_cli.runs.backend import Backend, Report, Setup, Task
from pfa_cli.runs.events import Broken, Ended, Event, Note, Said
from pfa_cli.runs.worker import Datasets, Worker
from pfa_cli.signals import StopRequest
from pfa_cli.store.engine import open_store
from pfa_cli.training.cuda_graph import EAGER_STEPS, release_memory, side_stream
from pfa_cli.training.device import make_repeatable
from pfa_cli.training.precision import uses_tf32
from pfa_cli.training.trainer import Trainer

WORTH_IT = 1.1  # what twice the cells must gain in steps per second for a trial with twice as many again
_NOT_MANY_MORE = 2  # times the most that were tried
_ABOUT = 1.05
TRIAL_SECONDS = 0.5
_BETWEEN_WAITS = 20  # steps of a trial, so that waiting for them costs little


class Gpu(Backend):
    """Cells side by side on one GPU; a trial with the first one finds how many, and what another precision would do."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._found: int | None = setup.jobs

    @classmethod
    def fits(cls, setup: Setup) -> bool:
        return torch.device(setup.device).type == "cuda"

    def workers(self, tasks: Sequence[Task]) -> int:
        if self._found is None:
            self._found = self._try(tasks)
        return min(self._found, len(tasks))

    def run(self, tasks: Sequence[Task], report: Report, stop: StopRequest) -> None:
        groups: dict[tuple[bool, bool], list[Task]] = {}  # whose cells can train at the same time
        for task in tasks:
            groups.setdefault(uses_tf32(task.configuration.precision), []).append(task)
        for group in groups.values():
            if not stop:
                share_cores(self.workers(group))
                lanes = Lanes(self.setup, self.workers(group), report, stop)
                lanes.run(group)
                if lanes.broken:
                    return

    def _try(self, tasks: Sequence[Task]) -> int:
        first, device = tasks[0].configuration, torch.device(self.setup.device)
        # Photographs come from the disk, which one cell keeps busy.
        if not first.dataset_entry.in_memory:
            return 1
        make_repeatable(device)
        dataset = Datasets().load(first, self.setup.data_dir, device)
        try:
            with trial(first, dataset, device, eager=self.setup.eager) as throughput:
                cells, alone = cells_at_a_time(throughput, len(tasks))
            others = other_precisions(first, dataset, device, eager=self.setup.eager)
        except Exception:  # the cell itself will meet it, and what became of it is stored and told
            return 1
        self.notes += filter(None, [precision_note(first.precision, alone, others)])
        return cells


class Lanes:
    """Trains cells in up to ``count`` threads; each takes its next cell when it is through with one.

    A cell that runs out of memory beside others is put back, and its lane ends, so that fewer are trained at a time; one
    that runs out of memory alone has failed. ``broken``: no more can be done.
    """

    def __init__(self, setup: Setup, count: int, report: Report, stop: StopRequest) -> None:
        """``report`` is called from the thread that calls `run` alone."""
        self._setup, self._count, self._report, self._stop = setup, count, report, stop
        self._device, self._datasets = torch.device(setup.device), Datasets()
        # What the lanes report; None: one of them ended.
        self._said: queue.SimpleQueue[Event | Said | Broken | None] = queue.SimpleQueue()
        self._lock = Lock()  # of the three below
        self._waiting: deque[Task] = deque()
        self._busy: set[int] = set()  # lanes that train a cell
        # Those of them that have not had the GPU to themselves since their cell began.
        self._accompanied: set[int] = set()
        self.broken = False

    def run(self, tasks: Sequence[Task]) -> None:
        """Returns when every task has ended, or, after a signal or a `Broken`, when every lane has."""
        self._waiting.extend(tasks)
        # Daemons: an order to leave at once does not wait for them.
        lanes = [Thread(target=self._lane, daemon=True) for _ in range(self._count)]
        for lane in lanes:
            lane.start()
        left = len(lanes)
        while left:
            event = self._said.get()
            if event is None:
                left -= 1
                continue
            self._report(event)

    def _lane(self) -> None:
        try:
            with open_store(self._setup.db, write=True, create=False) as store, side_stream(self._device):
                worker = Worker(
                    store, self._setup, self._said.put, self._should_stop,
                    self._datasets, self._again, lanes=self._count,
                )  # fmt: skip
                while not self._should_stop() and (task := self._next()) is not None:
                    ended = worker.run(task)
                    if ended is not None or self._should_stop():
                        self._said.put(ended or Ended(task.cell, "interrupted"))
                    elif self._put_back(task):
                        return
        except PfaError as error:
            self._end_all(str(error))
        except Exception as error:
            self._end_all(f"{type(error).__name__}: {error}")
        finally:
            self._said.put(None)

    def _next(self) -> Task | None:
        with self._lock:
            self._busy.discard(get_ident())
            self._accompanied.discard(get_ident())
            if not self._waiting:
                return None
            self._busy.add(get_ident())
            if len(self._busy) > 1:
                self._accompanied |= self._busy
            return self._waiting.popleft()

    def _put_back(self, task: Task) -> bool:
        """Leaves the task to whoever has room for it next; whether this lane shall end, since others go on."""
        with self._lock:
            self._waiting.appendleft(task)
            self._busy.discard(get_ident())
            self._accompanied.discard(get_ident())
            others = len(self._busy)
        what = "when fewer are trained at a time" if others else "alone"
        self._said.put(Note(task.cell, f"out of memory beside other cells: trained again {what}"))
        if not others:
            release_memory(self._device, idle=True)
        return others > 0

    def _again(self, error: Exception) -> bool:
        """Whether a cell that ended by ``error`` is to be trained again and not failed."""
        if isinstance(error, torch.OutOfMemoryError):
            with self._lock:
                return get_ident() in self._accompanied
        if isinstance(error, RuntimeError) and _lost(self._device):
            self._end_all(
                f"{self._device} can do nothing more for this process ({str(error).splitlines()[0]}), so all cells on it end. "
                "The same command resumes them from their last checkpoints"
            )
            return True
        return False

    def _end_all(self, reason: str) -> None:
        with self._lock:
            told, self.broken = self.broken, True
        if not told:
            self._said.put(Broken(reason))

    def _should_stop(self) -> bool:
        return bool(self._stop) or self.broken


def _lost(device: torch.device) -> bool:
    """Whether the GPU fails at everything, as after an illegal access to memory; CUDA then helps no thread of the process."""
    if device.type != "cuda":
        return False
    try:
        torch.cuda.current_stream(device).synchronize()
    except RuntimeError:
        return True
    return False


# How many lanes


def cells_at_a_time(throughput: Callable[[int], float], most: int) -> tuple[int, float]:
    """How many of ``most`` equal cells to train at a time, and the steps per second of one alone.

    Tries 1, 2, 4, … while that is worth it, and then all of them where they are not many more: else few are left at the end,
    which do not fill the GPU. Takes the smallest number with which all are done about as soon as with any.

    ``throughput``: steps per second of that many cells together; running out of memory ends the search.
    """
    speeds = {1: throughput(1)}
    with suppress(torch.OutOfMemoryError):
        while 2 * max(speeds) <= most:
            cells = 2 * max(speeds)
            speeds[cells] = throughput(cells)
            if speeds[cells] < WORTH_IT * speeds[cells // 2]:
                break
        if max(speeds) < most <= _NOT_MANY_MORE * max(speeds):
            speeds[most] = throughput(most)
    times = {cells: _time(most, cells, speeds) for cells in speeds}
    return next(cells for cells in sorted(times) if times[cells] <= _ABOUT * min(times.values())), speeds[1]


def _time(number: int, cells: int, speeds: Mapping[int, float]) -> float:
    """What ``number`` equal cells take, so many ``cells`` at a time, in units of a cell's steps."""
    left = number % cells
    for_left = speeds[max(n for n in speeds if n <= left)] if left else 1.0
    return (number - left) / speeds[cells] + left / for_left


def other_precisions(
    configuration: Configuration,
    dataset: Dataset,
    device: torch.device,
    seconds: float = TRIAL_SECONDS,
    eager: bool = False,
) -> dict[str, float]:
    """Steps per second of a cell alone in TF32 and in bf16, where it is not in that already and the device has it."""
    found = {}
    for name in ("tf32", "bf16"):
        if name == configuration.precision:
            continue
        other = configuration.model_copy(update={"precision": name})
        with (
            suppress(UsageError, torch.OutOfMemoryError),
            trial(other, dataset, device, seconds, eager) as throughput,
        ):
            found[name] = throughput(1)
    return found


def precision_note(precision: str, speed: float, others: Mapping[str, float]) -> str | None:
    """The speed of a cell alone, and that in the precisions that are faster; None if none is."""
    faster = sorted((other, name) for name, other in others.items() if other >= WORTH_IT * speed)
    if not faster:
        return None
    would = ", ".join(f"--precision {name} would do {other:,.0f}" for other, name in faster)
    return f"note: a cell in {precision} does {speed:,.0f} steps/s here; {would}"


@contextmanager
def trial(
    configuration: Configuration,
    dataset: Dataset,
    device: torch.device,
    seconds: float = TRIAL_SECONDS,
    eager: bool = False,
) -> Iterator[Callable[[int], float]]:
    """A function that trains so many copies of a cell side by side for ``seconds``, and gives their steps per second.

    It does all that a cell does in an epoch, so that it needs the memory that cells need; evaluation and metrics are not
    timed. The copies are kept until the end.
    """
    trainers: list[Trainer] = []

    def throughput(cells: int) -> float:
        barrier, speeds, failed = Barrier(cells), [0.0] * cells, []

        def train(lane: int) -> None:
            try:
                with side_stream(device):
                    speeds[lane] = _steps_per_second(trainers[lane], barrier, seconds)
            except Exception as error:  # a thread's error would only be printed
                failed.append(error)
                barrier.abort()

        while len(trainers) < cells:
            trainers.append(Trainer(configuration, dataset, len(trainers), device, eager=eager))
        threads = [Thread(target=train, args=(lane,), daemon=True) for lane in range(cells)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
        return sum(speeds)

    try:
        yield throughput
    finally:
        trainers.clear()
        release_memory(device, idle=True)


def _steps_per_second(trainer: Trainer, barrier: Barrier, seconds: float) -> float:
    """The speed of one lane, once all are ready."""
    size = trainer.configuration.batch_size
    request = next(iter(trainer.dataset.requests(0, 1, size)))
    trainer.measure()
    trainer.begin_epoch(1)
    for _ in range(EAGER_STEPS + 1):
        trainer.advance(request)
    trainer.wait()
    barrier.wait()
    done, passed, since = 0, 0.0, time.perf_counter()
    while passed < seconds:
        for _ in range(_BETWEEN_WAITS):
            trainer.advance(request)
        trainer.wait()
        done, passed = done + _BETWEEN_WAITS, time.perf_counter() - since
    trainer.measure()
    return done / passed
