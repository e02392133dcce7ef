"""The networks of the oracle tests: built in torch, translated to NumPy, with PAL's populations spelt out by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from oracle import network as numpy_network
from oracle.geometry import Conv, Dense
from oracle.training import Path


class MeanOverPositions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class Block(nn.Module):
    """A residual block of CIFAR's ResNets: two 3×3 convolutions with BatchNorm and an option-A shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, channels_out - channels_in
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        half = self.new_channels // 2
        shortcut = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        return nn.functional.relu(self.body(x) + shortcut)


@dataclass(frozen=True)
class Architecture:
    """``paths``: for each use of a weighted layer the population below and above it, as PAL meets them."""

    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    paths: tuple[Path, ...]
    n_classes: int = 4


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 8, bias=False), nn.ReLU(inplace=True), nn.Linear(8, 4)
    )


def convolutional() -> nn.Module:
    """Strides 1 and 2, kernels that are not square, padding on one side only, pixels that stride 2 leaves over."""
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 6, (3, 2), stride=(1, 2), padding=(1, 0)),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 4),
    )


def grouped() -> nn.Module:
    """Groups, dilation, and taps that only ever meet padding."""
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=(2, 4), dilation=(2, 4), groups=2),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 4, bias=False),
    )


def residual() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        Block(4, 4, stride=1),
        Block(4, 8, stride=2),
        nn.AvgPool2d(3),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def positions() -> nn.Module:
    """Linear layers on [b, t, n], as transformers and ConvNeXt use them."""
    return nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), MeanOverPositions(), nn.Linear(5, 4)
    )


def linear() -> nn.Module:
    """Layers without a nonlinearity between them, of one width."""
    return nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4))


def shared() -> nn.Module:
    """A layer used twice: its gradients add up."""
    again = nn.Linear(8, 8)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), again, nn.ReLU(), again, nn.ReLU(), nn.Linear(8, 4))


ARCHITECTURES = {
    "mlp": Architecture(mlp, (7,), (("0", "input:0", "1"), ("2", "1", "3"), ("4", "3", "output:4"))),
    "conv": Architecture(
        convolutional,
        (2, 8, 8),
        (("0", "input:0", "1"), ("2", "1", "3"), ("4", "3", "5"), ("8", "input:8", "output:8")),
    ),
    "grouped": Architecture(
        grouped,
        (4, 6, 4),
        (("0", "input:0", "1"), ("2", "1", "3"), ("4", "3", "5"), ("7", "input:7", "output:7")),
    ),
    "residual": Architecture(
        residual,
        (3, 6, 6),
        (
            ("0", "input:0", "2"),
            ("3.body.0", "2", "3.body.2"),
            ("3.body.3", "3.body.2", "3.relu"),
            ("4.body.0", "3.relu", "4.body.2"),
            ("4.body.3", "4.body.2", "4.relu"),
            ("7", "input:7", "output:7"),
        ),
    ),
    "positions": Architecture(
        positions, (3, 6), (("0", "input:0", "1"), ("2", "1", "3"), ("5", "input:5", "output:5"))
    ),
    "linear": Architecture(
        linear, (6,), (("0", "input:0", "output:0"), ("1", "output:0", "2"), ("3", "2", "output:3"))
    ),
    "shared": Architecture(
        shared, (6,), (("0", "input:0", "1"), ("2", "1", "3"), ("2", "3", "5"), ("6", "5", "output:6"))
    ),
}


def translate(module: nn.Module, seen: dict[int, numpy_network.Layer] | None = None) -> numpy_network.Layer:
    """The same network, with a copy of the same parameters, in NumPy."""
    seen = {} if seen is None else seen
    if id(module) not in seen:
        seen[id(module)] = _translate(module, seen)
    return seen[id(module)]


def _translate(module: nn.Module, seen: dict[int, numpy_network.Layer]) -> numpy_network.Layer:
    array = {name: p.detach().numpy().copy() for name, p in module.named_parameters(recurse=False)}
    match module:
        case nn.Sequential():
            return numpy_network.Sequence(**{n: translate(m, seen) for n, m in module._modules.items()})
        case nn.Linear():
            return numpy_network.Weighted(Dense(), array["weight"], array.get("bias"))
        case nn.Conv2d():
            geometry = Conv(module.kernel_size, module.stride, module.padding, module.dilation, module.groups)
            return numpy_network.Weighted(geometry, array["weight"], array.get("bias"))
        case nn.BatchNorm2d():
            return numpy_network.BatchNorm(array["weight"], array["bias"], module.eps)
        case nn.ReLU():
            return numpy_network.ReLU()
        case nn.AvgPool2d():
            return numpy_network.AveragePool(module.kernel_size)
        case nn.Flatten():
            return numpy_network.Flatten()
        case MeanOverPositions():
            return numpy_network.MeanOverPositions()
        case Block():
            return numpy_network.Residual(translate(module.body, seen), module.stride, module.new_channels)
        case _:
            raise TypeError(f"no NumPy counterpart of {type(module).__name__}")


def build(name: str, seed: int = 0) -> nn.Module:
    """A fresh float64 network, the same for the same seed."""
    torch.manual_seed(seed)
    return ARCHITECTURES[name].build().double()


def minibatches(name: str, steps: int, batch: int = 5) -> list[tuple[Tensor, Tensor]]:
    """Random inputs [batch, ...] in float64 with random labels."""
    shape, n_classes = ARCHITECTURES[name].input_shape, ARCHITECTURES[name].n_classes
    draw = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(batch, *shape, generator=draw, dtype=torch.float64),
            torch.randint(n_classes, (batch,), generator=draw),
        )
        for _ in range(steps)
    ]
