"""Decodes, crops and flips photographs in worker processes, ahead of the training thread.

What a request gives depends on it alone, not on which worker serves it, nor on what was served before. The
workers hand over bytes; normalising is left to the device. They decode with Pillow, since torchvision's own
decoders, the one for GPUs among them, are deprecated.
"""

import atexit
import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing import connection, forkserver, util
from threading import Thread
from typing import Any, NamedTuple
from weakref import ref

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision.transforms import v2

from pfa_cli.data.photographs import Photographs, Undecodable
from pfa_cli.errors import PfaError, StoppedWaiting, shown
from pfa_cli.randomness import stream_seed
from pfa_cli.signals import STOP_SIGNALS, signals_blocked, start_resource_tracker, stop_requested

_LARGER = 256 / 224  # an image under evaluation is resized to this times the crop
_WAIT_SECONDS = 1  # for a batch, until the next look at whether the process was asked to stop
_LAST_WAIT_SECONDS = 5  # for a batch after that, so that the step can be finished and saved
_LONGEST_WAIT_SECONDS = 10  # for a worker that does not answer after that


class Request(NamedTuple):
    """One image: cropped and flipped at random with ``seed`` and ``epoch``, cropped at its centre without."""

    split: str
    image: int
    seed: int | None = None
    epoch: int | None = None


class Unreadable(NamedTuple):
    """An image that could not be decoded."""

    split: str
    path: str
    reason: str


class Batch(NamedTuple):
    """``images`` uint8 [b, 3, size, size], ``labels`` int64 [b]; None if too many were unreadable.

    ``not_shared``: why the worker could not put the images into shared memory, if so.
    """

    images: Tensor | None
    labels: Tensor | None
    unreadable: tuple[Unreadable, ...]
    not_shared: str | None = None


Sample = tuple[Tensor | None, int, tuple[Unreadable, ...]]  # one image of a batch


class Loader(Dataset[Sample]):
    """Serves requests for images of ``splits``, cropped to ``size`` pixels.

    An unreadable image is replaced by the next readable one of its split, with that one's label; at most
    ``tolerated[split]`` images are passed over.
    """

    def __init__(self, splits: Mapping[str, Photographs], tolerated: Mapping[str, int], size: int) -> None:
        self.splits, self.tolerated = splits, tolerated
        self._at_random = v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()])
        self._at_centre = v2.Compose([v2.Resize(round(size * _LARGER)), v2.CenterCrop(size)])

    def __getitem__(self, request: Request) -> Sample:
        photographs = self.splits[request.split]
        unreadable: list[Unreadable] = []
        for index in range(request.image, request.image + self.tolerated[request.split] + 1):
            try:
                pixels = self._transform(photographs.image(index % len(photographs)), request)
            except Undecodable as error:
                path = photographs.path(index % len(photographs))
                unreadable.append(Unreadable(request.split, shown(path), shown(error)))
            else:
                return pixels, int(photographs.labels[index % len(photographs)]), tuple(unreadable)
        return None, -1, tuple(unreadable)

    def _transform(self, image: Image.Image, request: Request) -> Tensor:
        if request.seed is None or request.epoch is None:
            return v2.functional.pil_to_tensor(self._at_centre(image))
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(stream_seed(request.seed, "augmentation", request.epoch, request.image))
            return v2.functional.pil_to_tensor(self._at_random(image))


