"""Making a plan's cells done, by the back end that fits."""

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from pfa_cli.configuration import Configuration
from pfa_cli.cores import physical_cores
from pfa_cli.data import check_data, default_data_dir, prepare_data
from pfa_cli.errors import PfaError
from pfa_cli.launched import launched
from pfa_cli.networks import check_network
from pfa_cli.ranks import Ranks
from pfa_cli.runs.backend import Backend, Setup, Task
from pfa_cli.runs.checkpoints import check_checkpoint_dir, disk_needed, free_bytes, keep_checkpoints_in
from pfa_cli.runs.distributed import Distributed, follow
from pfa_cli.runs.events import Broken, Ended, Event, Said
from pfa_cli.runs.gpu import Gpu
from pfa_cli.runs.liveness import PRUNED, is_alive, look_up, may_be_late
from pfa_cli.runs.log import Log, Logged
from pfa_cli.runs.plan import Cell, Plan, refreshed
from pfa_cli.runs.processes import Processes
from pfa_cli.runs.progress import View, view
from pfa_cli.runs.shared_stream import SharedStream, shares_by_default
from pfa_cli.signals import StopRequest, stop_signals
from pfa_cli.source import commit
from pfa_cli.store import writer
from pfa_cli.store.engine import Store, check_writable, open_if_there, open_store, results_folder
from pfa_cli.store.queries import runs, trained_on
from pfa_cli.store.schema import STATES
from pfa_cli.store.sqlite import network_warning
from pfa_cli.terminal import Terminal
from pfa_cli.theory.simulate import ensure
from pfa_cli.training.cuda_graph import collect_without_modules
from pfa_cli.training.device import choose_device
from pfa_cli.training.precision import Precision
from pfa_cli.wording import count

BACKENDS: tuple[type[Backend], ...] = (Distributed, SharedStream, Gpu, Processes)
"""The first that fits is used."""
WAIT_SECONDS = 5.0  # between two looks at cells in other processes' hands


def run_cells(
    db: str | None,
    plan: Plan,
    *,
    jobs: int | None,
    device: str,
    data_dir: Path | None,
    checkpoint_dir: Path | None = None,
    console: Terminal,
    eager: bool = False,
    wait: bool = False,
    kept: int = 1,
    together: bool | None = None,
    prune: bool = False,
) -> int:
    """Trains every cell of the plan that is not done and not in the hands of another live process.

    ``checkpoint_dir``: where new cells keep their checkpoints; None: beside the database. ``eager``: without CUDA graphs.
    ``together``: cells of one seed read one stream of images; None: for photographs on a GPU (see `shares_by_default`).
    ``wait``: stays until the cells in other processes' hands are done, or given up, which it then takes over. ``kept``: how
    many checkpoints stay of a done cell. Several ranks train each cell together, and only the first writes and speaks.
    ``prune``: cells that are clearly behind others are stopped, and not gone on with (see `pfa_cli.runs.pruning`).

    Returns the exit code: 0 nothing failed and nothing is left to do here (every cell is done, or another live process
    has it, which the summary says), 1 some failed, 130 after Ctrl-C, 143 after another stop signal. It is 0 also with
    cells in other hands so that several jobs can share a grid, and what depends on all of them begins when all are done.

    Raises:
        UsageError: before anything is stored: no such device, or a cell that could not be trained on it.
        PfaError: before any cell is touched: no data set, a database that cannot be written.
    """
    check_checkpoint_dir(db, checkpoint_dir)
    where = choose_device(device)
    collect_without_modules(where)
    ranks = Ranks.join(launched(), where.type)
    if together is None:
        together = shares_by_default([c.configuration for c in plan.cells if c.state != "done"], where)
    setup = Setup(db, str(where), data_dir or default_data_dir(), jobs, ranks, eager, kept, together, prune)
    if not ranks.first:
        return follow(setup)
    with contextlib.closing(choose_backend(setup)) as backend:
        check(plan.cells, where, ranks.size)
        code = _train(backend, plan, console, checkpoint_dir, wait)
    if code == 0:
        with open_store(db, write=True) as store:
            ensure(store)  # Figure 3's simulations, a second or two, so that `pfa figures` finds all it draws
    return code


