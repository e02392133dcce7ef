"""The images that steps are timed on: the recipe's own where they are at hand, else random pixels of their shape."""

import math
from importlib import import_module
from pathlib import Path
from typing import Literal

import torch

from pfa_cli.configuration import Configuration
from pfa_cli.data import load_dataset
from pfa_cli.data.augment import CropAndFlip
from pfa_cli.data.in_memory import InMemoryDataset, LabelledImages
from pfa_cli.data.splits import steps_per_epoch
from pfa_cli.errors import UsageError

Pixels = Literal["real", "random"]

EVALUATED = 2000  # images at most; the time of evaluation is scaled up from them
_RANDOM_BYTES = 160_000_000  # at most, of random pixels: all of CIFAR-10, or about a thousand photographs
_AUGMENTATION = {"cifar10": CropAndFlip(padding=4)}  # on the device, so that it is a part of the step


def declared(configuration: Configuration) -> tuple[int, int, int, tuple[int, ...]]:
    """Training images, test images, classes and the shape of an image, as the data set declares them.

    Those of ImageNet for any photographs. UsageError for a plug-in that does not declare them.
    """
    entry, shape = configuration.dataset_entry, configuration.input_shape
    if entry.train_images is None or entry.test_images is None or entry.n_classes is None or shape is None:
        raise UsageError(
            f"data set {entry.name} does not say how large it is: its DatasetEntry needs train_images, test_images, "
            "n_classes and input_shape to be benchmarked"
        )
    return entry.train_images, entry.test_images, entry.n_classes, shape


def epoch_images(configuration: Configuration) -> tuple[int, int]:
    """How many images an epoch trains on, and how many it evaluates."""
    n_train, n_test, _, _ = declared(configuration)
    validation = configuration.validation_images
    train = min(configuration.train_images or n_train, n_train - validation)
    return train, validation + min(configuration.test_images or n_test, n_test)


def epoch_steps(configuration: Configuration) -> int:
    """Steps in an epoch."""
    return steps_per_epoch(epoch_images(configuration)[0], configuration.batch_size)


def which_pixels(configuration: Configuration, data_dir: Path) -> Pixels:
    """Real ones of a data set of this package that is in ``data_dir``.

    Photographs are never read: other processes decode them, and a step does not depend on what they show.
    """
    entry = configuration.dataset_entry
    if entry.source is not None or not entry.in_memory:
        return "random"
    there = import_module(entry.implementation.partition(":")[0]).DOWNLOAD.is_there(data_dir)
    return "real" if there else "random"


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
    n_train, _, n_classes, shape = declared(configuration)
    n = min(n_train, max(configuration.batch_size, _RANDOM_BYTES // math.prod(shape)))
    channels = 1 if len(shape) == 1 else shape[0]
    return InMemoryDataset(
        "random pixels",
        _noise(n, shape, n_classes),
        _noise(evaluated, shape, n_classes),
        few,
        device,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        augmentation=_AUGMENTATION.get(configuration.dataset),
    )


def _noise(n: int, shape: tuple[int, ...], n_classes: int) -> LabelledImages:
    """``n`` images of random bytes; the last label is that of the last class, so that all classes are counted."""
    stream = torch.Generator().manual_seed(0)
    labels = torch.randint(n_classes, (n,), generator=stream)
    labels[-1] = n_classes - 1
    return LabelledImages(torch.randint(256, (n, *shape), dtype=torch.uint8, generator=stream), labels)
