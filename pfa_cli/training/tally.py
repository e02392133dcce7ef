"""Loss and accuracy summed over images, on the device and without waiting for it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pfa_cli.ranks import Ranks


class Tally:
    """Sums over the images added so far."""

    def __init__(self, device: torch.device, *, top5: bool = False) -> None:
        self._images = torch.zeros((), dtype=torch.int64, device=device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._hits = torch.zeros((), dtype=torch.int64, device=device)
        self._hits5 = torch.zeros_like(self._hits) if top5 else None

    @torch.no_grad()
    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """A batch: logits [b, n_classes], labels [b], and the batch's mean loss."""
        self._images += len(labels)
        self._loss += loss.detach() * len(labels)
        self._hits += (logits.argmax(1) == labels).sum()
        if self._hits5 is not None:
            self._hits5 += (logits.topk(5).indices == labels[:, None]).sum()

    def clear(self) -> None:
        """Zeroes the sums in place: a CUDA graph adds to them by their addresses."""
        for total in (self._images, self._loss, self._hits):
            total.zero_()
        if self._hits5 is not None:
            self._hits5.zero_()

    @property
    def images(self) -> int:
        """How many images were added; waits for the device."""
        return int(self._images.item())

    @property
    def accuracy_percent(self) -> float | None:
        """Of the images that this process has added; None without any. Waits for the device."""
        return 100 * self._hits.item() / self.images if self.images else None

    def over(self, ranks: Ranks) -> "Tally":
        """The tally of all ranks together."""
        total = Tally(self._loss.device, top5=self._hits5 is not None)
        total._images = ranks.sum(self._images)
        total._loss, total._hits = ranks.sum(self._loss), ranks.sum(self._hits)
        total._hits5 = None if self._hits5 is None else ranks.sum(self._hits5)
        return total

    def means(self) -> dict[str, float]:
        """``images`` and, if there were any, ``loss`` and ``accuracy_percent``; ``top5_accuracy_percent`` where it is tallied.

        Waits for the device, once.
        """
        images, loss, *hits = self._fetch()
        if not images:
            return {"images": 0}
        names = ("accuracy_percent", "top5_accuracy_percent")[: len(hits)]
        accuracies = {name: 100 * n / images for name, n in zip(names, hits, strict=True)}
        return {"images": images, "loss": loss / images} | accuracies

    def _fetch(self) -> list[float]:
        """Images, loss, hits and, where they are tallied, hits among the first five."""
        totals = [self._images, self._loss, self._hits]
        totals += [] if self._hits5 is None else [self._hits5]
        return torch.stack([total.double() for total in totals]).tolist()

    def state(self) -> dict[str, Tensor]:
        """What `restore` takes; a training tally has no top-5."""
        return {"images": self._images, "loss": self._loss, "hits": self._hits}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        # Copied into place: what was loaded from a file may lie otherwise in memory.
        self._images.copy_(state["images"])
        self._loss.copy_(state["loss"])
        self._hits.copy_(state["hits"])
