"""Making a plan's cells done: in this process, or by workers of this machine."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil
import torch
from rich.console import Console

from pfa_cli.data import default_data_dir, load_dataset, prepare_data
from pfa_cli.errors import PfaError
from pfa_cli.ranks import Ranks
from pfa_cli.runs.distributed import dismiss, follow, share_cores
from pfa_cli.runs.events import Broken, Ended, Event
from pfa_cli.runs.fill import Trial, cells_at_a_time
from pfa_cli.runs.lanes import Lanes
from pfa_cli.runs.liveness import is_alive
from pfa_cli.runs.plan import Cell, Plan, refreshed
from pfa_cli.runs.processes import Pool, Setup
from pfa_cli.runs.progress import View, view
from pfa_cli.runs.wording import count
from pfa_cli.runs.worker import Task, Worker
from pfa_cli.signals import StopRequest, stop_signals
from pfa_cli.store import writer
from pfa_cli.store.engine import Store, open_store
from pfa_cli.store.errors import StoreError
from pfa_cli.store.filesystem import network_warning
from pfa_cli.store.owner import Owner
from pfa_cli.theory.simulate import ensure
from pfa_cli.training.device import choose_device, make_repeatable
from pfa_cli.training.precision import Precision


def run_cells(
    db: str | None, plan: Plan, *, jobs: int | None, device: str, data_dir: Path | None, console: Console
) -> int:
    """Trains every cell of the plan that is not done and not in the hands of another live process.

    Under torchrun the processes train each cell together, and only the first writes and speaks.

    Returns the exit code: 0 nothing failed and nothing is left to do here (every cell is done, or another live process
    has it, which the summary says), 1 some failed, 130 after Ctrl-C, 143 after SIGTERM or SIGUSR1. It is 0 also with
    cells in other hands so that several jobs can share a grid, and what depends on all of them begins when all are done.

    Raises:
        UsageError: before anything is stored: no such device, or a cell that could not be trained on it.
        PfaError: before any cell is touched: no data set, a database that cannot be written.
    """
    where = choose_device(device)
    data_dir = data_dir or default_data_dir()
    ranks = Ranks.of_environment(where.type)
    check(plan.cells, where, ranks.size)
    share_cores(ranks)
    if not ranks.first:
        with stop_signals() as stop:
            follow(ranks, where, data_dir, lambda: bool(stop))
            return stop.exit_code if stop else 0
    code = _lead(db, plan, jobs, where, data_dir, console, ranks)
    dismiss(ranks)
    if code == 0:
        with open_store(db, write=True) as store:
            ensure(store)  # Figure 3's simulations, a second or two, so that `pfa figures` finds all it draws
    return code


def _lead(
    db: str | None,
    plan: Plan,
    jobs: int | None,
    where: torch.device,
    data_dir: Path,
    console: Console,
    ranks: Ranks,
) -> int:
    with open_store(db, write=True) as store:
        plan = refreshed(plan, store)
        todo = [(number, cell) for number, cell in enumerate(plan.cells) if cell.state != "done"]
        if not todo:
            console.print(f"nothing to do: {count(len(plan.cells), 'cell')} done already", highlight=False)
            return 0
        for configuration in {cell.configuration.dataset: cell.configuration for _, cell in todo}.values():
            prepare_data(configuration, data_dir)
        tasks = [
            Task(n, writer.ensure_run(store, cell.configuration, cell.seed), cell.configuration, cell.seed)
            for n, cell in todo
        ]
        workers = 1
        if ranks.size == 1:
            workers = min(jobs or worthwhile_jobs(where, tasks, data_dir), len(tasks))
        if workers > 1:  # each decodes photographs with its share of the cores
            os.environ.setdefault("PFA_WORKERS", str(max(1, usable_cores() // workers)))
        with (
            view(console, plan.cells, workers) as shown,
            stop_signals(console.show_cursor) as stop,
        ):
            warning = network_warning(store.path) if store.path else None
            for note in (*plan.notes, *([warning] if warning else [])):
                shown.say(note)
            launch = _Launch(store, Setup(db, str(where), data_dir), workers, shown, stop, ranks)
            launch.run(tasks)
        if launch.broken:
            raise PfaError(launch.broken)
        states = Counter(cell.state for cell in refreshed(plan, store).cells)
    console.print(_summary(states, launch.left), highlight=False, markup=False, soft_wrap=True)
    return _exit_code(states, stop, launch.failed)


def check(cells: Iterable[Cell], device: torch.device, ranks: int = 1) -> None:
    """UsageError if a cell that is not done could not be trained on ``device`` by so many ranks."""
    for cell in cells:
        if cell.state != "done":
            cell.configuration.check_ranks(ranks)
            Precision(cell.configuration.precision, device)


def worthwhile_jobs(device: torch.device, tasks: Sequence[Task], data_dir: Path) -> int:
    """How many cells to train at a time; on a GPU found by a trial with the first cell."""
    first = tasks[0].configuration
    # Photographs come from the disk, which one cell keeps busy.
    if device.type == "cpu" or len(tasks) == 1 or first.dataset == "imagefolder":
        return default_jobs(device)
    make_repeatable(device)
    trial = Trial(first, load_dataset(first, data_dir, device), device)
    return cells_at_a_time(trial.throughput, len(tasks))


def default_jobs(device: torch.device) -> int:
    """One worker for each core that this process may use, hyper-threads not counted; one for a GPU."""
    if device.type == "cuda":
        return 1
    return min(usable_cores(), psutil.cpu_count(logical=False) or usable_cores())


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Launch:
    """One `pfa run`: its rounds over the cells.

    ``broken`` says why it had to end early, if it had; ``failed``, whether a cell did.
    """

    def __init__(
        self, store: Store, setup: Setup, workers: int, shown: View, stop: StopRequest, ranks: Ranks
    ) -> None:
        self._store, self._setup, self._workers, self._ranks = store, setup, workers, ranks
        self._shown, self._stop = shown, stop
        self._busy: dict[int, Ended] = {}
        self.broken: str | None = None
        self.failed = False

    def run(self, tasks: Sequence[Task]) -> None:
        """Every task once; then those again that other processes held, for as long as these give some up."""
        while True:
            self._busy.clear()
            if torch.device(self._setup.device).type == "cuda" and self._ranks.size == 1:
                Lanes(self._setup, self._workers, self._report, self._stop).run(tasks)
            elif self._workers == 1:
                self._in_process(tasks)
            else:
                Pool(
                    self._setup, self._workers, self._report, self._shown.say, self._give_up, self._stop
                ).run(tasks)
            still = [task for task in tasks if task.cell in self._busy]
            if len(still) in (0, len(tasks)) or self._stop or self.broken:
                break
            tasks = still
        for ended in self._busy.values():
            self._shown.handle(ended)

    @property
    def left(self) -> int:
        """How many cells are in other processes' hands."""
        return len(self._busy)

    def _in_process(self, tasks: Sequence[Task]) -> None:
        try:
            worker = Worker(
                self._store,
                torch.device(self._setup.device),
                self._setup.data_dir,
                self._report,
                lambda: bool(self._stop),
                self._ranks,
            )
            for task in tasks:
                if self._stop:
                    return
                self._report(worker.run(task))
        except StoreError as error:
            self._report(Broken(str(error)))

    def _report(self, event: Event | Broken) -> None:
        if isinstance(event, Broken):
            self.broken = event.message
        elif isinstance(event, Ended) and event.outcome == "busy":
            self._busy[event.cell] = event
        else:
            self.failed |= isinstance(event, Ended) and event.outcome == "failed"
            self._shown.handle(event)

    def _give_up(self, task: Task, error: str) -> None:
        with contextlib.suppress(StoreError):  # then it stays stale, which is as true
            claim = writer.claim(self._store, task.run_id, Owner.current(), is_alive=is_alive)
            if claim is not None:
                writer.finish(self._store, claim, "failed", error=error)
        self._report(Ended(task.cell, "failed", error))


def _summary(states: Counter[str], left: int) -> str:
    """What became of the cells, and what to do about those that are not done."""
    parts = ", ".join(f"{n} {state}" for state, n in states.most_common())
    hints = []
    if states["failed"]:
        hints.append("`pfa status` says why a cell failed")
    if left:
        hints.append(f"{left} left to another process")
    if set(states) - {"done", "running"}:
        hints.append("the same command goes on with what is left")
    return f"{count(states.total(), 'cell')}: {'; '.join([parts, *hints])}"


def _exit_code(states: Counter[str], stop: StopRequest, failed: bool) -> int:
    if set(states) == {"done"}:
        return 0
    if stop:
        return stop.exit_code
    if failed or states["failed"] or states["stale"]:
        return 1
    return 143 if states["interrupted"] else 0  # a worker was told to stop, though this process was not
