"""Data sets: fetched on first use, verified, and handed out as batches on the device."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pfa_cli.data.folder import default_data_dir
from pfa_cli.data.part import WHOLE, Part
from pfa_cli.registry import ALGORITHMS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pfa_cli.configuration import Configuration
    from pfa_cli.recipes import Recipe

__all__ = [
    "WHOLE",
    "Dataset",
    "Part",
    "check_data",
    "default_data_dir",
    "load_dataset",
    "prepare_data",
    "verify_data",
]


@runtime_checkable
class Dataset(Protocol):
    """What the trainer asks of a data set; to be inherited. Batches: float32 images, normalised, and int64 labels."""

    name: str
    description: str  # one line, stored with the run
    n_classes: int
    input_shape: tuple[int, ...]  # of one image
    train_size: int
    device: "torch.device"
    splits: tuple[str, ...]  # what `evaluation_batches` can give

    def steps_per_epoch(self, batch_size: int) -> int:
        """Batches in an epoch; the last one is dropped if incomplete. UsageError if that leaves none."""

    def requests(
        self, seed: int, epoch: int, batch_size: int, start_step: int = 0, part: Part = WHOLE
    ) -> "Iterator[tuple[Tensor, ...]]":
        """What to ask of `batch` for the epoch's batches from ``start_step`` on: order, augmentation from (seed, epoch) alone.

        Tensors on the device, of the same shapes at every step.
        ``part``: only this part of every batch, for one of several processes that train together.
        """

    def batch(self, *request: "Tensor") -> "tuple[Tensor, Tensor]":
        """The images [b, *input_shape] and labels [b] of one request.

        By work on the device alone, so that a GPU can record it with the step.
        """

    def train_batches(
        self, seed: int, epoch: int, batch_size: int, start_step: int = 0, part: Part = WHOLE
    ) -> "Iterator[tuple[Tensor, Tensor]]":
        """The batches of all `requests`."""
        for request in self.requests(seed, epoch, batch_size, start_step, part):
            yield self.batch(*request)

    def evaluation_batches(
        self, split: str, batch_size: int = ..., part: Part = WHOLE
    ) -> "Iterator[tuple[Tensor, Tensor]]":
        """All images of ``split`` in a fixed order, without augmentation; with ``part`` only every ``part.count``-th batch."""

    def probe(self, n: int) -> "tuple[Tensor, Tensor]":
        """The first ``n`` training images, without augmentation: the same ones at every call."""


def load_dataset(configuration: "Configuration", data_dir: Path, device: "torch.device") -> Dataset:
    """The configuration's data set on ``device``, fetched into ``data_dir`` first if it is not there.

    Raises:
        PfaError: it cannot be fetched, or a file is damaged; says what to put where. A plug-in gave no data set.
    """
    entry = configuration.dataset_entry
    found = entry.load()(configuration, data_dir, device)
    if isinstance(found, Dataset):
        return found
    from pfa_cli.data.in_memory import from_tensors

    return from_tensors(entry.title or entry.name, found, configuration, device)


def prepare_data(configuration: "Configuration", data_dir: Path) -> None:
    """Fetches the data set if it is not there, without loading it: for a launcher, before its workers."""
    configuration.dataset_entry.fetch(data_dir)


def verify_data(recipe: "Recipe", data_dir: Path) -> Iterator[str]:
    """Fetches what is missing of the recipe's data sets and reads them whole, checksums and all; describes each.

    Raises:
        PfaError: as `load_dataset`.
    """
    import torch

    configurations = [recipe.configuration(name) for name in ALGORITHMS]  # nearly always of one data set
    for configuration in {c.dataset_identity: c for c in configurations}.values():
        yield load_dataset(configuration, data_dir, torch.device("cpu")).description


def check_data(configuration: "Configuration", data_dir: Path) -> None:
    """Raises what `prepare_data` and `load_dataset` would raise, without fetching anything: for a dry run.

    What a plug-in does is not known before it does it.
    """
    from pfa_cli.data.fetch import NotFetched, without_fetching

    entry = configuration.dataset_entry
    if entry.source is None:
        with suppress(NotFetched), without_fetching():
            prepare_data(configuration, data_dir)
            if entry.in_memory:
                import torch

                load_dataset(configuration, data_dir, torch.device("cpu"))