def dry_run(
    db: str | None,
    plan: Plan,
    *,
    device: str,
    data_dir: Path | None,
    checkpoint_dir: Path | None = None,
    ranks: int | None = None,
    jobs: int | None = None,
    kept: int = 1,
) -> str:
    """The disk that the cells will take, in words. Raises what `run_cells` would raise before it touches a cell.

    Changes nothing.
    """
    check_checkpoint_dir(db, checkpoint_dir)
    where = choose_device(device)
    check(plan.cells, where, ranks or launched().size)
    check_writable(db)
    for configuration in _data_sets(plan.cells):
        check_data(configuration, data_dir or default_data_dir())
    at_a_time = jobs or (physical_cores() if where.type == "cpu" else 1)
    with open_if_there(db) as store:
        needed = disk_needed(store, plan.cells, kept=kept, at_a_time=at_a_time)
    free = free_bytes(checkpoint_dir or results_folder(db))
    small = "; that is too little: name another place by --db or --checkpoint-dir" if needed > free else ""
    return f"disk: about {needed / 1e6:,.0f} MB of {free / 1e6:,.0f} MB that are free{small}"


def choose_backend(setup: Setup) -> Backend:
    """The back end that trains here."""
    return next(backend for backend in BACKENDS if backend.fits(setup))(setup)


def _train(backend: Backend, plan: Plan, console: Terminal, checkpoint_dir: Path | None, wait: bool) -> int:
    setup = backend.setup
    with open_store(setup.db, write=True) as store:
        log = Log(store.path, os.getpid())
        log.begin()
        plan = refreshed(plan, store)
        ended = {"done", PRUNED} if setup.prune else {"done"}
        todo = [(number, cell) for number, cell in enumerate(plan.cells) if cell.state not in ended]
        if not todo:
            nothing = f"nothing to do: {count(len(plan.cells), 'cell')} {' or '.join(sorted(ended))} already"
            for line in (nothing, *_done_already(store, plan.cells)):
                log.say(line)
                console.say(line)
            return 0
        for configuration in _data_sets(plan.cells):
            prepare_data(configuration, setup.data_dir)
        tasks = [
            Task(n, writer.ensure_run(store, cell.configuration, cell.seed), cell.configuration, cell.seed)
            for n, cell in todo
        ]
        keep_checkpoints_in(store, checkpoint_dir, [task.run_id for task in tasks])
        with (
            view(console, plan.cells, backend.workers(tasks), ended) as on_screen,
            stop_signals(console.show_cursor) as stop,
        ):
            shown = Logged(on_screen, log, plan.cells)
            for note in (
                *plan.notes,
                *_warnings(store.path),
                *_done_already(store, plan.cells),
                *_hints(setup, tasks),
                *backend.notes,
            ):
                shown.say(note)
            rounds = _Rounds(backend, shown, stop)
            rounds.run(tasks, store if wait else None)
        if rounds.broken:
            raise PfaError(rounds.broken)
        late = {row.id for row in runs(store) if may_be_late(row)}  # the backend saw them at work
        busy = {task.cell for task in tasks if task.cell in rounds.busy and task.run_id in late}
        cells = refreshed(plan, store).cells
        states = Counter(
            "running" if n in busy and cell.state == "stale" else cell.state for n, cell in enumerate(cells)
        )
    summary = _summary(states, len(rounds.busy))
    log.say(summary)
    console.say(summary)
    return _exit_code(states, stop, rounds.failed)


def _data_sets(cells: Iterable[Cell]) -> Iterable[Configuration]:
    """A configuration of each data set that the cells still need."""
    needed = [cell.configuration for cell in cells if cell.state != "done"]
    return {configuration.dataset_identity: configuration for configuration in needed}.values()


def check(cells: Iterable[Cell], device: torch.device, ranks: int = 1) -> None:
    """UsageError if a cell that is not done could not be trained on ``device`` by so many ranks."""
    for cell in cells:
        if cell.state != "done":
            cell.configuration.check_ranks(ranks)
            check_network(cell.configuration, ranks)
            Precision(cell.configuration.precision, device)


def _warnings(database: Path | None) -> Iterable[str]:
    if database is not None and (warning := network_warning(database)):
        yield warning
    if commit()[0] is None:
        yield "warning: pfa was built without git, so these results will not say which code made them"


