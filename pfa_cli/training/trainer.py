"""The epoch loop: one network, one data set, one seed. It knows no algorithm by name."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pfa_cli.algorithms import Algorithm, convert
from pfa_cli.algorithms.registry import entry
from pfa_cli.networks import build_network
from pfa_cli.records import EpochRecord
from pfa_cli.training import schedule
from pfa_cli.training.initialise import initialise
from pfa_cli.training.metrics import layer_records
from pfa_cli.training.precision import Precision
from pfa_cli.training.randomness import generator

if TYPE_CHECKING:
    from pfa_cli.data import Dataset
    from pfa_cli.recipes import Configuration


class Trainer:
    """Trains the cell (configuration, seed) on ``dataset``.

    The initial weights, the order of the data and the augmentation come from the seed alone, the same for every
    algorithm; the feedback weights from a stream of their own. All of its state passes through `state` and `restore`, at
    the end of an epoch or in the middle of one, and a restored trainer goes on bit for bit like one never interrupted (on
    the same kind of device, number of threads and version of torch).
    """

    def __init__(
        self, configuration: "Configuration", dataset: "Dataset", seed: int, device: torch.device
    ) -> None:
        self.configuration, self.dataset, self.seed, self.device = configuration, dataset, seed, device
        self.entry = entry(configuration.algorithm)
        self.precision = Precision(configuration.precision, device)
        network = build_network(configuration, dataset.n_classes, dataset.input_shape)
        initialise(network, generator(seed, "weights"))
        self.network = convert(
            network.to(device), configuration.algorithm, seed=seed, **configuration.options
        )
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=configuration.learning_rate,
            momentum=configuration.momentum,
            fused=True,
        )
        # A hook, since a scaler may skip a step, and then nothing may follow it.
        self.optimizer.register_step_post_hook(
            lambda optimizer, args, kwargs: self.algorithm.after_step(optimizer)
        )
        self.epochs_total = configuration.epochs
        self.steps_per_epoch = dataset.steps_per_epoch(configuration.batch_size)
        self.epochs_done = 0  # epochs trained to their end
        self.step = 0  # steps taken in the epoch now in training
        self.diverged = False
        self._measured_start = False
        self._reset_sums()

    @property
    def algorithm(self) -> Algorithm:
        algorithm = self.network.algorithm
        assert isinstance(algorithm, Algorithm)
        return algorithm

    @property
    def finished(self) -> bool:
        """Nothing is left to train: all epochs are done, or the run diverged and more of it would tell nothing."""
        return self.diverged or self.epochs_done >= self.epochs_total

    @property
    def running_accuracy_percent(self) -> float | None:
        """Training accuracy of the epoch so far; waits for the device."""
        return 100 * self._correct.item() / self._images if self._images else None

    def epochs(
        self,
        should_stop: Callable[[], bool] = lambda: False,
        on_step: Callable[["Trainer"], None] | None = None,
    ) -> Iterator[EpochRecord]:
        """Yields epoch 0, the network at initialisation, then each epoch when it is done.

        Asks ``should_stop`` after every step, and ends there when it says so; calls ``on_step`` after every step.
        """
        if not self._measured_start:
            self.algorithm.prepare()
            self._measured_start = True
            yield self.measure()
        while not self.finished:
            if not self._train_epoch(should_stop, on_step):
                return
            record = self.measure()
            self.epochs_done, self.step = record.epoch, 0
            self.diverged = record.diverged
            self._reset_sums()
            yield record

    def _train_epoch(
        self, should_stop: Callable[[], bool], on_step: Callable[["Trainer"], None] | None
    ) -> bool:
        """Trains the rest of the epoch; False if it was stopped before its end."""
        epoch = self.epochs_done + 1
        for group in self.optimizer.param_groups:
            group["lr"] = schedule.learning_rate(self.configuration, epoch)
            group["weight_decay"] = schedule.weight_decay(self.configuration, epoch)
        if self.step == 0:
            self.algorithm.start_epoch(epoch)
        self.network.train()
        since = time.perf_counter()
        batches = self.dataset.train_batches(
            self.seed, epoch, self.configuration.batch_size, start_step=self.step
        )
        for images, labels in batches:
            self.train_step(images, labels)
            self.step += 1
            if on_step is not None:
                on_step(self)
            if should_stop() and self.step < self.steps_per_epoch:
                self._seconds += time.perf_counter() - since
                return False
        self._wait()
        self._seconds += time.perf_counter() - since
        return True

    def train_step(self, images: Tensor, labels: Tensor) -> None:
        """One optimiser step on a batch."""
        parts = self.configuration.accumulation
        self.optimizer.zero_grad()
        for x, y in zip(images.chunk(parts), labels.chunk(parts), strict=True):
            with self.precision.autocast():
                logits = self.network(channels_last(x))
                loss = F.cross_entropy(logits, y)
            self.precision.scaler.scale(loss * (len(y) / len(labels)) if parts > 1 else loss).backward()
            self._loss_sum += loss.detach() * len(y)
            self._correct += (logits.detach().argmax(1) == y).sum()
            self._images += len(y)
        self.precision.scaler.step(self.optimizer)
        self.precision.scaler.update()

    def measure(self) -> EpochRecord:
        """What the network is like now, with the sums of the epoch just trained, if one was."""
        trained: dict[str, Any] = {}
        epoch = self.epochs_done
        since = time.perf_counter()
        if self._images:
            epoch += 1
            loss = self._loss_sum.item() / self._images
            trained = {
                "learning_rate": schedule.learning_rate(self.configuration, epoch),
                "weight_decay": schedule.weight_decay(self.configuration, epoch),
                "train_loss": loss,
                "train_accuracy_percent": self.running_accuracy_percent,
                "images_per_second": self._images / self._seconds if self._seconds else None,
                "diverged": not math.isfinite(loss),
            }
        for split in self.dataset.splits:
            trained |= {f"{split}_{name}": value for name, value in self._evaluate(split).items()}
        images, labels = self.dataset.probe(self.configuration.probe_images)
        layers = layer_records(self.network, self.entry.measure, channels_last(images), labels)
        return EpochRecord(
            epoch, seconds=self._seconds + time.perf_counter() - since, layers=layers, **trained
        )

    @torch.no_grad()
    def _evaluate(self, split: str) -> dict[str, float]:
        """Mean loss and top-1 accuracy in percent, and top-5 where there are more than ten classes."""
        self.network.eval()
        many = self.dataset.n_classes > 10
        totals = torch.zeros(3, dtype=torch.float64, device=self.device)
        images = 0
        for x, y in self.dataset.evaluation_batches(split):
            with self.precision.autocast():
                logits = self.network(channels_last(x))
            hits = logits.topk(5 if many else 1).indices == y[:, None]
            loss = F.cross_entropy(logits.float(), y, reduction="sum")
            totals += torch.stack([loss.double(), hits[:, 0].sum().double(), hits.sum().double()])
            images += len(y)
        loss, top1, top5 = (totals / images).tolist()
        found = {"loss": loss, "accuracy_percent": 100 * top1}
        return found | {"top5_accuracy_percent": 100 * top5} if many else found

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _reset_sums(self) -> None:
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self._images = 0
        self._seconds = 0.0

    # Everything a resumed run needs

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by name, and JSON-able facts."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            momentum = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        streams, facts = self.algorithm.state()
        tensors |= {f"algorithm.{name}": tensor for name, tensor in streams.items()}
        tensors |= {"sums.loss": self._loss_sum, "sums.correct": self._correct}
        progress = {
            "epochs_done": self.epochs_done,
            "step": self.step,
            "images": self._images,
            "seconds": self._seconds,
            "diverged": self.diverged,
        }
        return tensors, {
            "algorithm": facts,
            "progress": progress,
            "scaler": self.precision.scaler.state_dict(),
        }

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Takes back what `state` gave, possibly in another process."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        self.network.load_state_dict(part("network."))
        momentum = part("momentum.")
        for name, parameter in self.network.named_parameters():
            if name in momentum:
                # In memory as the parameter lies, aligned: another order of summing would round otherwise.
                self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(
                    momentum[name]
                )
        self.algorithm.restore(part("algorithm."), facts["algorithm"])
        self.precision.scaler.load_state_dict(facts["scaler"])
        sums, progress = part("sums."), facts["progress"]
        self._loss_sum, self._correct = (sums[name].to(self.device).clone() for name in ("loss", "correct"))
        self._images, self._seconds = progress["images"], progress["seconds"]
        self.epochs_done, self.step, self.diverged = (
            progress["epochs_done"],
            progress["step"],
            progress["diverged"],
        )
        self._measured_start = True


def channels_last(images: Tensor) -> Tensor:
    """Images [b, c, h, w] in the memory format in which convolutions are fastest; anything else as it is."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images
