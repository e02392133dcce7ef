"""Worker processes, each at the end of a pipe of its own.

A pipe each, not one queue for all: a worker killed while it holds the queue's lock would silence the others.
"""

import contextlib
import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from threading import Thread

from pfa_cli.cores import physical_cores, share_cores
from pfa_cli.runs.backend import Backend, Report, Setup, Task
from pfa_cli.runs.events import Broken, Ended, EpochDone, Event, Note, Said
from pfa_cli.runs.worker import give_up, work
from pfa_cli.signals import StopRequest, call_guarded, signals_blocked, start_resource_tracker, stop_signals

_WAIT_SECONDS = 0.2  # at most, until the parent passes a signal on
# Exit codes of a worker that a signal stopped; the last one if SIGTERM comes while Python shuts down.
_STOPPED = (0, 128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGTERM)
_MOST_DEATHS = 2  # of workers on one cell, without an epoch between them, after which the cell has failed


class Processes(Backend):
    """Cells side by side, each in a process of its own; a single one in this process."""

    @classmethod
    def fits(cls, setup: Setup) -> bool:
        return True

    def workers(self, tasks: Sequence[Task]) -> int:
        return min(self.setup.jobs or physical_cores(), len(tasks))

    def run(self, tasks: Sequence[Task], report: Report, stop: StopRequest) -> None:
        workers = self.workers(tasks)
        if workers == 1:
            work(self.setup, takewhile(lambda _: not stop, tasks), report, lambda: bool(stop))
        else:
            Pool(self.setup, workers, report, stop).run(tasks)


@dataclass
class _Member:
    process: SpawnProcess
    pipe: Connection
    task: Task | None = None  # what it trains now


class Pool:
    """Trains cells in up to ``jobs`` processes; each gets its next cell when it is through with one."""

    def __init__(self, setup: Setup, jobs: int, report: Report, stop: StopRequest) -> None:
        self._setup, self._jobs, self._report, self._stop = setup, jobs, report, stop
        self._context = multiprocessing.get_context("spawn")
        self._members: list[_Member] = []
        self._waiting: deque[Task] = deque()
        self._deaths: Counter[int] = Counter()

    def run(self, tasks: Iterable[Task]) -> None:
        """Returns when every task has ended, or, after a signal or a `Broken`, when every worker has."""
        self._waiting.extend(tasks)
        asked = False
        try:
            self._start_missing()
            while self._members:
                ready = connection.wait([member.pipe for member in self._members], timeout=_WAIT_SECONDS)
                for member in [member for member in self._members if member.pipe in ready]:
                    self._listen(member)
                if self._stop and not asked:
                    # SIGTERM: the terminal sent Ctrl-C to the workers too, and a second SIGINT exits without saving.
                    asked = True
                    stopping = (
                        "stopping: every worker finishes its step and saves; Ctrl-C again leaves at once"
                    )
                    self._report(Said(stopping))
                    self._waiting.clear()
                    for member in self._members:
                        member.process.terminate()
        finally:
            for member in self._members:  # only after an error here are there any left
                member.process.terminate()
                member.pipe.close()
            for member in self._members:
                member.process.join()

    def _start_missing(self) -> None:
        start_resource_tracker()
        while self._waiting and len(self._members) < self._jobs and not self._stop:
            ours, theirs = self._context.Pipe()
            setup = replace(self._setup, jobs=self._jobs)
            entry = (__name__, _work.__name__, theirs)
            process = self._context.Process(target=call_guarded, args=entry, name="pfa worker")
            with signals_blocked():
                process.start()
            theirs.close()  # so that the pipe ends when the worker does
            # Not among the arguments, which a process unpickles before it handles signals.
            with contextlib.suppress(OSError):
                ours.send(setup)
            self._members.append(_Member(process, ours))
            self._give(self._members[-1])

    def _give(self, member: _Member) -> None:
        """Sends the next task, or None: no task is left."""
        member.task = self._waiting.popleft() if self._waiting and not self._stop else None
        with contextlib.suppress(OSError):  # it is dead, and `_listen` will see the end of its pipe
            member.pipe.send(member.task)

    def _listen(self, member: _Member) -> None:
        try:
            event = member.pipe.recv()
        except (EOFError, OSError):
            self._gone(member)
            return
        if isinstance(event, Broken):
            self._waiting.clear()
            member.task = None
        self._report(event)
        if isinstance(event, EpochDone):
            del self._deaths[event.cell]
        if isinstance(event, Ended):
            self._give(member)

    def _gone(self, member: _Member) -> None:
        """The worker ended: as it was told to, or in the middle of a cell, which another worker resumes."""
        member.process.join()
        member.pipe.close()
        self._members.remove(member)
        task = member.task
        if task is None:
            return
        how = _how_it_ended(member.process)
        self._deaths[task.cell] += 1
        if self._stop:
            if member.process.exitcode not in _STOPPED:
                self._report(Note(task.cell, f"its worker {how}; the same command resumes it"))
        elif self._deaths[task.cell] < _MOST_DEATHS:
            self._report(Note(task.cell, f"its worker {how}; another resumes it from its last checkpoint"))
            self._waiting.appendleft(task)
            self._start_missing()
        else:
            error = (
                f"its worker {how}, {_MOST_DEATHS} times without an epoch between; if memory ran out, "
                "fewer --jobs leave more for each"
            )
            self._report(give_up(self._setup, task, error))
            self._start_missing()


def _how_it_ended(process: SpawnProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended unexpectedly (exit code {code})"


def _work(pipe: Connection) -> None:
    """A worker process: trains cells from the pipe until no more come, a signal does, or the parent is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    with stop_signals() as stop:

        def stop_without_parent() -> None:
            connection.wait([parent.sentinel])
            stop.set()

        def report(event: Event | Said | Broken) -> None:
            with contextlib.suppress(OSError):  # the parent is gone
                pipe.send(event)

        Thread(target=stop_without_parent, name="stop without parent", daemon=True).start()
        try:
            setup = pipe.recv()
        except (EOFError, OSError):
            return
        share_cores(setup.jobs or 1)
        work(setup, _tasks(pipe, stop), report, lambda: bool(stop))


def _tasks(pipe: Connection, stop: StopRequest) -> Iterator[Task]:
    while not stop:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        if task is None:
            return
        yield task
