"""A network from outside: a convolution and a dense layer for images [1, 8, 8], or a dense one for rows of pixels."""

import math

from torch import nn

from pfa_cli.registry import NetworkEntry, Option

entry = NetworkEntry("mynet", options={"width": Option(8, "units of the hidden layer", minimum=1)})


def net(input_shape: tuple[int, ...], n_classes: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(input_shape), width), nn.ReLU(), nn.Linear(width, n_classes)
    )
