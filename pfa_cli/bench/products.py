"""The matrix products of a BP step and nothing else: the floor under its time on a CPU."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pfa_cli.algorithms import Algorithm
from pfa_cli.algorithms.base import FeedbackLayer


def matrix_products(network: nn.Module, images: Tensor) -> Callable[[], None]:
    """A function that does the products of one BP step of the converted ``network`` on a batch like ``images``.

    Per weighted layer: the forward product, the weight gradient, and the error at its input but for the first layer.
    Biases, activations, normalisation, loss and optimiser are not in it.
    """
    algorithm = network.algorithm
    assert isinstance(algorithm, Algorithm)
    seen: list[tuple[FeedbackLayer, Tensor, Tensor]] = []

    def listen(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, FeedbackLayer)
        seen.append((layer, inputs[0].detach().clone(), torch.randn_like(output)))

    handles = [layer.register_forward_hook(listen) for layer in algorithm.layers]
    with torch.no_grad():
        network(images)
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
