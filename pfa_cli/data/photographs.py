"""Photographs in folders, one folder per class: which files they are, and the pixels of one."""

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from pfa_cli.data.folder import readable
from pfa_cli.errors import PfaError, shown

_NARROWEST = 100  # length / width; scaled to the size of a crop, a longer image would fill the memory


class Undecodable(Exception):
    """A file is not an image that can be used; the message says why."""


@dataclass(frozen=True)
class Photographs:
    """``paths`` [n] below ``root`` (as bytes in one array, which reach other processes faster than a list).

    ``kept``: the pixels [height, width, 3] of those decoded so far, by index, where they stay in memory.
    """

    root: Path
    paths: NDArray[np.bytes_]
    labels: NDArray[np.int64]
    kept: dict[int, NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> "Photographs":
        return Photographs(self.root, self.paths[indices], self.labels[indices])

    def path(self, index: int) -> Path:
        return self.root / os.fsdecode(self.paths[index])

    def image(self, index: int) -> Image.Image:
        """The photograph, see `decode`; decoded once where they are ``kept``."""
        if self.kept is None:
            return decode(self.path(index))
        if index not in self.kept:
            self.kept[index] = np.asarray(decode(self.path(index)))
        return Image.fromarray(self.kept[index])

    def decoded_bytes(self, sample: int = 200) -> int:
        """About how many bytes all of them take decoded, by the sizes of ``sample`` of them."""
        indices = range(0, len(self), max(1, len(self) // sample))
        sizes = [size for index in indices if (size := _size(self.path(index))) is not None]
        return round(3 * len(self) * sum(w * h for w, h in sizes) / len(sizes)) if sizes else 0


def find_photographs(root: Path) -> tuple[Photographs, list[str], str]:
    """The images below ``root``, sorted by class, folder and name; the classes; what was skipped, in one line or "".

    A class is a folder in ``root``, its images are in it at any depth. Links are followed. Skipped are hidden names (they
    begin with a dot), links to a folder that contains them, and files that are not regular or have no image's ending.

    Raises:
        PfaError: a folder cannot be read, or a class has no images.
    """
    skipped: dict[str, list[str]] = defaultdict(list)
    outside = {_identity(folder.stat()) for folder in (root, *root.parents, *root.resolve().parents)}
    classes = [entry.path for entry, is_folder in _visible(str(root), outside, skipped) if is_folder]
    paths, labels, empty = [], [], []
    for label, folder in enumerate(sorted(classes)):
        found = _images(folder, outside, skipped)
        paths += [os.fsencode(path[len(f"{root}/") :]) for path in found]
        labels += [label] * len(found)
        if not found:
            empty.append(Path(folder).name)
    if not classes:
        raise PfaError(f"{root}: there are no class folders in it")
    if empty:
        some = ", ".join(empty[:5]) + (" …" if len(empty) > 5 else "")
        raise PfaError(f"{root}: no images in {some}; their names end in {', '.join(IMG_EXTENSIONS)}")
    names = [Path(folder).name for folder in sorted(classes)]
    return Photographs(root, np.array(paths), np.array(labels)), names, _in_words(skipped, root)


def decode(path: Path) -> Image.Image:
    """The image in ``path`` as 8-bit RGB; 16-bit grey is scaled to 8 bits.

    Raises:
        Undecodable: whatever is wrong with the file.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a FIFO would be waited for
            raise Undecodable("not a regular file")
        with Image.open(path) as image:
            width, height = image.size
            if max(width, height) > _NARROWEST * min(width, height):
                raise Undecodable(f"{width} × {height} pixels, one side more than {_NARROWEST} × the other")
            return _as_bytes(image).convert("RGB")
    except Undecodable:
        raise
    except Exception as error:  # decoders raise what they like on damaged files: struct.error, IndexError, …
        raise Undecodable(str(error) or type(error).__name__) from error


def _size(path: Path) -> tuple[int, int] | None:
    """Width and height, without decoding; None where it is no image."""
    if not path.is_file():
        return None
    try:
        with Image.open(path) as image:
            return image.size
    except Exception:  # as in `decode`
        return None


def _as_bytes(image: Image.Image) -> Image.Image:
    """``image`` with 8 bits per channel. Pillow's own conversion of wider pixels cuts them off at 255."""
    sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if sixteen_bits:
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if image.mode.startswith(("I", "F")):
        raise Undecodable(f"pixels of mode {image.mode}, whose white is not known")
    if image.mode == "P":
        image.info.pop("transparency", None)  # of no use for RGB, and Pillow would warn of it
    return image


def _images(top: str, outside: set[tuple[int, int]], skipped: dict[str, list[str]]) -> list[str]:
    """The images in ``top`` and the folders below it. ``outside``: the folders that ``top`` lies in."""
    found, pending = [], [(top, outside)]
    while pending:
        folder, above = pending.pop()
        above = above | {_identity(Path(folder).stat())}
        for entry, is_folder in _visible(folder, above, skipped):
            if is_folder:
                pending.append((entry.path, above))
            elif not entry.name.lower().endswith(IMG_EXTENSIONS):
                skipped["of another ending"].append(entry.path)
            elif entry.is_symlink() or entry.is_file():  # a broken link is named when it is to be decoded
                found.append((folder, entry.name, entry.path))
            else:
                skipped["not a regular file"].append(entry.path)
    return [path for _, _, path in sorted(found)]


def _visible(
    folder: str, above: set[tuple[int, int]], skipped: dict[str, list[str]]
) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """What is in ``folder``, and whether it is a folder; without hidden names and links back to one of ``above``."""
    with readable(Path(folder)), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                skipped["hidden"].append(entry.path)
            elif _leads_back(entry, above):
                skipped["linked in a circle"].append(entry.path)
            else:
                yield entry, entry.is_dir()


def _leads_back(entry: os.DirEntry[str], above: set[tuple[int, int]]) -> bool:
    """Whether a link leads to a folder that contains it, or to itself."""
    try:
        return entry.is_symlink() and entry.is_dir() and _identity(entry.stat()) in above
    except OSError as error:
        if error.errno == errno.ELOOP:
            return True
        raise


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _in_words(skipped: dict[str, list[str]], root: Path) -> str:
    parts = [
        f"{len(paths)} {reason} (for example {Path(min(paths)).relative_to(root)})"
        for reason, paths in skipped.items()
    ]
    return shown(f"skipped in {root}: {', '.join(parts)}") if parts else ""
