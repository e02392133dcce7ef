"""Photographs in the ImageNet layout: ``train/<class>/*`` and ``val/<class>/*``. Never downloaded."""

import logging
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pfa_cli.configuration import Configuration
from pfa_cli.cores import decoding_processes, sharing_processes
from pfa_cli.data.dataset import WHOLE, Dataset, Part
from pfa_cli.data.folder import readable
from pfa_cli.data.photographs import find_photographs
from pfa_cli.data.pipeline import Batch, Loader, Pipeline, Request, Unreadable, collate
from pfa_cli.data.splits import epoch_order, hold_out, steps_per_epoch
from pfa_cli.errors import PfaError, UsageError, shown, unknown
from pfa_cli.registry import DatasetEntry
from pfa_cli.wording import count

entry = DatasetEntry(
    "imagefolder",
    title="photographs in folders",
    implementation="pfa_cli.data.imagefolder:load",
    prepare="pfa_cli.data.imagefolder:prepare",
    settings=("image_size", "corrupt_share_percent"),
    train_images=1_281_167,  # those of ImageNet; a folder's own are counted when it is read
    test_images=50_000,
    n_classes=1000,
    fixed_size=False,
    in_memory=False,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, scaled to [0, 1]
_log = logging.getLogger(__name__)


class ImageFolderDataset(Dataset):
    """See `pfa_cli.data.Dataset`. The split "test" is the ``val`` folder, "validation" a part of ``train``.

    Images come in an order drawn from ``split_seed``, so that the first N of them are of all classes.
    ``unreadable`` holds the image files that could not be decoded so far, with the reason.

    Where all photographs fit into ``room`` bytes, each is decoded once, and stays in memory in this process, which serves
    them itself; else ``workers`` processes decode them at every use. The batches are the same.

    Raises:
        PfaError: the folders do not have this layout; while iterating, more than ``corrupt_share_percent``
            of a split's images are unreadable.
    """

    def __init__(
        self, configuration: Configuration, root: Path, device: torch.device, workers: int, room: int = 0
    ) -> None:
        assert configuration.image_size is not None and configuration.corrupt_share_percent is not None
        self.name, self.device = shown(root.name), device
        self.input_shape = (3, configuration.image_size, configuration.image_size)
        self.unreadable: dict[str, Unreadable] = {}
        self._share_percent = configuration.corrupt_share_percent
        training, classes, skipped = find_photographs(root / "train")
        test, test_classes, skipped_test = find_photographs(root / "val")
        for words in filter(None, (skipped, skipped_test)):
            _log.warning(words)
        if classes != test_classes:
            raise PfaError(
                f"{root}: train and val must have the same classes; "
                f"only in one of them: {', '.join(sorted(set(classes) ^ set(test_classes)))}"
            )
        self.n_classes = len(classes)
        kept, held_out = hold_out(len(training), configuration.validation_images, configuration.split_seed)
        shuffled, _ = hold_out(len(test), 0, configuration.split_seed)
        self._photographs = {
            "train": training.take(kept[: configuration.train_images].numpy()),
            "validation": training.take(held_out.numpy()),
            "test": test.take(shuffled[: configuration.test_images].numpy()),
        }
        self.splits = ("validation", "test") if len(held_out) else ("test",)
        self.train_size = len(self._photographs["train"])
        sizes = [f"{len(self._photographs[split])} {split}" for split in ("train", *self.splits)]
        self.description = f"{self.name} ({count(self.n_classes, 'class')}), {' / '.join(sizes)}"
        if self._keep(room):
            workers = 0
        tolerated = {split: int(len(p) * self._share_percent / 100) for split, p in self._photographs.items()}
        self._loader = Loader(self._photographs, tolerated, configuration.image_size)
        self._pipeline = Pipeline(self._loader, workers)
        self._probes: dict[int, tuple[Tensor, Tensor]] = {}
        mean, std = torch.tensor([MEAN, STD], device=device).view(2, 3, 1, 1)
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def steps_per_epoch(self, batch_size: int) -> int:
        return steps_per_epoch(self.train_size, batch_size)

    def requests(
        self, seed: int, epoch: int, batch_size: int, start_step: int = 0, part: Part = WHOLE
    ) -> Iterator[tuple[Tensor, ...]]:
        steps = range(start_step, self.steps_per_epoch(batch_size))
        order = epoch_order(self.train_size, seed, epoch)
        return self._served(
            [
                Request("train", index, seed, epoch)
                for index in order[part.of_batch(step, batch_size)].tolist()
            ]
            for step in steps
        )

    def batch(self, *request: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = request
        return images.to(torch.float32).mul_(self._scale).add_(self._shift), labels

    def evaluation_batches(
        self, split: str, batch_size: int = 250, part: Part = WHOLE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if split not in self.splits:
            raise unknown("split", split, self.splits)
        n = len(self._photographs[split])
        served = self._served(
            [Request(split, index) for index in range(start, min(start + batch_size, n))]
            for start in range(part.index * batch_size, n, part.count * batch_size)
        )
        return (self.batch(*pixels_and_labels) for pixels_and_labels in served)

    def probe(self, n: int) -> tuple[Tensor, Tensor]:
        if n not in self._probes:
            samples = [self._loader[Request("train", index)] for index in range(min(n, self.train_size))]
            self._probes[n] = self.batch(*self._on_device(collate(samples)))
        return self._probes[n]

    def _keep(self, room: int) -> bool:
        """Has the photographs stay in memory once they are decoded, if they fit into ``room`` bytes."""
        needed = sum(photographs.decoded_bytes() for photographs in self._photographs.values()) if room else 0
        if not 0 < needed <= room:
            return False
        self._photographs = {split: replace(p, kept={}) for split, p in self._photographs.items()}
        _log.warning(
            "%s: each photograph is decoded once and stays in memory, about %.0f MB in all (PFA_PHOTOGRAPHS_GB says "
            "how much it may be)",
            self.name,
            needed / 1e6,
        )
        return True

    def _served(self, requests: Iterator[list[Request]]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._pipeline.serve(requests):
            yield self._on_device(batch)

    def _on_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The bytes of the images, and the labels."""
        for bad in batch.unreadable:
            self._count(bad)
        assert batch.images is not None and batch.labels is not None  # else there were too many to count
        return batch.images.to(self.device), batch.labels.to(self.device)

    def _count(self, bad: Unreadable) -> None:
        if bad.path in self.unreadable:
            return
        self.unreadable[bad.path] = bad
        _log.warning("unreadable image, another one takes its place: %s (%s)", bad.path, bad.reason)
        found = [other.path for other in self.unreadable.values() if other.split == bad.split]
        n = len(self._photographs[bad.split])
        if len(found) > n * self._share_percent / 100:
            raise PfaError(
                f"unreadable {bad.split} images: {len(found)} of {n}, more than corrupt_share_percent "
                f"(={self._share_percent:g}) allows. Mend or remove them: {', '.join(found[:5])}"
                + (" …" if len(found) > 5 else "")
            )


def load(configuration: Configuration, data_dir: Path, device: torch.device) -> ImageFolderDataset:
    """The photographs under ``data_dir``; PfaError if they are not there."""
    return open_folder(configuration, locate(data_dir), device)


def open_folder(configuration: Configuration, root: Path, device: torch.device) -> ImageFolderDataset:
    """The photographs in ``root``, decoded in the way that suits ``device``.

    On a CPU the step takes much longer than cropping, and other processes would only take its core. A GPU is fed by
    processes that decode.
    """
    workers = decoding_processes()
    alone = workers == 0 or (device.type == "cpu" and not os.environ.get("PFA_WORKERS"))
    return ImageFolderDataset(configuration, root, device, workers, memory_for_photographs() if alone else 0)


def memory_for_photographs() -> int:
    """Bytes: ``PFA_PHOTOGRAPHS_GB``, else this process's share of a quarter of the memory that is available."""
    import psutil

    named = os.environ.get("PFA_PHOTOGRAPHS_GB", "")
    if not named:
        return int(psutil.virtual_memory().available / 4 / sharing_processes())
    try:
        gigabytes = float(named)
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < math.inf:
        raise UsageError(
            f"PFA_PHOTOGRAPHS_GB (={named}) must be a number: how much memory decoded photographs may take, 0 for none"
        )
    return int(gigabytes * 1e9)


def prepare(data_dir: Path) -> None:
    """Only checks that the folders are there."""
    locate(data_dir)


def locate(data_dir: Path) -> Path:
    """``data_dir`` or its subfolder ``imagenet``, whichever holds ``train`` and ``val``; else PfaError."""
    with readable(data_dir):
        for root in (data_dir, data_dir / "imagenet"):
            if (root / "train").is_dir() and (root / "val").is_dir():
                return root.resolve()
    raise PfaError(
        f"no photographs in {data_dir}: this recipe reads train/<class>/ and val/<class>/ there, or in its "
        "folder imagenet. They are not downloaded: name the folder that has them with --data-dir or PFA_DATA"
    )
