"""The nine algorithms, each as one layer sees it: what carries delta to the layer's input, and how that changes.

A feedback's life in a training step: ``listen`` (PAL, after the forward pass), ``carry`` (backward pass), then the SGD
step of whatever ``parameters`` it has beside the layer's own, then ``after_step`` (WM). ``noise()`` gives the next
recorded draw of N(0, 1).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

Noise = Callable[[], ndarray]


class Parameter:
    """A tensor that SGD trains."""

    def __init__(self, value: ndarray) -> None:
        self.value = np.array(value, dtype=np.float64)
        self.gradient = np.zeros_like(self.value)
        self.velocity: ndarray | None = None


@dataclass
class Population:
    """Neurons with potential u, rate h = φ(u), and the noise that PAL adds to u in this minibatch."""

    u: ndarray
    rectified: bool
    noise: ndarray
    sigma: float

    def rate(self, u: ndarray) -> ndarray:
        return np.maximum(u, 0) if self.rectified else u


class Feedback:
    """BP: the feedback path is the layer's own weight (eq. 2)."""

    listens = False

    def __init__(self, weight: Parameter, geometry) -> None:
        self.weight, self.geometry = weight, geometry
        self.parameters: dict[str, Parameter] = {}

    def path(self) -> ndarray:
        return self.weight.value

    def carry(self, delta: ndarray, h: ndarray, e_L: ndarray) -> ndarray:
        return self.geometry.transpose(self.path(), delta, h.shape)

    def listen(self, lower: Population, upper: Population) -> None:
        pass

    def after_step(self, noise: Noise) -> None:
        pass


class Fixed(Feedback):
    """FA: a fixed random path. ``density``: how many of its synapses were drawn, which is nothing to it any more."""

    def __init__(self, weight: Parameter, geometry, V: ndarray, density: float = 1) -> None:
        super().__init__(weight, geometry)
        self.V = V

    def path(self) -> ndarray:
        return self.V


class Direct(Feedback):
    """DFA: e_L takes the place of delta."""

    def __init__(
        self, weight: Parameter, geometry, D: ndarray, density: float = 1, error_scale: float = 1
    ) -> None:
        super().__init__(weight, geometry)
        self.D, self.scale = D, error_scale

    def path(self) -> ndarray:
        return self.D

    def carry(self, delta: ndarray, h: ndarray, e_L: ndarray) -> ndarray:
        return self.geometry.direct(self.D, self.scale * e_L, delta.shape, h.shape)


class Sign(Feedback):
    """SF: sign(W), scaled by the layer's Glorot standard deviation; where M is not zero, of variance 1 / density."""

    def __init__(self, weight: Parameter, geometry, M: ndarray | float = 1.0, density: float = 1) -> None:
        super().__init__(weight, geometry)
        self.mask = (np.asarray(M) != 0) / np.sqrt(density)

    def path(self) -> ndarray:
        W = self.weight.value
        taps = W[0, 0].size  # 1 for a dense layer
        return np.sqrt(2 / ((W.shape[0] + W.shape[1]) * taps)) * np.sign(W) * self.mask


class KollenPollack(Feedback):
    """KP: V has W's gradient and takes W's step."""

    def __init__(self, weight: Parameter, geometry, C0: ndarray) -> None:
        super().__init__(weight, geometry)
        self.parameters["V"] = Parameter(weight.value + C0)

    def path(self) -> ndarray:
        return self.parameters["V"].value

    def carry(self, delta: ndarray, h: ndarray, e_L: ndarray) -> ndarray:
        V = self.parameters["V"]
        V.gradient = V.gradient + self.geometry.gradient(delta, h, V.value.shape)
        return super().carry(delta, h, e_L)


