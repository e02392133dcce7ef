"""What takes steps against the clock: a cell in training, plain torch, or the matrix products of a BP step."""

import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pfa_cli.algorithms.base import FeedbackLayer
from pfa_cli.bench.pixels import epoch_images
from pfa_cli.configuration import Configuration
from pfa_cli.data.in_memory import InMemoryDataset
from pfa_cli.errors import UsageError
from pfa_cli.networks import build_network
from pfa_cli.randomness import generator
from pfa_cli.recipes import Recipe
from pfa_cli.training.cuda_graph import Recorded, cuda_graphs
from pfa_cli.training.initialise import initialise
from pfa_cli.training.precision import Precision
from pfa_cli.training.trainer import Trainer

BP, PFA, LITERAL = "bp", "pfa", "pfa literal"
PRODUCTS, PLAIN = "products", "plain torch"
VARIANTS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    LITERAL: (PFA, {"form": "literal"}),
    "wm every 10": ("wm", {"mirror_every": 10}),
    "wm wishart": ("wm", {"mirror_noise": "wishart"}),
}
"""Measured beside an algorithm that is: by label, the algorithm and its options."""

_LONGEST_PERIOD = 100  # steps


@dataclass(frozen=True)
class Setting:
    """A recipe as the command line and then the benchmark change it; a label is an algorithm's name, or one of `VARIANTS`.

    ``references``: of an algorithm in a file, its name → what names it on the command line.
    """

    recipe: Recipe
    overrides: Mapping[str, object]
    references: Mapping[str, str] = field(default_factory=dict)
    reduction: Mapping[str, object] = field(default_factory=dict)

    def configuration(self, label: str, **changes: object) -> Configuration:
        """The configuration of ``label``; ``changes`` take precedence over all else."""
        algorithm, options = VARIANTS.get(label, (label, {}))
        changes = {**self.reduction, **changes, **options}
        others = {
            key: value for key, value in self.overrides.items() if key.rpartition(".")[2] not in changes
        }
        return self.recipe.configuration(self.references.get(algorithm, algorithm), {**others, **changes})


class Contender(NamedTuple):
    """``step`` does one step for what a data set requests, on a batch of ``batch_size`` images.

    Its steps are of one kind, or their kinds come again after ``period`` steps.
    """

    step: Callable[..., object]
    batch_size: int
    period: int = 1


class Cell:
    """A contender: a cell in training, in the state of its second epoch."""

    def __init__(self, configuration: Configuration, dataset: InMemoryDataset, device: torch.device) -> None:
        self.trainer = Trainer(configuration, dataset, 0, device)
        self.trainer.begin_epoch(2)
        self.batch_size, self.period = configuration.batch_size, self.trainer.algorithm.period
        if self.period > _LONGEST_PERIOD:
            raise UsageError(
                f"the steps of {configuration.algorithm} are alike again after {self.period} only, and a sample must hold all "
                f"of them: pfa bench measures up to {_LONGEST_PERIOD}"
            )

    def step(self, *request: Tensor) -> None:
        """One training step of `pfa run`."""
        self.trainer.advance(request)

    def metrics_seconds(self) -> float:
        """What an epoch's metrics take: angles, norm ratios and the error angle of every layer."""
        whole = self.trainer.dataset
        self.trainer.dataset = copy(whole)
        self.trainer.dataset.splits = ()  # nothing to evaluate
        seconds = _seconds(self.trainer.measure)
        self.trainer.dataset = whole
        return seconds

    def evaluation_seconds(self) -> float:
        """What an epoch's evaluation takes, scaled up from the images in the data set."""
        data = self.trainer.dataset
        evaluated = sum(len(y) for split in data.splits for _, y in data.evaluation_batches(split))
        seconds = max(0.0, _seconds(self.trainer.measure) - self.metrics_seconds())
        return seconds * epoch_images(self.trainer.configuration)[1] / evaluated


def plain_torch(configuration: Configuration, dataset: InMemoryDataset, device: torch.device) -> Contender:
    """The same network, in the same memory format and precision, by torch alone: no conversion, no sums."""
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
        fused=precision.keeps_every_step,
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

    return Contender(as_in_training(step, precision, device), configuration.batch_size)


def products(configuration: Configuration, dataset: InMemoryDataset, device: torch.device) -> Contender:
    """The matrix products of a BP step and nothing else, formed as training forms them: the floor under its time."""
    trainer = Trainer(configuration, dataset, 0, device)
    precision, parts = trainer.precision, configuration.accumulation
    images, _ = dataset.probe(configuration.batch_size // parts)
    network = trainer.network.to(dtype=precision.dtype)  # what autocast converts to at every step
    run = matrix_products(network, precision.lay_out(images).to(dtype=precision.dtype))

    def step(*request: Tensor) -> None:
        for _ in range(parts):
            run()

    return Contender(as_in_training(step, precision, device), configuration.batch_size)


def matrix_products(network: nn.Module, images: Tensor) -> Callable[[], None]:
    """A function that does the products of one BP step of the converted ``network`` on a batch like ``images``.

    Per weighted layer: the forward product, the weight gradient, and the error at its input but for the first layer.
    Biases, activations, normalisation, loss and optimiser are not in it, nor padding by anything but zeros.
    """
    seen: list[tuple[FeedbackLayer, Tensor, Tensor]] = []

    @torch.no_grad()
    def listen(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, FeedbackLayer)
        x = inputs[0].detach().clone()
        seen.append((layer, x, torch.randn_like(layer.response(x))))

    layers = [module for module in network.modules() if isinstance(module, FeedbackLayer)]
    handles = [layer.register_forward_hook(listen) for layer in layers]
    network(images)  # a training pass: on a GPU each convolution finds out how to form its weight gradient
    for handle in handles:
        handle.remove()

    @torch.no_grad()
    def run() -> None:
        for index, (layer, x, delta) in enumerate(seen):
            layer.response(x)
            layer.outer(delta, x, layer.weight.shape)
            if index > 0:
                layer.transpose(delta, layer.weight, x.shape)

    return run


def as_in_training(
    step: Callable[..., None], precision: Precision, device: torch.device
) -> Callable[..., object]:
    """``step`` as a CUDA graph where the trainer records its steps, so that ratios compare like with like."""
    if device.type != "cuda" or not precision.keeps_every_step:
        return step
    recorded = Recorded(cuda_graphs(device))
    return lambda *request: recorded(step, request)


def _seconds(work: Callable[[], object]) -> float:
    """The third time: the first one finds its memory and its caches cold, on a GPU the second one is recorded."""
    for _ in range(3):
        since = time.perf_counter()
        work()
    return time.perf_counter() - since
