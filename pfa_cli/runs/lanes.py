"""Cells side by side on one GPU: each in a thread of its own, on a CUDA stream of its own.

A small network leaves most of a GPU idle. Processes would take turns on it; the streams of one process share it, and a
recorded step needs Python for microseconds only, so that threads do not get into one another's way.
"""

import queue
import threading
from collections import deque
from collections.abc import Iterable, Sequence

import torch

from pfa_cli.cores import share_cores
from pfa_cli.data import load_dataset
from pfa_cli.errors import PfaError
from pfa_cli.runs.backend import Backend, Report, Setup, Task
from pfa_cli.runs.events import Broken, Event, Said
from pfa_cli.runs.fill import Trial, cells_at_a_time
from pfa_cli.runs.worker import Worker
from pfa_cli.signals import StopRequest
from pfa_cli.store.engine import open_store
from pfa_cli.training.cuda_graph import side_stream
from pfa_cli.training.device import make_repeatable


class Gpu(Backend):
    """Cells side by side on one GPU; how many is found by a trial with the first one."""

    name = "gpu"

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
        workers = self.workers(tasks)
        share_cores(workers)
        Lanes(self.setup, workers, report, stop).run(tasks)

    def _try(self, tasks: Sequence[Task]) -> int:
        first, device = tasks[0].configuration, torch.device(self.setup.device)
        # Photographs come from the disk, which one cell keeps busy.
        if len(tasks) == 1 or not first.dataset_entry.in_memory:
            return 1
        make_repeatable(device)
        trial = Trial(first, load_dataset(first, self.setup.data_dir, device), device)
        return cells_at_a_time(trial.throughput, len(tasks))


class Lanes:
    """Trains cells in ``count`` threads; each takes its next cell when it is through with one."""

    def __init__(self, setup: Setup, count: int, report: Report, stop: StopRequest) -> None:
        """``report`` is called from the thread that calls `run` alone."""
        self._setup, self._count, self._report, self._stop = setup, count, report, stop
        self._waiting: deque[Task] = deque()
        self._said: queue.SimpleQueue[Event | Said | Broken | None] = (
            queue.SimpleQueue()
        )  # None: a lane has ended
        self._broken = False

    def run(self, tasks: Iterable[Task]) -> None:
        """Returns when every task has ended, or, after a signal or a `Broken`, when every lane has."""
        self._waiting.extend(tasks)
        # Daemons: an order to leave at once does not wait for them.
        lanes = [threading.Thread(target=self._lane, daemon=True) for _ in range(self._count)]
        for lane in lanes:
            lane.start()
        left = len(lanes)
        while left:
            event = self._said.get()
            if event is None:
                left -= 1
                continue
            self._broken |= isinstance(event, Broken)
            self._report(event)

    def _lane(self) -> None:
        try:
            device = torch.device(self._setup.device)
            with open_store(self._setup.db, write=True) as store, side_stream(device):
                worker = Worker(store, device, self._setup.data_dir, self._said.put, self._should_stop)
                while not self._should_stop() and (task := self._next()) is not None:
                    self._said.put(worker.run(task))
        except PfaError as error:
            self._said.put(Broken(str(error)))
        except Exception as error:
            self._said.put(Broken(f"{type(error).__name__}: {error}"))
        finally:
            self._said.put(None)

    def _next(self) -> Task | None:
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def _should_stop(self) -> bool:
        return bool(self._stop) or self._broken
