"""Workers as processes of their own, each at the end of a pipe of its own.

A pipe each, not one queue for all: a worker killed while it holds the queue's lock would silence the others.
"""

import contextlib
import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from pfa_cli.cores import physical_cores, share_cores
from pfa_cli.runs.backend import Backend, Report, Setup, Task
from pfa_cli.runs.events import Broken, Ended, EpochDone, Event, Note, Said
from pfa_cli.runs.worker import give_up, work
from pfa_cli.signals import StopRequest, signals_blocked, stop_signals

_LOOK_SECONDS = 0.2  # how long a signal may wait for the parent to pass it on
_DEATHS = 2  # of workers on one cell, without an epoch between them, after which the cell has failed


class Processes(Backend):
    """Cells side by side, each in a process of its own; a single one in this process."""

    name = "processes"

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
    task: Task | None = None  # what it is at work on


class Pool:
    """Trains cells in up to ``jobs`` processes; each gets its next cell when it is through with one."""

    def __init__(
        self,
        setup: Setup,
        jobs: int,
        report: Report,
        stop: StopRequest,
    ) -> None:
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
                ready = connection.wait([member.pipe for member in self._members], timeout=_LOOK_SECONDS)
                for member in [member for member in self._members if member.pipe in ready]:
                    self._listen(member)
                if self._stop and not asked:
                    # By SIGTERM: the terminal sent Ctrl-C to the workers too, and a second one is an order.
                    asked = True
                    self._report(
                        Said(
                            "stopping: every worker finishes its step and saves; Ctrl-C again leaves at once"
                        )
                    )
                    self._waiting.clear()
                    for member in self._members:
                        member.process.terminate()
        finally:
            for (
                member
            ) in self._members:  # some only after an error here: their pipes' ends make them save and leave
                member.pipe.close()
            for member in self._members:
                member.process.join()

    def _start_missing(self) -> None:
        resource_tracker.ensure_running()  # here, since starting it unblocks signals
        while self._waiting and len(self._members) < self._jobs:
            ours, theirs = self._context.Pipe()
            setup = replace(self._setup, jobs=self._jobs)
            process = self._context.Process(target=_work, args=(theirs, setup), name="pfa worker")
            with signals_blocked():
                process.start()
            theirs.close()  # so that the pipe ends when the worker does
            self._members.append(_Member(process, ours))
            self._give(self._members[-1])

    def _give(self, member: _Member) -> None:
        """The next task, or leave to go."""
        member.task = self._waiting.popleft() if self._waiting else None
        with contextlib.suppress(OSError):  # it is dead, as the end of its pipe will tell
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
        """The worker ended: as it was told, or killed in the middle of a cell, which another takes up."""
        member.process.join()
        member.pipe.close()
        self._members.remove(member)
        task = member.task
        if task is None:
            return
        how = _how_it_ended(member.process)
        self._deaths[task.cell] += 1
        if self._stop:
            self._report(Note(task.cell, f"its worker {how}; the same command resumes it"))
        elif self._deaths[task.cell] < _DEATHS:
            self._report(Note(task.cell, f"its worker {how}; another resumes it from its last checkpoint"))
            self._waiting.appendleft(task)
            self._start_missing()
        else:
            self._report(
                give_up(
                    self._setup,
                    task,
                    f"its worker {how}, {_DEATHS} times without an epoch between; if memory ran out, "
                    "fewer --jobs leave more for each",
                )
            )
            self._start_missing()


def _how_it_ended(process: SpawnProcess) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended unasked (exit code {code})"


def _work(pipe: Connection, setup: Setup) -> None:
    """A worker process: cells from the pipe until no more come, a signal does, or the parent is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    with stop_signals() as stop:

        def should_stop() -> bool:
            return bool(stop) or os.getppid() != parent.pid

        def report(event: Event | Said | Broken) -> None:
            with contextlib.suppress(OSError):  # nobody listens any more: `should_stop` says so too
                pipe.send(event)

        share_cores(setup.jobs or 1)
        work(setup, _tasks(pipe, should_stop), report, should_stop)


def _tasks(pipe: Connection, should_stop: Callable[[], bool]) -> Iterator[Task]:
    while not should_stop() and (task := _next(pipe)) is not None:
        yield task


def _next(pipe: Connection) -> Task | None:
    try:
        task = pipe.recv()
    except (EOFError, OSError):
        return None
    assert task is None or isinstance(task, Task)
    return task
