"""Files that are written whole or not at all, and only regular files: never a pipe, a device or a folder.

Every error but that of ``save`` is an OSError, so that a caller that explains "disk full" explains these, too.
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pfa_cli.errors import PfaError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def refuse_special(path: Path) -> None:
    """Raises OSError if ``path`` is there and is no regular file.

    Reading a pipe waits for ever, reading a device such as ``/dev/zero`` fills memory or the disk.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    _refuse(mode, path)


def open_regular(path: Path) -> BinaryIO:
    """``path`` opened for reading; OSError if it is no regular file. Never waits for a pipe's other end."""
    refuse_special(path)  # before opening: to open a device can already do something
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: PTH123, SIM115
    try:
        _refuse(os.fstat(file.fileno()).st_mode, path)
    except BaseException:
        file.close()
        raise
    return file


def read(path: Path) -> bytes:
    """The content of a regular file; OSError if it cannot be read or is none."""
    with open_regular(path) as file:
        return file.read()


def write(path: Path, content: bytes | str, *, durable: bool = True) -> Path:
    """Writes the whole file, or leaves what was there (see ``replacing``); text in UTF-8. Returns ``path``."""
    with replacing(path, durable=durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path


def save(path: Path, content: bytes | str) -> Path:
    """Writes a result into a folder of the user's choice, which is made if need be (see ``write``). Returns ``path``.

    Raises PfaError if that is not possible.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write(path, content, durable=False)
    except OSError as error:
        raise PfaError(f"cannot write {path} ({error.strerror}); name another folder with --out") from None


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A file to fill, that takes the place of ``path`` when the block ends well. The folder must be there.

    It is written under a name that begins with a dot and ``path``'s name, then renamed: nobody sees half of it. A
    link at ``path`` is replaced; what it points to stays as it is. ``durable``: content and name are on the disk
    before the block is left, so that they survive a power cut. That costs milliseconds; figures do without.
    """
    refuse_special(path)
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.partial")
    try:
        with temporary.open("xb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        _sync_folder(path.parent)


def check_could_write(path: Path) -> None:
    """Raises OSError if a file could not be written at ``path``, whose folders need not be there. Changes nothing."""
    refuse_special(path)
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(nearest))
    for there in (nearest, path):
        if there.exists() and not os.access(there, os.W_OK):
            raise PermissionError(errno.EACCES, "read-only", str(there))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


def _refuse(mode: int, path: Path) -> None:
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind is not None:
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, f"it is {kind}, not a regular file", str(path))
