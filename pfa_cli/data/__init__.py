"""Data sets: fetched on first use, verified, and handed out as batches on the device."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pfa_cli.data.dataset import WHOLE, Dataset, Part
from pfa_cli.data.folder import default_data_dir
from pfa_cli.registry import ALGORITHMS

if TYPE_CHECKING:
    import torch

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
