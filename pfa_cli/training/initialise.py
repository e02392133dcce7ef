"""The initial weights of every network (paper, Appendix 1.1)."""

import torch
from torch import nn


def initialise(network: nn.Module, stream: torch.Generator) -> None:
    """Draws all of ``network``'s weights anew: Glorot uniform with gain 1; biases 0; BatchNorm γ = 1, β = 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight, generator=stream)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
