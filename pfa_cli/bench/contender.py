"""What takes steps against the clock: a cell in training, or plain torch. All that the benchmark asks of a trainer is here."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pfa_cli.bench.pixels import epoch_images
from pfa_cli.configuration import Configuration
from pfa_cli.data.in_memory import InMemoryDataset
from pfa_cli.networks import build_network
from pfa_cli.randomness import generator
from pfa_cli.recipes import Recipe
from pfa_cli.training.cuda_graph import side_stream
from pfa_cli.training.device import make_repeatable
from pfa_cli.training.initialise import initialise
from pfa_cli.training.metrics import layer_records
from pfa_cli.training.precision import Precision
from pfa_cli.training.trainer import Trainer

BP, PFA, LITERAL = "bp", "pfa", "pfa literal"
Step = Callable[..., object]  # takes what `endless` gives


@dataclass(frozen=True)
class Setting:
    """A recipe as the command line and then the benchmark change it; a label is an algorithm's name, or "pfa literal"."""

    recipe: Recipe
    overrides: Mapping[str, object]
    reduction: Mapping[str, object] = field(default_factory=dict)

    def configuration(self, label: str, **changes: object) -> Configuration:
        """The configuration of ``label``; ``changes`` take precedence over all else."""
        algorithm, _, form = label.partition(" ")
        if form:
            changes["form"] = form
        own = {f"{algorithm}.{key}": value for key, value in {**self.reduction, **changes}.items()}
        return self.recipe.configuration(algorithm, {**self.overrides, **own})


@contextmanager
def settled(device: torch.device, threads: int) -> Iterator[None]:
    """Within it, this process is set as `pfa run` sets its workers, but with ``threads``."""
    make_repeatable(device)
    torch.set_num_threads(threads)
    with side_stream(device):
        yield


class Contender:
    """A cell in training, in the state of its second epoch."""

    def __init__(self, configuration: Configuration, dataset: InMemoryDataset, device: torch.device) -> None:
        self._trainer = Trainer(configuration, dataset, 0, device)
        self._configuration, self._dataset = configuration, dataset
        self._trainer.begin_epoch(2)

    @property
    def network(self) -> nn.Module:
        return self._trainer.network

    def step(self, *request: Tensor) -> None:
        """One training step of `pfa run`; on a GPU the first few are slower, since they are being recorded."""
        self._trainer.advance(request)

    def laid_out(self, images: Tensor) -> Tensor:
        """``images`` in the memory format of the cell's training."""
        return self._trainer.precision.lay_out(images)

    def metrics_seconds(self) -> float:
        """What an epoch's metrics take: angles, norm ratios and the error angle of every layer."""
        images, labels = self._dataset.probe(self._configuration.probe_images)
        measure = self._trainer.entry.measure
        return _seconds(lambda: layer_records(self.network, measure, self.laid_out(images), labels))

    def evaluation_seconds(self) -> float:
        """What an epoch's evaluation takes, scaled up from the images in the data set."""
        images = sum(
            len(y) for split in self._dataset.splits for _, y in self._dataset.evaluation_batches(split)
        )
        metrics = self.metrics_seconds()
        evaluation = max(0.0, _seconds(self._trainer.measure) - metrics)
        return evaluation * epoch_images(self._configuration)[1] / images


def plain_torch(configuration: Configuration, dataset: InMemoryDataset, device: torch.device) -> Step:
    """A step of the same network, in the same memory format and precision, by torch alone: no conversion, no sums."""
    network = build_network(configuration, dataset.n_classes, dataset.input_shape)
    initialise(network, generator(0, "weights"))
    precision, parts = Precision(configuration.precision, device), configuration.accumulation
    if device.type == "cuda":
        network.to(memory_format=precision.memory_format)
    network.to(device).train()
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=configuration.learning_rate,
        momentum=configuration.momentum,
        weight_decay=configuration.weight_decay,
        fused=True,
    )

    def step(*request: Tensor) -> None:
        images, labels = dataset.batch(*request)
        optimizer.zero_grad()
        for x, y in zip(images.chunk(parts), labels.chunk(parts), strict=True):
            with precision.autocast():
                loss = F.cross_entropy(network(precision.lay_out(x)), y)
            precision.scaler.scale(loss / parts if parts > 1 else loss).backward()
        precision.scaler.step(optimizer)
        precision.scaler.update()

    return step


def endless(dataset: InMemoryDataset, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
    """What steps are given, epoch after epoch: requests for batches of ``dataset``."""
    epoch = 0
    while True:
        epoch += 1
        yield from dataset.requests(0, epoch, batch_size)


def _seconds(work: Callable[[], object]) -> float:
    """The second time: the first one finds its memory and its caches cold, as most epochs do not."""
    work()
    since = time.perf_counter()
    work()
    return time.perf_counter() - since
