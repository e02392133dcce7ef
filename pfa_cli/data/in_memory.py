"""A data set that lives on the device whole: bytes, turned into normalised floats batch by batch.

Bytes rather than floats since they take a quarter of the memory, and gathering and normalising a batch is no
slower than gathering floats (MNIST, batch 64, one core: 25 µs against 30 µs).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pfa_cli.configuration import Configuration
from pfa_cli.data.augment import CropAndFlip
from pfa_cli.data.dataset import WHOLE, Dataset, Part
from pfa_cli.data.splits import Order, steps_per_epoch
from pfa_cli.errors import PfaError, unknown
from pfa_cli.published_draws import PublishedOrder


@dataclass(frozen=True)
class LabelledImages:
    """``images`` uint8 [n, *shape], ``labels`` int64 [n]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor | slice) -> "LabelledImages":
        return LabelledImages(self.images[indices], self.labels[indices])

    def to(self, device: torch.device) -> "LabelledImages":
        return LabelledImages(self.images.to(device), self.labels.to(device))


class InMemoryDataset(Dataset):
    """See `pfa_cli.data.Dataset`. ``mean`` and ``std`` are per channel, of pixels scaled to [0, 1]."""

    def __init__(
        self,
        name: str,
        training: LabelledImages,
        test: LabelledImages,
        configuration: Configuration,
        device: torch.device,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: CropAndFlip | None = None,
    ) -> None:
        self.name, self.device, self._augmentation = name, device, augmentation
        self._order = PublishedOrder(configuration) if configuration.draws == "published" else Order()
        self.n_classes = int(training.labels.max()) + 1
        self.input_shape = tuple(training.images.shape[1:])
        kept, held_out = self._order.hold_out(
            len(training), configuration.validation_images, configuration.split_seed
        )
        self._training = training.take(kept.sort().values[: configuration.train_images]).to(device)
        self._evaluation = {"test": test.take(slice(configuration.test_images)).to(device)}
        if len(held_out):
            self._evaluation = {
                "validation": training.take(held_out.sort().values).to(device)
            } | self._evaluation
        self.train_size = len(self._training)
        self.splits = tuple(self._evaluation)
        sizes = [f"{self.train_size} train"] + [
            f"{len(part)} {split}" for split, part in self._evaluation.items()
        ]
        self.description = f"{name}, {' / '.join(sizes)}"
        axes = [1] * (len(self.input_shape) - 1)
        as_channels = torch.tensor([mean, std], device=device).view(2, -1, *axes)
        self._scale, self._shift = 1 / (255 * as_channels[1]), -as_channels[0] / as_channels[1]

    def steps_per_epoch(self, batch_size: int) -> int:
        return steps_per_epoch(self.train_size, batch_size)

    def requests(
        self, seed: int, epoch: int, batch_size: int, start_step: int = 0, part: Part = WHOLE
    ) -> Iterator[tuple[Tensor, ...]]:
        # Drawn for the whole epoch at once and then sliced, so that an epoch can be entered at any step.
        drawn = self._order.epoch(self.train_size, batch_size, self._augmentation, seed, epoch)
        drawn = [tensor.to(self.device) for tensor in drawn]
        for step in range(start_step, self.steps_per_epoch(batch_size)):
            rows = part.of_batch(step, batch_size)
            yield tuple(tensor[rows] for tensor in drawn)

    def batch(self, *request: Tensor) -> tuple[Tensor, Tensor]:
        chosen, *moves = request
        images = self._training.images.index_select(0, chosen)
        if self._augmentation is not None:
            images = self._augmentation.apply(images, *moves)
        return self._normalise(images), self._training.labels.index_select(0, chosen)

    def evaluation_batches(
        self, split: str, batch_size: int = 500, part: Part = WHOLE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if split not in self._evaluation:
            raise unknown("split", split, self.splits)
        images = self._evaluation[split]
        for start in range(part.index * batch_size, len(images), part.count * batch_size):
            batch = images.take(slice(start, start + batch_size))
            yield self._normalise(batch.images), batch.labels

    def probe(self, n: int) -> tuple[Tensor, Tensor]:
        first = self._training.take(slice(n))
        return self._normalise(first.images), first.labels

    def _normalise(self, images: Tensor) -> Tensor:
        return images.to(torch.float32, copy=True).mul_(self._scale).add_(self._shift)


def from_tensors(
    name: str, tensors: object, configuration: Configuration, device: torch.device
) -> InMemoryDataset:
    """The data set of what a plug-in returned: training images and labels, test images and labels.

    Images [n, pixels] or [n, channels, height, width]: bytes, which are normalised by the mean and standard deviation of the
    training images, per channel; or floats, which are taken as they are. Labels: whole numbers from 0, [n].

    Raises:
        PfaError: they have another form; says which.
    """
    if not isinstance(tensors, tuple | list) or len(tensors) != 4:
        raise PfaError(
            f"data set {name}: its function must return a Dataset, or four tensors (training images, training labels, "
            f"test images, test labels), not {type(tensors).__name__}"
        )
    try:
        parts = [torch.as_tensor(tensor) for tensor in tensors]
    except (TypeError, ValueError, RuntimeError) as error:
        raise PfaError(f"data set {name}: what its function returned cannot be tensors ({error})") from None
    for what, images, labels in (("training", parts[0], parts[1]), ("test", parts[2], parts[3])):
        if images.ndim not in (2, 4) or labels.shape != images.shape[:1] or not len(images):
            raise PfaError(
                f"data set {name}: {what} images must be [n, pixels] or [n, channels, height, width] and labels [n], "
                f"not {list(images.shape)} and {list(labels.shape)}"
            )
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise PfaError(f"data set {name}: {what} images must be uint8 or float, not {images.dtype}")
        if labels.is_floating_point():
            raise PfaError(
                f"data set {name}: {what} labels must be whole numbers of an integer type, not {labels.dtype}"
            )
        if labels.min() < 0 or labels.max() > parts[1].max():
            raise PfaError(f"data set {name}: {what} labels must be whole numbers from 0 to {parts[1].max()}")
    if parts[0].dtype != parts[2].dtype or parts[0].shape[1:] != parts[2].shape[1:]:
        raise PfaError(f"data set {name}: training and test images must have the same type and shape")
    mean, std = [0.0], [1 / 255]  # floats as they are: the data set divides by 255
    if parts[0].dtype == torch.uint8:
        channels = 1 if parts[0].ndim == 2 else parts[0].shape[1]
        scaled = parts[0].reshape(len(parts[0]), channels, -1).double() / 255
        mean, std = scaled.mean((0, 2)).tolist(), scaled.std((0, 2)).clamp(min=1 / 255).tolist()
    training, test = (LabelledImages(parts[i], parts[i + 1].long()) for i in (0, 2))
    return InMemoryDataset(name, training, test, configuration, device, mean, std)
