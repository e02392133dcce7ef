"""The bilinear map of a weighted layer, a = W·h, with its two derivatives, for dense and convolutional layers."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy import ndarray


class Dense:
    """a = W·h on the last axis: h [b, ..., N_in], W [N_out, N_in], a [b, ..., N_out]."""

    def forward(self, W: ndarray, h: ndarray) -> ndarray:
        return h @ W.T

    def transpose(self, V: ndarray, delta: ndarray, h_shape: tuple[int, ...]) -> ndarray:
        """Vᵀ·delta for every sample: [b, ..., N_in]."""
        return delta @ V

    def gradient(self, delta: ndarray, h: ndarray, W_shape: tuple[int, ...]) -> ndarray:
        """delta·hᵀ summed over the samples: [N_out, N_in]."""
        return delta.reshape(-1, delta.shape[-1]).T @ h.reshape(-1, h.shape[-1])

    def bias_gradient(self, delta: ndarray) -> ndarray:
        return delta.reshape(-1, delta.shape[-1]).sum(0)

    def add_bias(self, a: ndarray, b: ndarray) -> ndarray:
        return a + b

    def mix(self, B: ndarray, delta: ndarray) -> ndarray:
        """ē = B·delta (eq. 4): B [N̄, N_out]."""
        return delta @ B.T

    def samples(self, h: ndarray, W_shape: tuple[int, ...]) -> float | ndarray:
        """How many terms the sum in ``gradient`` has."""
        return h[..., 0].size

    def direct(self, D: ndarray, e_L: ndarray, a_shape: tuple[int, ...], h_shape: tuple[int, ...]) -> ndarray:
        """DFA: D [n_classes, N_in] carries the output error, the same to every position of the layer."""
        positions = e_L.reshape(len(e_L), *(1,) * (len(a_shape) - 2), e_L.shape[1])
        return np.broadcast_to(positions, (*a_shape[:-1], e_L.shape[1])) @ D


@dataclass(frozen=True)
class Conv:
    """a = W * h: h [b, C_in, H, W], W [C_out, C_in/groups, kh, kw], a [b, C_out, H_out, W_out]."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int = 1

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        )

    def taps(self, size: tuple[int, int]) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
        """Every tap (i, j) of the kernel with the region of the padded input that it sees."""
        out = self.output_size(size)
        (s, t), (d, e) = self.stride, self.dilation
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                rows = slice(i * d, i * d + s * (out[0] - 1) + 1, s)
                columns = slice(j * e, j * e + t * (out[1] - 1) + 1, t)
                yield i, j, (rows, columns)

    def pad(self, h: ndarray) -> ndarray:
        (p, q) = self.padding
        return np.pad(h, ((0, 0), (0, 0), (p, p), (q, q)))

    def blocks(self, n_upper: int, n_lower: int) -> Iterator[tuple[slice, slice]]:
        """The channels above and below that belong to the same group."""
        upper, lower = n_upper // self.groups, n_lower // self.groups
        for g in range(self.groups):
            yield slice(g * upper, (g + 1) * upper), slice(g * lower, (g + 1) * lower)

    def forward(self, W: ndarray, h: ndarray) -> ndarray:
        a = np.zeros((h.shape[0], W.shape[0], *self.output_size(h.shape[2:])))
        padded = self.pad(h)
        for i, j, (rows, columns) in self.taps(h.shape[2:]):
            seen = padded[:, :, rows, columns]
            for up, low in self.blocks(W.shape[0], h.shape[1]):
                a[:, up] += np.einsum("oc,bcyx->boyx", W[up, :, i, j], seen[:, low])
        return a

    def transpose(self, V: ndarray, delta: ndarray, h_shape: tuple[int, ...]) -> ndarray:
        """Each error goes back, through the tap that read it, to the place it was read from: [b, C_in, H, W]."""
        b, channels, height, width = h_shape
        (p, q) = self.padding
        padded = np.zeros((b, channels, height + 2 * p, width + 2 * q))
        for i, j, (rows, columns) in self.taps((height, width)):
            for up, low in self.blocks(V.shape[0], channels):
                padded[:, low, rows, columns] += np.einsum("oc,boyx->bcyx", V[up, :, i, j], delta[:, up])
        return padded[:, :, p : p + height, q : q + width]

    def gradient(self, delta: ndarray, h: ndarray, W_shape: tuple[int, ...]) -> ndarray:
        gradient = np.zeros(W_shape)
        padded = self.pad(h)
        for i, j, (rows, columns) in self.taps(h.shape[2:]):
            seen = padded[:, :, rows, columns]
            for up, low in self.blocks(W_shape[0], h.shape[1]):
                gradient[up, :, i, j] = np.einsum("boyx,bcyx->oc", delta[:, up], seen[:, low])
        return gradient

    def bias_gradient(self, delta: ndarray) -> ndarray:
        return delta.sum((0, 2, 3))

    def add_bias(self, a: ndarray, b: ndarray) -> ndarray:
        return a + b[:, None, None]

    def mix(self, B: ndarray, delta: ndarray) -> ndarray:
        """ē = B·delta at every place (eq. 11, 1×1): B [N̄, C_out/groups]; each group has its own rows of B."""
        mixed = np.zeros((delta.shape[0], B.shape[0], *delta.shape[2:]))
        for bar, up in self.blocks(B.shape[0], delta.shape[1]):
            mixed[:, bar] = np.einsum("ko,boyx->bkyx", B[bar], delta[:, up])
        return mixed

    def samples(self, h: ndarray, W_shape: tuple[int, ...]) -> ndarray:
        """Per tap, how many places of the output it reaches the input from, padding not counted: [1, 1, kh, kw]."""
        inside = self.pad(np.ones((1, 1, *h.shape[2:])))
        count = np.zeros((1, 1, *self.kernel))
        for i, j, (rows, columns) in self.taps(h.shape[2:]):
            count[0, 0, i, j] = len(h) * inside[:, :, rows, columns].sum()
        return np.maximum(count, 1)  # a tap that only ever meets padding has nothing to divide

    def direct(self, D: ndarray, e_L: ndarray, a_shape: tuple[int, ...], h_shape: tuple[int, ...]) -> ndarray:
        """DFA: the output error at every place of the map, through D [n_classes, C_in, kh, kw], without groups."""
        ungrouped = Conv(self.kernel, self.stride, self.padding, self.dilation)
        everywhere = np.broadcast_to(e_L[:, :, None, None], (*e_L.shape, *a_shape[2:]))
        return ungrouped.transpose(D, everywhere, h_shape)
