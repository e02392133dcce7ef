"""One step of training: softmax cross-entropy, SGD with momentum and coupled weight decay, and the feedback's own rules."""

from collections.abc import Iterator
from collections.abc import Sequence as ListOf

import numpy as np
from numpy import ndarray

from oracle.feedback import Parameter, Population
from oracle.network import Layer, ReLU

Path = tuple[str, str, str]  # a weighted layer, the population below it, the population above it


def cross_entropy(logits: ndarray, labels: ndarray) -> tuple[float, ndarray]:
    """The batch mean of -log softmax at the label, and its derivative e_L = dLoss/dlogits."""
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    one_hot = np.eye(logits.shape[1])[labels]
    return -(one_hot * log_p).sum() / len(labels), (np.exp(log_p) - one_hot) / len(labels)


def sgd(parameter: Parameter, lr: float, momentum: float, weight_decay: float) -> None:
    g = parameter.gradient + weight_decay * parameter.value
    parameter.velocity = g if parameter.velocity is None else momentum * parameter.velocity + g
    parameter.value = parameter.value - lr * parameter.velocity


def populations(network: Layer, paths: ListOf[Path], noise: Iterator[ndarray]) -> dict[str, Population]:
    """Every population of ``paths`` in the order of the forward pass, with this minibatch's noise.

    A population is named after its ReLU; "input:x" and "output:x" are linear ones, the input and output of layer x.
    """
    layers = dict(network.walk())
    found: dict[str, Population] = {}
    for path, name in ((path, name) for path, lower, upper in paths for name in (lower, upper)):
        if name in found:
            continue
        kind, _, layer = name.rpartition(":")
        u = layers[layer].u if not kind else layers[layer].h if kind == "input" else layers[layer].a
        sigma = layers[path].feedback.noise * u.std()
        draw = next(noise)
        assert draw.shape == u.shape
        found[name] = Population(u, isinstance(layers[layer], ReLU), sigma * draw, sigma)
    return found


def train_step(
    network: Layer,
    x: ndarray,
    labels: ndarray,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    noise: Iterator[ndarray] | None = None,
    paths: ListOf[Path] = (),
) -> float:
    """One minibatch; returns the loss. ``noise`` is used up in the order of drawing, ``paths`` by feedback that listens."""
    weighted = network.weighted()
    parameters = [*network.named_parameters().values()]
    parameters += [p for layer in weighted.values() for p in layer.feedback.parameters.values()]
    for parameter in parameters:
        parameter.gradient = np.zeros_like(parameter.value)

    loss, e_L = cross_entropy(network.forward(x), labels)
    if any(layer.feedback.listens for layer in weighted.values()):
        alive = populations(network, paths, noise)
        for name, lower, upper in paths:
            weighted[name].feedback.listen(alive[lower], alive[upper])
    network.backward(e_L, e_L)
    for parameter in parameters:
        sgd(parameter, lr, momentum, weight_decay)
    for layer in weighted.values():
        layer.feedback.after_step(lambda: next(noise))
    return loss