class ProductFeedback(Feedback):
    """PFA and PFA-o, literally: ē = B·delta (eq. 4, 11), Rᵀ·ē (eq. 5, 12), ΔR ∝ ē·hᵀ (eq. 6)."""

    def __init__(
        self,
        weight: Parameter,
        geometry,
        B: ndarray,
        R: ndarray,
        expansion: float,
        r_density: float = 1,
        **rule: object,
    ) -> None:
        """``rule``: how its B was drawn or learned, which is nothing to this layer any more."""
        super().__init__(weight, geometry)
        groups = len(weight.value) // B.shape[1]
        assert len(B) == groups * max(1, round(expansion * B.shape[1]))
        self.B = B
        self.parameters["R"] = Parameter(R)
        self.synapses = R != 0  # the others are never made
        assert r_density < 1 or self.synapses.all()

    def path(self) -> ndarray:
        """(RB)ᵀ = BᵀR in the shape of W, for reading only: the backward pass never forms it."""
        B, R, W = self.B, self.parameters["R"].value, self.weight.value
        V = np.zeros_like(W)
        groups = W.shape[0] // B.shape[1]
        for bar, up in zip(
            np.split(np.arange(len(B)), groups), np.split(np.arange(len(W)), groups), strict=True
        ):
            V[up] = np.tensordot(B[bar].T, R[bar], axes=1)
        return V

    def carry(self, delta: ndarray, h: ndarray, e_L: ndarray) -> ndarray:
        R = self.parameters["R"]
        e_bar = self.geometry.mix(self.B, delta)
        R.gradient = R.gradient + self.geometry.gradient(e_bar, h, R.value.shape) * self.synapses
        return self.geometry.transpose(R.value, e_bar, h.shape)


class Mixture(Feedback):
    """mix: every unit's row of V by one rule. What PFA's and KP's rows learn from is G·grad_W, G = BᵀB there and 1 here.

    FA's rows, which V gives, do not learn. PFA's R takes SGD steps with B·grad_W, so BᵀR takes them with BᵀB·grad_W.
    """

    def __init__(self, weight: Parameter, geometry, G: ndarray, C0: ndarray, V: ndarray) -> None:
        super().__init__(weight, geometry)
        self.G, self.fixed = G, V
        self.parameters["V"] = Parameter(self.mixed(weight.value) + C0)

    def mixed(self, rows: ndarray) -> ndarray:
        """G by group of the layer, applied to the rows of ``rows``."""
        groups = np.split(rows, len(self.G))
        return np.concatenate([np.tensordot(G, own, axes=1) for G, own in zip(self.G, groups, strict=True)])

    def path(self) -> ndarray:
        return self.parameters["V"].value + self.fixed

    def carry(self, delta: ndarray, h: ndarray, e_L: ndarray) -> ndarray:
        V = self.parameters["V"]
        V.gradient = V.gradient + self.mixed(self.geometry.gradient(delta, h, V.value.shape))
        return super().carry(delta, h, e_L)


class WeightMirror(Fixed):
    """WM, after every k-th step: V ← (1-λ_m)·V + λ_m·YᵀX/n, noise X [n, fan_in] at the layer's input, Y = X·Wᵀ."""

    def __init__(
        self,
        weight: Parameter,
        geometry,
        V: ndarray,
        mirror_samples: int,
        mirror_rate: float,
        mirror_every: int = 1,
    ) -> None:
        super().__init__(weight, geometry, V)
        self.n, self.rate, self.every = mirror_samples, mirror_rate, mirror_every
        self.steps = 0

    def after_step(self, noise: Noise) -> None:
        self.steps += 1
        if self.steps % self.every:
            return
        W = self.weight.value.reshape(len(self.weight.value), -1)
        X = noise()
        assert X.shape == (self.n, W.shape[1])
        Y = X @ W.T
        self.V = (1 - self.rate) * self.V + self.rate * (Y.T @ X / self.n).reshape(self.V.shape)


class PhaselessAlignment(Fixed):
    """PAL: V follows the correlation of the lower population's noise with the upper one's high-passed rate."""

    listens = True

    def __init__(
        self, weight: Parameter, geometry, V: ndarray, rate: float, noise: float, leak: float
    ) -> None:
        super().__init__(weight, geometry, V)
        self.rate, self.noise, self.leak = rate, noise, leak
        self.bound = 3 * np.linalg.norm(V)

    def listen(self, lower: Population, upper: Population) -> None:
        W, p, q = self.weight.value, lower, upper
        h_q = q.rate(q.u)
        da = self.geometry.forward(W, p.rate(p.u + p.noise) - p.rate(p.u))
        before = np.concatenate([h_q[-1:], h_q[:-1]])  # the upper rate one sample earlier
        r = q.rate(q.u + da + q.noise) - h_q + self.leak * (h_q - before)
        slope = (0.5 if p.rectified else 1) * (0.5 if q.rectified else 1)  # p̄, the mean of φ'_p·φ'_q
        C = self.geometry.gradient(r, p.noise, W.shape) / self.geometry.samples(p.noise, W.shape)
        self.V = (1 - self.rate) * self.V + self.rate * C / (p.sigma**2 * slope)
        self.V *= min(1, self.bound / np.linalg.norm(self.V))
