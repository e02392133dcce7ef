"""The published runs, draw for draw: ``draws = "published"``.

The paper's runs drew everything from one stream, torch's CPU generator seeded with the run's seed. Whoever draws in the
same order has their initial weights, their feedback weights, and their images in their order, each moved as theirs. From
there on only the order of floating-point sums differs. The order, as the published code has it:

1. The network is built. Each layer, as constructed, draws torch's default initialisation, weight and bias: thrown away.
2. Each layer is replaced by one with a feedback path: of every module first its own Linear and Conv2d children, then down
   into each child (of ResNet-20 the first convolution, the output layer, then block by block). It draws

   * the default initialisation again: thrown away,
   * PFA-o: an orthogonal matrix [N_out, N_out], which is Bᵀ here,
   * all: W₀, Glorot uniform, which is kept,
   * FA and SF: V, Glorot uniform, shape of W (SF does not use it),
   * PFA and PFA-o: R₀ [N̄, …] like W, Glorot uniform,
   * PFA: [N_out, N̄], Glorot uniform of gain sqrt((1 + 1/expansion) / 2), which is Bᵀ here.
3. Every epoch:

   * a whole number of 63 bits (the training loader's): thrown away,
   * another, which seeds a generator of its own; the permutation that this one draws is the order of the images,
   * CIFAR-10: for every image, in that order, whether it is mirrored, then first row and first column of its crop. First
     mirrored, then cropped. The images of the last, incomplete batch are not drawn for,
   * a whole number of 63 bits (the validation loader's): thrown away.

Biases start at 0. CIFAR-10's validation images are a sample by Python's random, seeded with 0 (here with ``split_seed``),
the others train in their official order. So the order of images depends on the algorithm and on the network.

Rounding parts a run from its published twin sooner or later. On MNIST the angles of PFA, PFA-o and SF are within 0.04° of it
after three epochs, of FA within 0.44° (one layer after the first epoch). On CIFAR-10 one epoch is enough: PFA-o's angles are up
to 11° from the published ones, and initial weights that differ by 1e-7 of themselves move ours by up to 9° (one trial).

Their configurations differ from the recipes' in one setting: PFA and PFA-o on MNIST decay by 9e-5 after the first epoch.
"""

import math
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pfa_cli.data.augment import CropAndFlip
from pfa_cli.data.splits import Order, check_validation_images
from pfa_cli.networks import build_network

if TYPE_CHECKING:
    from pfa_cli.configuration import Configuration

_Layer = nn.Linear | nn.Conv2d
_PER_WHOLE_NUMBER = 2  # outputs of the generator for 63 bits


def initialise(
    network: nn.Module, configuration: "Configuration", seed: int
) -> dict[str, tuple[Tensor, ...]]:
    """Gives ``network`` the published initial weights. Returns the feedback matrices, for `convert`, by layer."""
    drawn, _ = _draw(network, configuration, seed)
    for name, layer in _replaced(network):
        with torch.no_grad():
            layer.weight.copy_(drawn[name][0])
            if layer.bias is not None:
                layer.bias.zero_()
    return {name: matrices[1:] for name, matrices in drawn.items()}


class PublishedOrder(Order):
    """The images of a configuration's data set as the published run had them."""

    def __init__(self, configuration: "Configuration") -> None:
        self._configuration = configuration
        self._started: dict[int, Tensor] = {}  # seed → the stream where the first epoch begins

    def hold_out(self, n: int, validation_images: int, split_seed: int) -> tuple[Tensor, Tensor]:
        check_validation_images(n, validation_images)
        held_out = torch.tensor(
            random.Random(split_seed).sample(range(n), validation_images), dtype=torch.int64
        )
        kept = torch.ones(n, dtype=torch.bool)
        kept[held_out] = False
        return kept.nonzero()[:, 0], held_out

    def epoch(
        self, n: int, batch_size: int, augmentation: CropAndFlip | None, seed: int, epoch: int
    ) -> list[Tensor]:
        used = n // batch_size * batch_size
        stream = torch.Generator().set_state(self._start(seed))
        moves = 0 if augmentation is None else 3 * used
        for _ in range(epoch - 1):
            _pass_over(3 * _PER_WHOLE_NUMBER + moves, stream)
        _whole_number(stream)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(_whole_number(stream)))
        return [order] if augmentation is None else [order, _moves(used, augmentation.padding, stream)]

    def _start(self, seed: int) -> Tensor:
        if seed not in self._started:
            c = self._configuration
            assert c.input_shape is not None and c.dataset_entry.n_classes is not None
            with torch.device("meta"):  # its shapes are enough
                network = build_network(c, c.dataset_entry.n_classes, c.input_shape)
            _, stream = _draw(network, c, seed)
            self._started[seed] = stream.get_state()
        return self._started[seed]


