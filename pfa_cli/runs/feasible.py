"""What can never be trained, found before anything of it is stored."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pfa_cli.errors import UsageError

if TYPE_CHECKING:
    import torch

    from pfa_cli.configuration import Configuration
    from pfa_cli.runs.plan import Cell

_TRAINING_IMAGES = {"mnist": 60_000, "cifar10": 50_000}  # a folder's are counted when it is read


def check_batch(configuration: "Configuration") -> None:
    """UsageError if there are fewer images than a batch takes."""
    c = configuration
    there_are = _TRAINING_IMAGES.get(c.dataset, math.inf) - c.validation_images
    images = max(0, min(there_are, c.train_images or math.inf))
    if c.batch_size > images:
        raise UsageError(
            f"batch_size (={c.batch_size}) must be at most the number of training images (={images})"
        )


def check(cells: Iterable["Cell"], device: "torch.device", ranks: int = 1) -> None:
    """UsageError if a cell that is not done could not be trained on ``device`` by so many ranks."""
    from pfa_cli.training.precision import Precision  # here: whoever makes a plan does without torch

    for cell in cells:
        if cell.state != "done":
            cell.configuration.check_ranks(ranks)
            Precision(cell.configuration.precision, device)
