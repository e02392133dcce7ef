"""One cell's way: claim it, restore its newest checkpoint, train it epoch by epoch, say how it ended."""

import contextlib
import errno
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Event as Flag
from threading import Lock, Thread
from typing import Literal
from weakref import WeakValueDictionary

import torch

from pfa_cli import files
from pfa_cli.configuration import Configuration
from pfa_cli.data import Dataset, load_dataset
from pfa_cli.errors import PfaError
from pfa_cli.runs.backend import Report, Setup, Task
from pfa_cli.runs.checkpoints import checkpoint_folder, prepare_folder
from pfa_cli.runs.events import Broken, Ended, EpochDone, Note, Started, Step
from pfa_cli.runs.liveness import PRUNED, grace, is_alive, may_be_late, shown_state
from pfa_cli.runs.provenance import attempt_facts
from pfa_cli.runs.pruning import behind
from pfa_cli.signals import Stopped, interruptible
from pfa_cli.store import writer
from pfa_cli.store.engine import Store, open_store
from pfa_cli.store.errors import LostCell, ServerLost, StoreError
from pfa_cli.store.owner import Owner
from pfa_cli.store.queries import RunRow, runs, trained_on
from pfa_cli.training import checkpoint
from pfa_cli.training.cuda_graph import release_memory
from pfa_cli.training.device import make_repeatable
from pfa_cli.training.trainer import Trainer

HEARTBEAT_SECONDS = 15.0
STEP_SECONDS = 0.5  # between two reports within an epoch
_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO}

_told: set[str] = set()  # why cells of this process leave work to cuDNN


