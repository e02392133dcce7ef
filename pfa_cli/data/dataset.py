"""What the trainer asks of a data set."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Part:
    """One of ``count`` equal parts of every batch, ``index`` from 0: that of one of several processes that train together."""

    index: int
    count: int

    def of_batch(self, step: int, batch_size: int) -> slice:
        """Where this part of batch ``step`` lies in the epoch's order."""
        size = batch_size // self.count
        start = step * batch_size + self.index * size
        return slice(start, start + size)


WHOLE = Part(0, 1)


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
