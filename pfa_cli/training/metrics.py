"""What is measured of the feedback paths: angles in degrees, norm ratios, and how far the errors are from BP's."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pfa_cli.algorithms import Algorithm, exact_backward, unobserved
from pfa_cli.algorithms.layers import FeedbackLayer
from pfa_cli.records import LayerRecord


def angle_degrees(u: Tensor, v: Tensor) -> float:
    """The angle between two tensors seen as vectors, in degrees; NaN where one of them is zero or not finite.

    By Kahan's formula 2·atan2(‖û - v̂‖, ‖û + v̂‖), which is exact near 0° and 180°, where arccos is not.
    """
    u, v = u.detach().double().flatten(), v.detach().double().flatten()
    u, v = u / u.norm(), v / v.norm()
    return math.degrees(2 * math.atan2((u - v).norm().item(), (u + v).norm().item()))


def layer_records(
    network: nn.Module, measure: str, images: Tensor, labels: Tensor
) -> tuple[LayerRecord, ...]:
    """One record per weighted layer, in network order.

    Args:
        network: a converted network.
        measure: "weight" where feedback synapses answer W one by one, "path" where only a product of them does.
        images, labels: the fixed probe batch of the error angle.
    """
    errors = error_angles(network, images, labels)
    algorithm = _algorithm(network)
    return tuple(
        _record(algorithm, layer, index, measure, errors[layer])
        for index, layer in enumerate(algorithm.layers)
    )


def _record(
    algorithm: Algorithm, layer: FeedbackLayer, index: int, measure: str, error: float
) -> LayerRecord:
    path = algorithm.path(layer)
    norm = layer.weight.detach().double().norm().item()
    ratio = path.double().norm().item() / norm if norm else math.nan
    # DFA's direct path has another shape than W in all layers but the last.
    angle = angle_degrees(path, layer.weight) if path.shape == layer.weight.shape else None
    if measure == "path":
        # There is no synapse from the layer above straight back to the layer below: 90° and 0 by construction.
        return LayerRecord(index, layer.name, norm, 90.0, 0.0, angle, ratio, error)
    return LayerRecord(index, layer.name, norm, angle, ratio, None, None, error)


def error_angles(network: nn.Module, images: Tensor, labels: Tensor) -> dict[FeedbackLayer, float]:
    """Per layer, the angle between the algorithm's delta and BP's on one batch (Proposition 2 speaks of it), in degrees."""
    algorithm = _algorithm(network)
    if algorithm.exact:
        return dict.fromkeys(algorithm.layers, 0.0)
    ours = _deltas(network, images, labels)
    with exact_backward(network):
        exact = _deltas(network, images, labels)
    return {
        layer: angle_degrees(ours[layer], exact[layer]) if layer in ours else math.nan
        for layer in algorithm.layers
    }


def _deltas(network: nn.Module, images: Tensor, labels: Tensor) -> dict[FeedbackLayer, Tensor]:
    """dLoss/da of every layer that an error reaches, as in training but for dropout, and leaving no trace in the network."""
    found: dict[FeedbackLayer, Tensor] = {}

    def listen(layer: nn.Module, inputs: object, output: Tensor) -> None:
        def keep(delta: Tensor) -> None:
            assert isinstance(layer, FeedbackLayer)
            found[layer] = found[layer] + delta if layer in found else delta

        if output.requires_grad:  # not above frozen layers alone
            output.register_hook(keep)

    handles = [layer.register_forward_hook(listen) for layer in _algorithm(network).layers]
    parameters = [p for p in network.parameters() if p.requires_grad]
    was_training = network.training
    try:
        with unobserved(network), _probing(network), torch.enable_grad():
            loss = F.cross_entropy(network(images), labels)
            torch.autograd.grad(loss, parameters, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
        network.train(was_training)
    return found


@contextmanager
def _probing(network: nn.Module) -> Iterator[None]:
    """Within it, BatchNorm normalises by the batch as in training, but its running statistics stay as they are; and nothing
    is dropped at random, or two passes would differ by that."""
    network.eval()
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for layer in layers:
        layer.train()
    norms = [layer for layer in layers if layer.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    kept = [(norm.running_mean, norm.running_var, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.running_mean = norm.running_var = norm.num_batches_tracked = None
        yield
    finally:
        for norm, (mean, variance, batches) in zip(norms, kept, strict=True):
            norm.track_running_stats = True
            norm.running_mean, norm.running_var, norm.num_batches_tracked = mean, variance, batches


def _algorithm(network: nn.Module) -> Algorithm:
    algorithm = network.algorithm
    assert isinstance(algorithm, Algorithm)
    return algorithm
