"""What is measured of the feedback paths: angles in degrees, norm ratios, and how far the errors are from BP's."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pfa_cli.algorithms import Algorithm, exact_backward, unobserved
from pfa_cli.algorithms.base import FeedbackLayer
from pfa_cli.records import LayerRecord


class LayerNumbers:
    """The norms of which `layer_records` is made, on the device of the network: measured there, then fetched at once."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        """``network``: a converted network."""
        self._network = network
        self._numbers = torch.zeros(len(_algorithm(network).layers), 6, dtype=torch.float64, device=device)
        self._has_angle: list[bool] = []

    def measure(self, images: Tensor, labels: Tensor) -> None:
        """Measures all layers without waiting for the device; the batch is the fixed probe of the error angle."""
        algorithm = _algorithm(self._network)
        ours, exact = _both_deltas(self._network, images, labels)
        undefined = torch.full_like(self._numbers[0, :2], math.nan)
        paths = [algorithm.path(layer) for layer in algorithm.layers]
        # DFA's direct path has another shape than W in all layers but the last.
        self._has_angle = [
            V.shape == layer.weight.shape for layer, V in zip(algorithm.layers, paths, strict=True)
        ]
        rows = []
        for layer, V, has_angle in zip(algorithm.layers, paths, self._has_angle, strict=True):
            norms = torch.stack([layer.weight.detach().double().norm(), V.double().norm()])
            angle = _half_angle(V, layer.weight) if has_angle else undefined
            error = _half_angle(ours[layer], exact[layer]) if layer in ours else undefined
            rows.append(torch.cat([norms, angle, error]))
        self._numbers.copy_(torch.stack(rows))

    def records(self, measure: str) -> tuple[LayerRecord, ...]:
        """One record per weighted layer, in network order, of what was measured last; waits for the device.

        ``measure``: "weight" where feedback synapses answer W one by one, "path" where only a product of them does.
        """
        algorithm = _algorithm(self._network)
        found = []
        rows = zip(algorithm.layers, self._numbers.tolist(), self._has_angle, strict=True)
        for index, (layer, row, has_angle) in enumerate(rows):
            norm, path_norm, *halves = row
            ratio = path_norm / norm if norm else math.nan
            angle = _degrees(*halves[:2]) if has_angle else None
            error = 0.0 if algorithm.exact else _degrees(*halves[2:])
            if measure == "path":
                # There is no synapse from the layer above straight back to the layer below: 90° and 0 by construction.
                found.append(LayerRecord(index, layer.name, norm, 90.0, 0.0, angle, ratio, error))
            else:
                found.append(LayerRecord(index, layer.name, norm, angle, ratio, None, None, error))
        return tuple(found)


def layer_records(
    network: nn.Module, measure: str, images: Tensor, labels: Tensor
) -> tuple[LayerRecord, ...]:
    """One record per weighted layer of a converted network, in network order: see `LayerNumbers`."""
    numbers = LayerNumbers(network, images.device)
    numbers.measure(images, labels)
    return numbers.records(measure)


def angle_degrees(u: Tensor, v: Tensor) -> float:
    """The angle between two tensors seen as vectors, in degrees; NaN where one of them is zero or not finite.

    By Kahan's formula 2·atan2(‖û - v̂‖, ‖û + v̂‖), which is exact near 0° and 180°, where arccos is not.
    """
    return _degrees(*_half_angle(u, v).tolist())


def _half_angle(u: Tensor, v: Tensor) -> Tensor:
    """‖û - v̂‖ and ‖û + v̂‖, the sine and the cosine of half the angle, both times 2: float64 [2]."""
    u, v = u.detach().double().flatten(), v.detach().double().flatten()
    u, v = u / u.norm(), v / v.norm()
    return torch.stack([(u - v).norm(), (u + v).norm()])


def _degrees(sine: float, cosine: float) -> float:
    """The angle of which `_half_angle` gives the numbers."""
    return math.degrees(2 * math.atan2(sine, cosine))


def _both_deltas(
    network: nn.Module, images: Tensor, labels: Tensor
) -> tuple[dict[FeedbackLayer, Tensor], dict[FeedbackLayer, Tensor]]:
    """The algorithm's deltas on one batch and BP's; none where they are the same by construction."""
    if _algorithm(network).exact:
        return {}, {}
    ours = _deltas(network, images, labels)
    with exact_backward(network):
        return ours, _deltas(network, images, labels)


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
