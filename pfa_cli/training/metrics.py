"""What is measured of the feedback paths: angles in degrees, norm ratios, and how far the errors are from BP's."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pfa_cli.algorithms import Algorithm, exact_backward, unobserved
from pfa_cli.algorithms.base import FeedbackLayer
from pfa_cli.records import LayerRecord

_NUMBERS = (
    "norm", "path_norm", "path_sine", "path_cosine", "error_sine", "error_cosine", "direct_norm", "direct_sine",
    "direct_cosine", "bidirectional_share", "correlation", "bidirectional_correlation",
)  # fmt: skip


class LayerNumbers:
    """The numbers of which `layer_records` is made, on the device of the network: measured there, then fetched at once."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        """``network``: a converted network."""
        self._network = network
        layers = _algorithm(network).layers
        self._numbers = torch.zeros(len(layers), len(_NUMBERS), dtype=torch.float64, device=device)
        self._defined: list[set[str]] = []  # which of them each layer has

    def measure(self, images: Tensor, labels: Tensor) -> None:
        """Measures all layers without waiting for the device; the batch is the fixed probe of the error angle."""
        algorithm = _algorithm(self._network)
        ours, exact = _both_deltas(self._network, images, labels)
        undefined = torch.full_like(self._numbers[0, 0], math.nan)
        self._defined, rows = [], []
        for layer in algorithm.layers:
            W = layer.weight.detach()
            found = {"norm": W.double().norm()}
            if algorithm.carries(layer):
                V = algorithm.path(layer)
                found["path_norm"] = V.double().norm()
                if (
                    V.shape == W.shape
                ):  # DFA's direct path has another shape than W in all layers but the last
                    found |= _half_angle("path", V, W)
            if (direct := algorithm.direct(layer)) is not None:
                found |= {"direct_norm": direct.double().norm()} | _half_angle("direct", direct, W)
                found |= _symmetry(direct, W)
            if layer in ours:
                found |= _half_angle("error", ours[layer], exact[layer])
            self._defined.append(set(found))
            rows.append(torch.stack([found.get(name, undefined) for name in _NUMBERS]))
        self._numbers.copy_(torch.stack(rows))

    def records(self, measure: str) -> tuple[LayerRecord, ...]:
        """One record per weighted layer, in network order, of what was measured last; waits for the device.

        ``measure``: "weight" where feedback synapses answer W one by one, "path" where only a product of them does.
        """
        algorithm = _algorithm(self._network)
        records = []
        measured = zip(algorithm.layers, self._numbers.tolist(), self._defined, strict=True)
        for index, (layer, row, defined) in enumerate(measured):
            has = {name: value for name, value in zip(_NUMBERS, row, strict=True) if name in defined}
            angle, ratio = _degrees("path", has), _ratio("path_norm", has)
            error = _degrees("error", has)
            if algorithm.exact and algorithm.carries(layer):
                error = 0.0
            elif error is None and algorithm.carries(layer):
                error = math.nan
            if measure == "weight":
                records.append(
                    LayerRecord(index, layer.name, has["norm"], angle, ratio, error_angle_degrees=error)
                )
                continue
            # Where no synapse leads straight back, the angle is 90° and the ratio 0 by construction.
            direct = (
                (_degrees("direct", has), _ratio("direct_norm", has)) if "direct_norm" in has else (90.0, 0.0)
            )
            share = has.get("bidirectional_share")
            records.append(
                LayerRecord(
                    index, layer.name, has["norm"], *direct, angle, ratio, error,
                    bidirectional_percent=None if share is None else 100 * share,
                    weight_correlation=has.get("correlation"),
                    bidirectional_correlation=has.get("bidirectional_correlation"),
                )
            )  # fmt: skip
        return tuple(records)


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
    found = {name: value.item() for name, value in _half_angle("", u, v).items()}
    angle = _degrees("", found)
    assert angle is not None
    return angle


def _half_angle(name: str, u: Tensor, v: Tensor) -> dict[str, Tensor]:
    """‖û - v̂‖ and ‖û + v̂‖, the sine and the cosine of half the angle, both times 2, in float64."""
    u, v = u.detach().double().flatten(), v.detach().double().flatten()
    u, v = u / u.norm(), v / v.norm()
    return {f"{name}_sine": (u - v).norm(), f"{name}_cosine": (u + v).norm()}


def _symmetry(direct: Tensor, W: Tensor) -> dict[str, Tensor]:
    """Share of the weights of W that are answered by a synapse, and the correlation over all and over these alone.

    As measured in cortex (paper, Appendix 1.2); correlations about zero, which is the weights' mean.
    """
    direct, W = direct.double().flatten(), W.double().flatten()
    exists = (direct != 0).double()
    product = (direct * W).sum()
    return {
        "bidirectional_share": exists.mean(),
        "correlation": product / (direct.norm() * W.norm()),
        "bidirectional_correlation": product / (direct.norm() * (W * exists).norm()),
    }


def _degrees(name: str, found: Mapping[str, float]) -> float | None:
    """The angle of which `_half_angle` gave the numbers; None if it did not."""
    if f"{name}_sine" not in found:
        return None
    return math.degrees(2 * math.atan2(found[f"{name}_sine"], found[f"{name}_cosine"]))


def _ratio(name: str, found: Mapping[str, float]) -> float | None:
    """The norm ``name`` in units of the norm of W; None if it was not measured, NaN where W is zero."""
    if name not in found:
        return None
    return found[name] / found["norm"] if found["norm"] else math.nan


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