class Pipeline:
    """Keeps ``workers`` processes over all epochs and splits (0: decodes in this process)."""

    def __init__(self, loader: Loader, workers: int) -> None:
        self._requests = _Requests()
        context = None
        if workers and "forkserver" in multiprocessing.get_all_start_methods():
            # Not fork: this process may have threads and a GPU, which do not survive it.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
            # Ctrl-C and batch systems send signals to every process; the run needs its batches to finish the step and save.
            start_resource_tracker()
            with signals_blocked():
                forkserver.ensure_running()
        # Not in pinned memory: torch notes with an event when a copy from it is done, and where another cell's step is being
        # recorded then, the event belongs to the recording and asking for it fails (seen on an H200: "invalid argument").
        self._batches = DataLoader(
            loader,
            batch_sampler=self._requests,
            num_workers=workers,
            collate_fn=collate,
            timeout=_WAIT_SECONDS if workers else 0,
            worker_init_fn=_start_worker,
            multiprocessing_context=context,
            generator=torch.Generator(),  # of its own, or every pass would draw from the global one
            persistent_workers=workers > 0,
        )
        # At the end of a process both are needed: torch's atexit function, which ours precedes, makes shutting down do
        # nothing; processes that multiprocessing started run no atexit functions.
        atexit.register(util.Finalize(self, _end_workers, (self._batches,), exitpriority=1))
        self._waiting_since: float | None = None  # for a batch
        self._killed = False  # the workers, see `_watch`
        if workers:
            Thread(target=_watch, args=(ref(self),), name="decoders that do not answer", daemon=True).start()

    def serve(self, requests: Iterable[list[Request]]) -> Iterator[Batch]:
        """One batch for each list, in order. Only one iterator at a time: a new one ends the one before.

        Raises:
            StoppedWaiting: the process was asked to stop, and no batch came within a few seconds.
            PfaError: no shared memory is left, or a worker died.
        """
        self._requests.pending = requests
        try:
            batches = iter(self._batches)
        except OSError as error:
            if error.errno == errno.ENOSPC:  # of semaphores
                raise _shared_memory_full(str(error)) from error
            raise
        except RuntimeError as error:
            if died := _worker_died(error):
                raise died from error
            raise
        while (batch := self._next(batches)) is not None:
            if batch.not_shared is not None:
                raise _shared_memory_full(batch.not_shared)
            yield batch

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        stop_by = None
        while True:
            self._waiting_since = time.monotonic()
            try:
                return next(batches, None)
            except (RuntimeError, OSError, EOFError) as error:
                if self._killed:
                    raise StoppedWaiting("stopped: a process that decodes images did not answer") from error
                if not isinstance(error, RuntimeError):
                    raise
                if died := _worker_died(error):
                    raise died from error
                if not str(error).startswith("DataLoader timed out"):
                    raise
            finally:
                self._waiting_since = None
            if stop_requested():
                stop_by = stop_by or time.monotonic() + _LAST_WAIT_SECONDS
                if time.monotonic() > stop_by:
                    raise StoppedWaiting("stopped while waiting for a batch of images, which did not come")


def _watch(watched: "ref[Pipeline]") -> None:
    """Kills the workers where one of them does not answer after a stop signal, as one that SIGSTOP holds.

    A batch that has come is in shared memory, for whose descriptor torch then asks the worker, without a limit of time.
    """
    stopped_at = None
    while (pipeline := watched()) is not None:
        if stop_requested():
            now, since = time.monotonic(), pipeline._waiting_since
            stopped_at = stopped_at or now
            if since is not None and now - max(since, stopped_at) > _LONGEST_WAIT_SECONDS:
                pipeline._killed = True
                _kill_workers(pipeline._batches._iterator)
                return
        del pipeline
        time.sleep(_WAIT_SECONDS)


def _kill_workers(iterator: Any) -> None:
    for worker in iterator._workers:  # SIGTERM, which torch may have tried, is blocked in them
        worker.kill()


def _end_workers(batches: "DataLoader[Sample]") -> None:
    """Ends the worker processes: by torch's own way, which lets each finish its batch, or else by SIGKILL."""
    iterator: Any = batches._iterator
    batches._iterator = None
    if iterator is not None:
        iterator._shutdown_workers()
        _kill_workers(iterator)


def _worker_died(error: RuntimeError) -> PfaError | None:
    """What torch's ``error`` says, if it says that a worker died."""
    if not str(error).startswith("DataLoader worker (pid"):
        return None
    return PfaError(
        f"a process that decodes images ended unexpectedly ({error}). If memory ran out, fewer --jobs or a smaller "
        "PFA_WORKERS need less"
    )


def _shared_memory_full(reason: str) -> PfaError:
    return PfaError(
        f"no shared memory is left for batches of images ({reason}). Give the container more of it (docker run "
        "--shm-size=8g), use a smaller PFA_WORKERS, or PFA_WORKERS=0, which decodes without it"
    )


class _Requests:
    """A batch sampler told anew, for every pass, what to ask for."""

    pending: Iterable[list[Request]] = ()

    def __iter__(self) -> Iterator[list[Request]]:
        return iter(self.pending)


def collate(samples: list[Sample]) -> Batch:
    """The batch of what `Loader` gave; in a worker process, in shared memory."""
    unreadable = tuple(bad for _, _, found in samples for bad in found)
    images = [image for image, _, _ in samples if image is not None]
    if len(images) < len(samples):
        return Batch(None, None, unreadable)
    batch, labels = torch.stack(images), torch.tensor([label for _, label, _ in samples])
    if get_worker_info() is not None:
        try:  # here and not when it is sent: torch would lose the batch and wait for it for ever
            batch.share_memory_()
            labels.share_memory_()
        except RuntimeError as error:
            return Batch(None, None, unreadable, not_shared=str(error))
    return Batch(batch, labels, unreadable)


def _start_worker(worker: int) -> None:
    """Holds the stop signals back, and ends this worker when the training process is gone, even killed.

    The signals are held back here too because the fork server may have been started by someone else, who let them pass.

    torch watches the process that forked the worker, but that is the fork server, which ends only after its workers.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    Thread(target=watch, name="end with parent", daemon=True).start()
