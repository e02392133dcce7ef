"""Which training images are held out, and in which order the others come."""

import torch
from torch import Tensor

from pfa_cli.data.augment import CropAndFlip
from pfa_cli.errors import UsageError
from pfa_cli.randomness import generator


def hold_out(n: int, validation_images: int, split_seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the training and the validation images, in random order, from ``split_seed`` alone."""
    check_validation_images(n, validation_images)
    order = torch.randperm(n, generator=generator(split_seed, "split"))
    return order[validation_images:], order[:validation_images]


def check_validation_images(n: int, validation_images: int) -> None:
    """UsageError if none of ``n`` training images is left."""
    if validation_images >= n:
        raise UsageError(
            f"validation_images (={validation_images}) must leave some of the {n} training images"
        )


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """A permutation of the ``n`` training images, from (seed, epoch) alone."""
    return torch.randperm(n, generator=generator(seed, "order", epoch))


class Order:
    """All that is drawn to hand out the images of a data set in memory."""

    def hold_out(self, n: int, validation_images: int, split_seed: int) -> tuple[Tensor, Tensor]:
        """See `hold_out`."""
        return hold_out(n, validation_images, split_seed)

    def epoch(
        self, n: int, batch_size: int, augmentation: CropAndFlip | None, seed: int, epoch: int
    ) -> list[Tensor]:
        """From (seed, epoch) alone: the order of ``n`` images, [n], and how each one in it is moved, [≥ images used, 3]."""
        drawn = [epoch_order(n, seed, epoch)]
        if augmentation is not None:
            drawn.append(augmentation.draw(n, generator(seed, "augmentation", epoch)))
        return drawn


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Whole batches in ``n`` images; UsageError if there is none."""
    if batch_size > n:
        raise UsageError(f"batch_size (={batch_size}) must be at most the number of training images (={n})")
    return n // batch_size