class Datasets:
    """The data sets that the workers of a process share: one in memory is there once, while any of them uses it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._loaded: WeakValueDictionary[str, Dataset] = WeakValueDictionary()

    def load(self, configuration: Configuration, data_dir: Path, device: torch.device) -> Dataset:
        """The configuration's data set; one that reads photographs is the caller's own."""
        if not configuration.dataset_entry.in_memory:
            return load_dataset(configuration, data_dir, device)
        key = configuration.dataset_identity
        with self._lock:
            dataset = self._loaded.get(key)
            if dataset is None:
                dataset = self._loaded[key] = load_dataset(configuration, data_dir, device)
                if device.type == "cuda":  # other threads use it on streams of their own
                    torch.cuda.current_stream(device).synchronize()
            return dataset


class Worker:
    """Trains one cell after another in this process, and keeps the data set that they share.

    ``report`` hears of progress. ``should_stop`` is asked after every step; once it says so, the cell is saved
    and left.
    """

    def __init__(
        self,
        store: Store,
        setup: Setup,
        report: Report,
        should_stop: Callable[[], bool],
        datasets: Datasets | None = None,
        again: Callable[[Exception], bool] = lambda error: False,
        lanes: int = 1,
    ) -> None:
        """The arguments that all but one kind of caller leave out:

        datasets: those shared with other workers of this process.
        again: asked about an error that ends a cell: whether the cell will be trained again, and so has not failed.
        lanes: how many cells this process trains at a time; stored with the attempt.
        """
        self._store, self._setup, self._report, self._should_stop = store, setup, report, should_stop
        self._datasets, self._again, self._lanes = datasets or Datasets(), again, lanes
        self._device, self._ranks, self._owner = torch.device(setup.device), setup.ranks, Owner.current()
        make_repeatable(self._device)
        self._loaded: tuple[str, Dataset] | None = None

    def run(self, task: Task) -> Ended | None:
        """Does what is left of the cell. Whatever goes wrong in it is its own: stored, told, and over.

        None where the cell is to be trained again: it is left interrupted.

        Raises:
            StoreError: the database is of no use any more, for this cell or any other.
        """
        self._store.notify = lambda text: self._report(Note(task.cell, text))
        if self._setup.prune and shown_state(row := self._row(task)) == PRUNED:  # by another command
            return Ended(task.cell, "interrupted", row.error)
        claim = writer.claim(self._store, task.run_id, self._owner, is_alive=self._is_another_alive)
        if claim is None:
            return Ended(task.cell, "done" if self._row(task).state == "done" else "busy")
        folder = checkpoint_folder(self._store, task.configuration, task.seed, claim.checkpoint_dir)
        try:
            with _heartbeats(self._store, claim) as lost:
                return self._train(task, claim, folder, lost)
        except LostCell:
            return self._ended_alone(Ended(task.cell, "lost"))
        except Stopped:  # in a part of the training that has nothing to save
            writer.finish(self._store, claim, "interrupted")
            if self._ranks.size > 1:
                raise
            return Ended(task.cell, "interrupted")
        except Exception as error:
            if self._again(error):
                with contextlib.suppress(LostCell):
                    writer.finish(self._store, claim, "interrupted")
                return None
            return self._ended_alone(self._failed(task, claim, folder, error))
        finally:
            release_memory(self._device)

    def _ended_alone(self, ended: Ended) -> Ended:
        """``ended``, unless other ranks wait for this one in the middle of a step: then the command ends."""
        if self._ranks.size > 1:
            raise PfaError(ended.error or "one of the processes of this run ended")
        return ended

    def _train(self, task: Task, claim: writer.Claim, folder: Path, lost: Flag) -> Ended:
        prepare_folder(self._store, folder, claim.epochs_done)
        self._ranks.from_first((task, folder))  # the others begin
        with interruptible():
            dataset = self._dataset(task.configuration)
        self._check_same_images(task, claim, dataset)
        precision = task.configuration.precision
        facts = attempt_facts(
            self._device, precision, dataset.description, self._lanes, not self._setup.eager, self._ranks.size
        )
        writer.start_attempt(self._store, claim, facts)
        with interruptible():
            trainer = self._trainer(task, claim, dataset, folder)
        if (reason := trainer.left_to_cudnn) is not None and reason not in _told:
            _told.add(reason)
            text = f"convolutions and BatchNorm are done by cuDNN, which takes longer, in all cells: {reason}"
            self._report(Note(task.cell, text))
        self._report(Started(task.cell, trainer.epochs_done))
        diverged, pruned, late = None, None, None
        for record in trainer.epochs(self._should_stop, self._on_step(task, lost)):
            # Only one epoch may be late: with the next checkpoint goes the one that the database still names.
            if late is not None:
                writer.record_epoch(self._store, claim, *late)
            name = self._save(folder, trainer)
            late = record, name
            try:
                writer.record_epoch(self._store, claim, *late, wait=trainer.finished)
                late = None
            except ServerLost as error:
                self._report(
                    Note(task.cell, f"{error}: trains on, and stores epoch {record.epoch} after the next")
                )
            self._report(EpochDone(task.cell, record))
            diverged = record.epoch if record.diverged else None
            if self._setup.prune and late is None:  # it judges by what is stored
                pruned = behind(self._store, task.run_id, task.configuration, record.epoch)
            if self._ranks.any(self._should_stop() or pruned is not None):
                break
        if late is not None:
            writer.record_epoch(self._store, claim, *late)
        if trainer.finished:
            writer.finish(self._store, claim, "done")
            checkpoint.keep_newest(folder, self._setup.kept)
            return Ended(task.cell, "done", diverged_epoch=diverged)
        saved = self._save(folder, trainer) if trainer.step else None
        writer.finish(self._store, claim, "interrupted", error=pruned, checkpoint=saved)
        return Ended(task.cell, "interrupted", pruned)

    def _check_same_images(self, task: Task, claim: writer.Claim, dataset: Dataset) -> None:
        """PfaError if the run would go on with more or fewer images or classes than its epochs so far were trained on.

        The folder's name does not count: it may be another one on another machine.
        """
        if task.configuration.dataset_entry.always_the_same or claim.checkpoint is None:
            return
        before = trained_on(self._store, [task.run_id]).get(task.run_id)
        counts = dataset.description.removeprefix(dataset.name)
        if before is not None and not before.endswith(counts):
            raise PfaError(
                f"its epochs so far were trained on {before}, and {self._setup.data_dir} has {dataset.description}: "
                "name the folder with those images by --data-dir or PFA_DATA, or train it from the start by "
                f"`pfa runs rerun {task.run_id}`"
            )

    def _save(self, folder: Path, trainer: Trainer) -> str:
        """Saves a checkpoint. A folder that was moved away is not made again: its checkpoints would be lost."""
        if not folder.is_dir():
            raise PfaError(
                f"the folder {folder} was moved or deleted under the run: put it back, then run the same command again"
            )
        return checkpoint.save(folder, trainer, final=trainer.finished)

    def _trainer(self, task: Task, claim: writer.Claim, dataset: Dataset, folder: Path) -> Trainer:
        """The cell's trainer in the state of its newest whole checkpoint; those ahead of the database are gone already."""

        def say(text: str) -> None:
            self._report(Note(task.cell, text))

        def make() -> Trainer:
            return Trainer(
                task.configuration,
                dataset,
                task.seed,
                self._device,
                self._ranks,
                eager=self._setup.eager,
                say=say,
            )

        trainer, name, damaged = checkpoint.restore(folder, make)
        self._ranks.from_first((trainer.epochs_done, trainer.step))  # the others check theirs
        for reason in damaged:
            self._report(Note(task.cell, f"damaged checkpoint passed over: {reason}"))
        if name is None and claim.checkpoint is not None:
            self._report(Note(task.cell, f"no usable checkpoint in {folder}: trains from the start again"))
        return trainer

    def _on_step(self, task: Task, lost: Flag) -> Callable[[Trainer], None]:
        """Tells of progress, and ends the training of a cell that was ``lost``."""
        began = told = time.monotonic()
        first: tuple[int, int] | None = None

        def on_step(trainer: Trainer) -> None:
            nonlocal told, began, first
            if lost.is_set():
                raise LostCell(f"run {task.run_id} was taken over by another worker")
            now = time.monotonic()
            if first is None or first[0] != trainer.epochs_done:
                first, began = (trainer.epochs_done, trainer.step), now
            if now - told >= STEP_SECONDS:
                images = (trainer.step - first[1]) * task.configuration.batch_size
                speed = images / (now - began) if images else None
                fraction = trainer.step / trainer.steps_per_epoch
                self._report(Step(task.cell, fraction, trainer.running_accuracy_percent, speed))
                told = now

        return on_step

    def _dataset(self, configuration: Configuration) -> Dataset:
        """The cell's data set; the one of the cell before if it is the same."""
        same = configuration.dataset_identity
        if self._loaded is None or self._loaded[0] != same:
            self._loaded = None  # before the next one takes its memory
            self._loaded = same, self._datasets.load(configuration, self._setup.data_dir, self._device)
        return self._loaded[1]

    def _is_another_alive(self, row: RunRow) -> bool:
        """A run of this very process is one that it had to leave with the disk full: it is not at work on it now."""
        own = Owner(row.host or "", row.pid or 0, row.process_started, row.pid_namespace) == self._owner
        return not own and (is_alive(row) or (may_be_late(row) and self._gives_signs(row)))

    def _gives_signs(self, row: RunRow) -> bool:
        """Whether the process sends a heartbeat while we watch for longer than it takes from one to the next.

        By our own clock alone. So no cell is taken from a live process whose host has a clock that is hours behind.
        """
        until = time.monotonic() + min(4 / 3 * HEARTBEAT_SECONDS, grace().total_seconds())
        while time.monotonic() < until:
            if self._should_stop():
                return True  # leave it
            time.sleep(0.1)
        return any(
            now.id == row.id and (now.token, now.heartbeat_at) != (row.token, row.heartbeat_at)
            for now in runs(self._store, row.recipe)
        )

    def _row(self, task: Task) -> RunRow:
        """What the database says of the cell now."""
        for row in runs(self._store, task.configuration.recipe):
            if row.id == task.run_id:
                return row
        raise LostCell(f"run {task.run_id} is no longer in the database")

    def _failed(self, task: Task, claim: writer.Claim, folder: Path, error: Exception) -> Ended:
        """Stores what became of a cell whose training raised ``error``."""
        # A stop signal may have reached helpers of ours too, such as the processes that decode images, and it ends the
        # wait for a server that is away; another error of the database is told.
        lost_one = self._ranks.lost_one(error)
        told = isinstance(error, StoreError) and not isinstance(error, ServerLost)
        stopped = lost_one or (self._should_stop() and not told)
        outcome: Literal["interrupted", "failed"] = "interrupted" if stopped else "failed"
        message = None if stopped else self._explained(error, folder)
        try:
            writer.finish(self._store, claim, outcome, error=message)
        except LostCell:
            return Ended(task.cell, "lost")
        except StoreError:
            pass  # the run stays "running" without a process, which is shown as stale, and resumes
        if lost_one:
            message = (
                "another process of this run has ended or does not answer; the same command resumes the cell from its "
                "last checkpoint"
            )
        return Ended(task.cell, outcome, message)

    def _explained(self, error: Exception, folder: Path) -> str:
        """The error in one line; its traceback goes beside the checkpoints unless it is one that a user can mend."""
        message = describe(error, self._device, folder)
        if isinstance(error, PfaError):
            return message
        log = folder / "traceback.txt"
        try:
            files.write(log, "".join(traceback.format_exception(error)), durable=False)
        except OSError:  # the disk may be what failed
            return message
        return f"{message} (traceback: {log})"


