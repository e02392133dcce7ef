"""The multilayer perceptron of the paper's MNIST experiment."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from pfa_cli.registry import NetworkEntry

entry = NetworkEntry(
    "mlp",
    title="multilayer perceptron with ReLU",
    implementation="pfa_cli.networks.mlp:mlp",
    settings=("hidden_sizes",),
)


def mlp(input_shape: Sequence[int], hidden_sizes: Sequence[int], n_classes: int) -> nn.Sequential:
    """Linear layers ``layer1``, ``layer2``, … with a ReLU after all but the last.

    >>> mlp((784,), (512, 512), 10)
    Sequential(
      (flatten): Flatten(start_dim=1, end_dim=-1)
      (layer1): Linear(in_features=784, out_features=512, bias=True)
      (relu1): ReLU()
      (layer2): Linear(in_features=512, out_features=512, bias=True)
      (relu2): ReLU()
      (layer3): Linear(in_features=512, out_features=10, bias=True)
    )
    """
    sizes = [math.prod(input_shape), *hidden_sizes, n_classes]
    modules: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number, (n_in, n_out) in enumerate(pairwise(sizes), start=1):
        modules[f"layer{number}"] = nn.Linear(n_in, n_out)
        if number < len(sizes) - 1:
            modules[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(modules)