def _draw(
    network: nn.Module, configuration: "Configuration", seed: int
) -> tuple[dict[str, tuple[Tensor, ...]], torch.Generator]:
    """W₀ and the feedback matrices of each layer, V or B and R₀; and the stream as it is then."""
    stream = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, _Layer):
            _default_initialisation(layer, stream)
    drawn = {name: _draw_layer(layer, configuration, stream) for name, layer in _replaced(network)}
    return drawn, stream


def _draw_layer(layer: _Layer, configuration: "Configuration", stream: torch.Generator) -> tuple[Tensor, ...]:
    def glorot(*shape: int, gain: float = 1.0) -> Tensor:
        return nn.init.xavier_uniform_(torch.empty(shape), gain, stream)

    n_out, *inputs = layer.weight.shape
    _default_initialisation(layer, stream)
    match configuration.algorithm:
        case "fa" | "sf" as algorithm:
            W, V = glorot(n_out, *inputs), glorot(n_out, *inputs)
            return (W, V) if algorithm == "fa" else (W,)
        case "pfa":
            expansion = float(configuration.options["expansion"])
            units = round(expansion * n_out)
            W, R0 = glorot(n_out, *inputs), glorot(units, *inputs)
            return W, glorot(n_out, units, gain=math.sqrt((1 + 1 / expansion) / 2)).T, R0
        case "pfa-o":
            B = nn.init.orthogonal_(torch.empty(n_out, n_out), generator=stream).T
            return glorot(n_out, *inputs), B, glorot(n_out, *inputs)
        case _:
            return (glorot(n_out, *inputs),)


def _default_initialisation(layer: _Layer, stream: torch.Generator) -> None:
    """Draws what torch draws for a new layer, one number for each element, and throws it away."""
    for parameter in layer.parameters():
        _pass_over(parameter.numel(), stream)


def _replaced(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, _Layer]]:
    """The layers by name, in the order in which the published code replaces them."""
    children = list(module.named_children())
    for name, child in children:
        if isinstance(child, _Layer):
            yield prefix + name, child
    for name, child in children:
        yield from _replaced(child, f"{prefix}{name}.")


def _whole_number(stream: torch.Generator) -> int:
    return int(torch.empty((), dtype=torch.int64).random_(generator=stream))


def _moves(n: int, padding: int, stream: torch.Generator) -> Tensor:
    """What `CropAndFlip` takes, [n, 3], of the draws rand(1) < 0.5, randint(9, (1,)), randint(9, (1,)) of each image.

    Each of them takes one output of the generator, 32 bits: rand its lower 24, randint the remainder of a division.
    """
    flip, top, left = _outputs(3 * n, stream).view(n, 3).unbind(1)
    mirrored = (flip & 0xFFFFFF) < 1 << 23
    places = 2 * padding + 1
    top, left = top % places, left % places
    # Theirs are columns of the mirrored image; `CropAndFlip` crops first.
    return torch.stack([top, torch.where(mirrored, 2 * padding - left, left), mirrored.long()], dim=1)


def _outputs(n: int, stream: torch.Generator) -> Tensor:
    """The next ``n`` outputs of the generator, 32 bits each, as int64."""
    ahead = torch.Generator().set_state(stream.get_state())
    _pass_over(n, stream)
    pairs = torch.empty((n + 1) // 2, dtype=torch.int64).random_(-(2**63), None, generator=ahead)
    return torch.stack([pairs >> 32, pairs], dim=1).flatten()[:n] & 0xFFFFFFFF


def _pass_over(n: int, stream: torch.Generator) -> None:
    """Goes on by ``n`` outputs of the generator: a float takes one."""
    torch.empty(n).uniform_(generator=stream)
