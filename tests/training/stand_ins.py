"""A small configuration and data set, for tests of the trainer that need no download."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pfa_cli.configuration import Configuration
from pfa_cli.data import WHOLE, Dataset, Part
from pfa_cli.randomness import generator


def configuration(algorithm: str, **settings: Any) -> Configuration:
    base: dict[str, Any] = {
        "recipe": "trial",
        "algorithm": algorithm,
        "dataset": "mnist",
        "network": "mlp",
        "hidden_sizes": (24, 16),
        "epochs": 3,
        "batch_size": 16,
        "learning_rate": 0.05,
        "milestones": (1, 2),
        "learning_rate_factor": 0.5,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "first_epoch_weight_decay": 0.03,
        "probe_images": 32,
    }
    return Configuration(**(base | settings))


class Blobs(Dataset):
    """Noisy images of four classes, in order of (seed, epoch) as the real data sets are."""

    name, description = "blobs", "noisy blobs"
    n_classes, input_shape, train_size = 4, (40,), 200
    splits = ("validation", "test")
    device = torch.device("cpu")

    def to(self, device: torch.device) -> "Blobs":
        self.device, self.images, self.labels = device, self.images.to(device), self.labels.to(device)
        return self

    def __init__(self) -> None:
        stream = generator(0, "blobs")
        self.labels = torch.randint(4, (300,), generator=stream)
        centres = torch.randn(4, 40, generator=stream)
        self.images = centres[self.labels] + torch.randn(300, 40, generator=stream)

    def steps_per_epoch(self, batch_size: int) -> int:
        return self.train_size // batch_size

    def requests(
        self, seed: int, epoch: int, batch_size: int, start_step: int = 0, part: Part = WHOLE
    ) -> Iterator[tuple[Tensor, ...]]:
        order = torch.randperm(self.train_size, generator=generator(seed, "order", epoch)).to(self.device)
        for step in range(start_step, self.steps_per_epoch(batch_size)):
            yield (order[part.of_batch(step, batch_size)],)

    def batch(self, *request: Tensor) -> tuple[Tensor, Tensor]:
        return self.images[request[0]], self.labels[request[0]]

    def evaluation_batches(
        self, split: str, batch_size: int = 16, part: Part = WHOLE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        rows = slice(*{"validation": (200, 250), "test": (250, 300)}[split])
        batches = zip(self.images[rows].split(batch_size), self.labels[rows].split(batch_size), strict=True)
        yield from list(batches)[part.index :: part.count]

    def probe(self, n: int) -> tuple[Tensor, Tensor]:
        return self.images[:n], self.labels[:n]


class Pictures(Blobs):
    """The same for convolutional networks: noisy colour images, sixteen to train on."""

    n_classes, input_shape, train_size = 4, (3, 8, 8), 16

    def __init__(self) -> None:
        super().__init__()
        self.images = torch.randn(300, 3, 8, 8, generator=generator(0, "pictures"))
