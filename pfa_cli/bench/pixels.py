"""The images that steps are timed on: the recipe's own where they are at hand, else random pixels of their shape."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

import torch

from pfa_cli.configuration import Configuration
from pfa_cli.data import load_dataset
from pfa_cli.data.augment import CropAndFlip
from pfa_cli.data.in_memory import InMemoryDataset, LabelledImages
from pfa_cli.data.splits import steps_per_epoch

Pixels = Literal["real", "random"]

EVALUATED = 2000  # images at most; the time of evaluation is scaled up from them
_RANDOM_BYTES = 160_000_000  # at most, of random pixels: all of CIFAR-10, or about a thousand photographs


@dataclass(frozen=True)
class _Source:
    """What is known of a data set without having it."""

    train: int  # images
    test: int
    n_classes: int
    augmentation: CropAndFlip | None = None


_SOURCES = {
    "mnist": _Source(60_000, 10_000, 10),
    "cifar10": _Source(50_000, 10_000, 10, CropAndFlip(padding=4)),
    "imagefolder": _Source(1_281_167, 50_000, 1000),  # ImageNet
}


def epoch_images(configuration: Configuration) -> tuple[int, int]:
    """How many images an epoch trains on, and how many it evaluates; those of ImageNet for any photographs."""
    source, validation = _SOURCES[configuration.dataset], configuration.validation_images
    train = min(configuration.train_images or source.train, source.train - validation)
    return train, validation + min(configuration.test_images or source.test, source.test)


def epoch_steps(configuration: Configuration) -> int:
    """Steps in an epoch."""
    return steps_per_epoch(epoch_images(configuration)[0], configuration.batch_size)


def which_pixels(configuration: Configuration, data_dir: Path) -> Pixels:
    """Real ones if they are in ``data_dir``.

    Photographs are never read: other processes decode them, and a step does not depend on what they show.
    """
    download = getattr(import_module(f"pfa_cli.data.{configuration.dataset}"), "DOWNLOAD", None)
    return "real" if download is not None and download.is_there(data_dir) else "random"


def bench_dataset(
    configuration: Configuration, pixels: Pixels, data_dir: Path, device: torch.device
) -> InMemoryDataset:
    """Images on ``device``: as many to train on as the recipe has (random ones: up to 160 MB), few to evaluate."""
    evaluated = min(EVALUATED, configuration.test_images or EVALUATED)
    few = configuration.model_copy(update={"test_images": evaluated, "validation_images": 0})
    if pixels == "real":
        dataset = load_dataset(few, data_dir, device)
        assert isinstance(dataset, InMemoryDataset)
        return dataset
    source, (n_classes, shape) = _SOURCES[configuration.dataset], classes_and_shape(configuration)
    n = max(configuration.batch_size, _RANDOM_BYTES // torch.Size(shape).numel())
    return InMemoryDataset(
        "random pixels",
        _noise(min(n, source.train), shape, n_classes),
        _noise(evaluated, shape, n_classes),
        few,
        device,
        mean=(0.5,) * (1 if len(shape) == 1 else shape[0]),
        std=(0.25,) * (1 if len(shape) == 1 else shape[0]),
        augmentation=source.augmentation,
    )


def classes_and_shape(configuration: Configuration) -> tuple[int, tuple[int, ...]]:
    """How many classes there are, and the shape of one image; ImageNet's for any photographs."""
    shape: tuple[int, ...] = (784,)
    if configuration.dataset != "mnist":
        side = configuration.image_size or 32
        shape = (3, side, side)
    return _SOURCES[configuration.dataset].n_classes, shape


def _noise(n: int, shape: tuple[int, ...], n_classes: int) -> LabelledImages:
    """``n`` images of random bytes; the last label is that of the last class, so that all classes are counted."""
    stream = torch.Generator().manual_seed(0)
    labels = torch.randint(n_classes, (n,), generator=stream)
    labels[-1] = n_classes - 1
    return LabelledImages(torch.randint(256, (n, *shape), dtype=torch.uint8, generator=stream), labels)
