"""Imagenette: ten of ImageNet's classes, 9,469 photographs to train and 3,925 to test, whose shorter side has 160 pixels.

A folder in the ImageNet layout, read as `pfa_cli.data.imagefolder` says; fetched where it is missing.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pfa_cli.data.fetch import Download, fetch
from pfa_cli.data.folder import readable
from pfa_cli.data.sources import SourceFailed, Torchvision
from pfa_cli.registry import DatasetEntry

if TYPE_CHECKING:
    import torch

    from pfa_cli.configuration import Configuration
    from pfa_cli.data.imagefolder import ImageFolderDataset

entry = DatasetEntry(
    "imagenette",
    title="Imagenette",
    implementation="pfa_cli.data.imagenette:load",
    prepare="pfa_cli.data.imagenette:prepare",
    settings=("image_size", "corrupt_share_percent"),
    train_images=9469,
    test_images=3925,
    n_classes=10,
    fixed_size=False,
    in_memory=False,
)

FOLDER = "imagenette2-160"
ARCHIVE, ARCHIVE_MD5 = "imagenette2-160.tgz", "e793b78cc4c9e9a4ccc0c1155377a412"


def load(configuration: "Configuration", data_dir: Path, device: "torch.device") -> "ImageFolderDataset":
    """The photographs under ``data_dir``. PfaError if they are not there and cannot be fetched."""
    from pfa_cli.data.imagefolder import open_folder

    prepare(data_dir)
    return open_folder(configuration, locate(data_dir), device)


def prepare(data_dir: Path) -> None:
    """Fetches the folder if it is missing."""
    fetch(DOWNLOAD, data_dir)


def locate(data_dir: Path) -> Path:
    """Where ``train`` and ``val`` lie: in ``data_dir``, or in its folder ``imagenette2-160``, where they are fetched to."""
    return data_dir.resolve() if _is_layout(data_dir) else (data_dir / FOLDER).resolve()


def _is_layout(folder: Path) -> bool:
    with readable(folder):
        return (folder / "train").is_dir() and (folder / "val").is_dir()


def _install(downloaded: Path, data_dir: Path) -> None:
    if not _is_layout(downloaded / FOLDER):
        raise SourceFailed(f"what arrived has no folders {FOLDER}/train and {FOLDER}/val")
    (downloaded / FOLDER).replace(data_dir / FOLDER)


DOWNLOAD = Download(
    title="Imagenette",
    key="imagenette",
    megabytes=99,
    sources=(Torchvision("Imagenette", arguments={"size": "160px"}, from_hand={ARCHIVE: ARCHIVE_MD5}),),
    is_there=lambda data_dir: _is_layout(data_dir) or _is_layout(data_dir / FOLDER),
    install=_install,
    by_hand=f"  {ARCHIVE}  md5 {ARCHIVE_MD5} (from https://s3.amazonaws.com/fast-ai-imageclas/{ARCHIVE}),\n"
    f"  or that archive unpacked, the folder {FOLDER}",
)