def _done_already(store: Store, cells: Iterable[Cell]) -> Iterable[str]:
    """On which images the cells that are done were trained, where these are what the user had put into a folder."""
    own = {
        (cell.configuration.recipe, cell.configuration.hash, cell.seed)
        for cell in cells
        if cell.state == "done" and not cell.configuration.dataset_entry.always_the_same
    }
    if not own:
        return
    ids = [row.id for row in runs(store) if (row.recipe, row.config_hash, row.seed) in own]
    for images, n in Counter(trained_on(store, ids).values()).items():
        yield f"{count(n, 'cell')} done already, trained on {images}"


def _hints(setup: Setup, tasks: Sequence[Task]) -> Iterable[str]:
    photographs = [task for task in tasks if not task.configuration.dataset_entry.in_memory]
    cells = SharedStream(setup).workers(photographs)
    if cells > 1 and setup.ranks.size == 1:
        same = f"note: up to {cells} of these cells train on the same images in the same order"
        if setup.together:
            yield f"{same}, which are decoded once for all; --apart trains one cell after the other"
        else:
            yield f"{same}: --together decodes them once"


class _Rounds:
    """The rounds of one `pfa run` over its cells.

    ``broken`` says why it had to end early, if it had; ``failed``, whether a cell did; ``busy``, which cells are in other
    processes' hands.
    """

    def __init__(self, backend: Backend, shown: View, stop: StopRequest) -> None:
        self._backend, self._shown, self._stop = backend, shown, stop
        self.busy: dict[int, Ended] = {}
        self.broken: str | None = None
        self.failed = False

    def run(self, tasks: Sequence[Task], wait_in: Store | None = None) -> None:
        """Every task once; then those again that other processes held, for as long as these give some up.

        ``wait_in``: waits, looking into this database, until none is in other processes' hands.
        """
        todo = list(tasks)
        while todo and not self._stop and not self.broken:
            for task in todo:
                self.busy.pop(task.cell, None)
            self._backend.run(todo, self._report, self._stop)
            held = [task for task in tasks if task.cell in self.busy]
            if wait_in is None:  # until no more are given up
                todo = held if len(held) < len(todo) else []
                continue
            todo = self._given_up(held, wait_in)
        for ended in self.busy.values():
            self._shown.handle(ended)

    def _given_up(self, held: Sequence[Task], store: Store) -> list[Task]:
        """Waits until other processes are through with some of the tasks, or gone; these. None at all after a stop."""
        said = False
        while held and not self._stop and not self.broken:
            ids = {task.run_id for task in held}
            rows = [row for row in runs(store) if row.id in ids and row.state in STATES]
            look_up(rows)
            alive = {row.id for row in rows if row.state == "running" and is_alive(row)}
            if free := [task for task in held if task.run_id in {row.id for row in rows} - alive]:
                return free
            if not alive:  # in a state that only a newer pfa knows
                break
            if not said:
                self._shown.say(f"waits for {count(len(alive), 'cell')} in other processes' hands")
                said = True
            self._backend.idle()
            until = time.monotonic() + WAIT_SECONDS
            while time.monotonic() < until and not self._stop:
                time.sleep(0.1)
        return []

    def _report(self, event: Event | Said | Broken) -> None:
        if isinstance(event, Broken):
            self.broken = event.message
        elif isinstance(event, Said):
            self._shown.say(event.message)
        elif isinstance(event, Ended) and event.outcome == "busy":
            self.busy[event.cell] = event
        else:
            self.failed |= isinstance(event, Ended) and event.outcome == "failed"
            self._shown.handle(event)


def _summary(states: Counter[str], left: int) -> str:
    """What became of the cells, and what to do about those that are not done."""
    parts = ", ".join(f"{n} {state}" for state, n in states.most_common())
    hints = []
    if states["failed"]:
        hints.append("`pfa status` says why a cell failed")
    if left:
        hints.append(f"{left} left to another process")
    if states[PRUNED]:
        hints.append("pruned ones go on without --prune")
    if set(states) - {"done", "running", PRUNED}:
        hints.append("the same command goes on with what is left")
    return f"{count(states.total(), 'cell')}: {'; '.join([parts, *hints])}"


def _exit_code(states: Counter[str], stop: StopRequest, failed: bool) -> int:
    if set(states) <= {"done", PRUNED}:
        return 0
    if stop:
        return stop.exit_code
    if failed or states["failed"] or states["stale"]:
        return 1
    return 143 if states["interrupted"] else 0  # a worker was told to stop, though this process was not
