"""Which training images are held out, and in which order the others come."""

import torch
from torch import Tensor

from pfa_cli.errors import UsageError
from pfa_cli.randomness import generator


def hold_out(n: int, validation_images: int, split_seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the training and the validation images, in random order, from ``split_seed`` alone."""
    if validation_images >= n:
        raise UsageError(
            f"validation_images (={validation_images}) must leave some of the {n} training images"
        )
    order = torch.randperm(n, generator=generator(split_seed, "split"))
    return order[validation_images:], order[:validation_images]


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """A permutation of the ``n`` training images, from (seed, epoch) alone."""
    return torch.randperm(n, generator=generator(seed, "order", epoch))


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Whole batches in ``n`` images; UsageError if there is none."""
    if batch_size > n:
        raise UsageError(f"batch_size (={batch_size}) must be at most the number of training images (={n})")
    return n // batch_size