@contextlib.contextmanager
def _heartbeats(store: Store, claim: writer.Claim) -> Iterator[Flag]:
    """Within the block a thread says every 15 s that this process lives, however long a step or an evaluation takes.

    Gives a flag that is set once the cell belongs to another process.
    """
    ended, lost = Flag(), Flag()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            try:
                writer.heartbeat(store, claim)
            except LostCell:
                if not ended.is_set():  # else the cell was just given back
                    lost.set()
                return
            except StoreError:  # what the training writes next will meet the same error, and say so
                pass

    thread = Thread(target=beat, name="heartbeats", daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        ended.set()
        thread.join()


def work(setup: Setup, tasks: Iterable[Task], report: Report, should_stop: Callable[[], bool]) -> None:
    """Trains the tasks in this process, one after the other; what ends all of them is told as `Broken`."""
    try:
        with open_store(setup.db, write=True, create=False) as store:
            worker = Worker(store, setup, report, should_stop)
            for task in tasks:
                if (ended := worker.run(task)) is not None:
                    report(ended)
    except PfaError as error:
        report(Broken(str(error)))


def give_up(setup: Setup, task: Task, error: str) -> Ended:
    """Stores that the cell failed, where its worker no longer can."""
    with contextlib.suppress(StoreError), open_store(setup.db, write=True, create=False) as store:
        claim = writer.claim(store, task.run_id, Owner.current(), is_alive=is_alive)
        if claim is not None:
            writer.finish(store, claim, "failed", error=error)
    return Ended(task.cell, "failed", error)  # a run that could not be stored as failed stays stale


def describe(error: Exception, device: torch.device, folder: Path) -> str:
    """The error in one line, with the cure where there is one."""
    text = " ".join(str(error).split())
    if isinstance(error, PfaError):
        return str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        return (
            f"out of memory on {device}: fewer --jobs leave more for each, and --set accumulation=2 "
            "(or more) splits every batch into parts"
        )
    if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
        return f"cannot save in {folder} ({error.strerror}): mend that, then the same command resumes it"
    return f"{type(error).__name__}: {text}"
