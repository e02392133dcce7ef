"""The layers of a network, forward and backward, in NumPy. ``backward`` takes dLoss/d(output) and gives dLoss/d(input)."""

from collections.abc import Iterator

import numpy as np
from numpy import ndarray

from oracle.feedback import Feedback, Parameter
from oracle.geometry import Conv, Dense


class Layer:
    """Something with a forward and a backward pass; ``children`` and ``own`` are named as torch names them."""

    def __init__(self, **children: "Layer") -> None:
        self.children: dict[str, Layer] = children
        self.own: dict[str, Parameter] = {}

    def walk(self, prefix: str = "") -> Iterator[tuple[str, "Layer"]]:
        yield prefix.rstrip("."), self
        for name, child in self.children.items():
            yield from child.walk(f"{prefix}{name}.")

    def named_parameters(self) -> dict[str, Parameter]:
        found: dict[int, tuple[str, Parameter]] = {}  # a layer used twice has one set of parameters
        for prefix, layer in self.walk():
            for name, parameter in layer.own.items():
                found.setdefault(id(parameter), (f"{prefix}.{name}".lstrip("."), parameter))
        return dict(found.values())

    def weighted(self) -> dict[str, "Weighted"]:
        found: dict[int, tuple[str, Weighted]] = {}
        for name, layer in self.walk():
            if isinstance(layer, Weighted):
                found.setdefault(id(layer), (name, layer))
        return dict(found.values())

    def forward(self, x: ndarray) -> ndarray:
        raise NotImplementedError

    def backward(self, grad: ndarray, e_L: ndarray) -> ndarray:
        raise NotImplementedError


class Weighted(Layer):
    """a = W·h + b, whose backward pass asks its feedback for the error of the input."""

    def __init__(self, geometry: Dense | Conv, weight: ndarray, bias: ndarray | None) -> None:
        super().__init__()
        self.geometry = geometry
        self.own["weight"] = Parameter(weight)
        if bias is not None:
            self.own["bias"] = Parameter(bias)
        self.feedback = Feedback(self.own["weight"], geometry)
        self.inputs: list[ndarray] = []  # a stack: the last use is the first to be gone back through

    def forward(self, h: ndarray) -> ndarray:
        self.inputs.append(h)
        a = self.geometry.forward(self.own["weight"].value, h)
        self.h, self.a = h, a if "bias" not in self.own else self.geometry.add_bias(a, self.own["bias"].value)
        return self.a

    def backward(self, delta: ndarray, e_L: ndarray) -> ndarray:
        h = self.inputs.pop()
        W = self.own["weight"]
        W.gradient = W.gradient + self.geometry.gradient(delta, h, W.value.shape)
        if "bias" in self.own:
            self.own["bias"].gradient = self.own["bias"].gradient + self.geometry.bias_gradient(delta)
        return self.feedback.carry(delta, h, e_L)


class ReLU(Layer):
    def forward(self, u: ndarray) -> ndarray:
        self.u = u
        return np.maximum(u, 0)

    def backward(self, grad: ndarray, e_L: ndarray) -> ndarray:
        return grad * (self.u > 0)


class BatchNorm(Layer):
    """Training mode: each channel normalised by the minibatch's mean and (biased) variance."""

    def __init__(self, gamma: ndarray, beta: ndarray, epsilon: float) -> None:
        super().__init__()
        self.own = {"weight": Parameter(gamma), "bias": Parameter(beta)}
        self.epsilon = epsilon

    def forward(self, x: ndarray) -> ndarray:
        mean = x.mean((0, 2, 3), keepdims=True)
        self.deviation = np.sqrt(x.var((0, 2, 3), keepdims=True) + self.epsilon)
        self.normalised = (x - mean) / self.deviation
        gamma, beta = self.own["weight"].value, self.own["bias"].value
        return gamma[:, None, None] * self.normalised + beta[:, None, None]

    def backward(self, grad: ndarray, e_L: ndarray) -> ndarray:
        over = (0, 2, 3)
        self.own["weight"].gradient = (grad * self.normalised).sum(over)
        self.own["bias"].gradient = grad.sum(over)
        g = grad * self.own["weight"].value[:, None, None]
        centred = g - g.mean(over, keepdims=True)
        along = self.normalised * (g * self.normalised).mean(over, keepdims=True)
        return (centred - along) / self.deviation


class AveragePool(Layer):
    """Means over windows of k × k that do not overlap."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: ndarray) -> ndarray:
        b, c, height, width = x.shape
        k = self.size
        return x.reshape(b, c, height // k, k, width // k, k).mean((3, 5))

    def backward(self, grad: ndarray, e_L: ndarray) -> ndarray:
        return np.kron(grad, np.ones((self.size, self.size))) / self.size**2


class MeanOverPositions(Layer):
    """[b, t, n] → [b, n]."""

    def forward(self, x: ndarray) -> ndarray:
        self.positions = x.shape[1]
        return x.mean(1)

    def backward(self, grad: ndarray, e_L: ndarray) -> ndarray:
        return np.repeat(grad[:, None], self.positions, axis=1) / self.positions


class Flatten(Layer):
    def forward(self, x: ndarray) -> ndarray:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, grad: ndarray, e_L: ndarray) -> ndarray:
        return grad.reshape(self.shape)


class Sequence(Layer):
    def forward(self, x: ndarray) -> ndarray:
        for layer in self.children.values():
            x = layer.forward(x)
        return x

    def backward(self, grad: ndarray, e_L: ndarray) -> ndarray:
        for layer in reversed(self.children.values()):
            grad = layer.backward(grad, e_L)
        return grad


class Residual(Layer):
    """relu(body(x) + shortcut(x)); option A: every second pixel, the new channels zero, half on each side."""

    def __init__(self, body: Layer, stride: int, new_channels: int) -> None:
        super().__init__(body=body, relu=ReLU())
        self.stride, self.new = stride, new_channels

    def forward(self, x: ndarray) -> ndarray:
        self.shape = x.shape
        half = self.new // 2
        shortcut = np.pad(x[:, :, :: self.stride, :: self.stride], ((0, 0), (half, half), (0, 0), (0, 0)))
        return self.children["relu"].forward(self.children["body"].forward(x) + shortcut)

    def backward(self, grad: ndarray, e_L: ndarray) -> ndarray:
        grad = self.children["relu"].backward(grad, e_L)
        half = self.new // 2
        through = np.zeros(self.shape)
        through[:, :, :: self.stride, :: self.stride] = grad[:, half : grad.shape[1] - half]
        return self.children["body"].backward(grad, e_L) + through
