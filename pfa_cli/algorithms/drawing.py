"""The random matrices from which the algorithms start."""

import torch
from torch import Tensor, nn

from pfa_cli.algorithms.base import FeedbackLayer


def glorot(
    shape: torch.Size | tuple[int, ...], like: Tensor, stream: torch.Generator, gain: float = 1.0
) -> Tensor:
    """Glorot uniform of ``shape`` (Appendix 1.1): variance gain² · 2 / (fan_in + fan_out), in the dtype of ``like``.

    Drawn on the CPU, so that every device starts from the same numbers.
    """
    return nn.init.xavier_uniform_(torch.empty(shape, dtype=like.dtype), gain=gain, generator=stream)


def glorot_path(layer: FeedbackLayer, stream: torch.Generator) -> Tensor:
    """A feedback path drawn as W was: Glorot uniform, shape of W, independent of it."""
    return glorot(layer.weight.shape, layer.weight, stream)


def glorot_std(layer: FeedbackLayer) -> float:
    """The standard deviation of the layer's Glorot initialisation."""
    return (2 / (layer.fan_in + layer.fan_out)) ** 0.5


def sparse(tensor: Tensor, density: float, stream: torch.Generator) -> Tensor:
    """``tensor`` in which each element exists with probability ``density``; at 1 ``tensor`` itself, and nothing is drawn.

    The others are zero. The variance of those that exist is divided by the density, so that the norm stays the same.
    """
    if density == 1:
        return tensor
    exists = torch.rand(tensor.shape, generator=stream) < density
    return tensor * exists / density**0.5
