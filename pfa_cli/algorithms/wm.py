"""WM, the weight mirror: V learns W from noise, in a phase of its own.

In a mirror phase, layer by layer and without data, noise X at the layer's input makes noise Y at its output, and the
feedback path follows their correlation (Akrout et al. 2019; paper, "weight mirror"):

    X ~ N(0, 1) [n, fan_in],    Y = X·Wᵀ (bias blocked),    V ← (1 - λ_m)·V + λ_m·YᵀX / n,    grad_h = Vᵀ·delta

E[YᵀX / n] = W. Five time constants, 5/λ_m mirror batches, come before training, then one after every training step. The
noise that stays is an angle of tan²θ = (fan_in + 1)·λ_m / (2n).

Two options make it cheaper; neither changes this noise.

``mirror_every`` = k: a mirror batch after every k-th training step only, with the same λ_m. V then follows W with a time
constant of k/λ_m training steps.

``mirror_noise`` = "wishart": YᵀX = W·XᵀX, and XᵀX has the Wishart distribution with n degrees of freedom, which is drawn
directly (Bartlett 1933, Proceedings of the Royal Society of Edinburgh 53):

    XᵀX = A·Aᵀ,    A lower triangular [fan_in, fan_in],    A_ii² ~ χ²(n - i), i = 0, 1, …,    A_ij ~ N(0, 1) for i > j

Exact in distribution; the random numbers are others than those of X. It takes n / fan_in times fewer multiplications, so it is
for convolutions, whose fan_in is far below n. A layer with fan_in > n, where A does not exist, draws X.

Where it differs from its paper: no ReLU between X and Y, so that no gain needs correcting; the decay (1 - λ_m), without
which V grows without bound; convolutions mirror on patches, since zero padding would bias the border taps; no BatchNorm in
the mirror. Noise reaches the first layer's path too, although no error passes there.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pfa_cli.algorithms.base import Algorithm, FeedbackLayer, as_it_lies, lying_as
from pfa_cli.algorithms.drawing import glorot_path
from pfa_cli.registry import Entry, Option
from pfa_cli.wording import count


class WM(Algorithm):
    """Weight mirror; per layer ``V``, shape of W."""

    entry = Entry(
        "wm",
        label="WM",
        title="Weight mirror",
        colour="#882255",
        options={
            "mirror_samples": Option(512, "noise samples in a mirror batch", minimum=1),
            "mirror_rate": Option(
                0.01, "λ_m: share of a mirror batch in the feedback path", minimum=1e-6, maximum=1
            ),
            "mirror_every": Option(1, "training steps from one mirror batch to the next", minimum=1),
            "mirror_noise": Option(
                "samples",
                "draw the noise itself, or its second moments (where fan_in is at most mirror_samples)",
                choices=("samples", "wishart"),
            ),
        },
        no_sign_transport=True,
        no_magnitude_transport=True,
        no_separate_phase=False,
    )

    @classmethod
    def extra_numbers(cls, options: Mapping[str, Any], layers: Sequence[tuple[int, int]]) -> float:
        return max(int(options["mirror_samples"]) * (n_out + fan_in) for n_out, fan_in in layers)

    def draw(self, layer: FeedbackLayer, stream: torch.Generator) -> dict[str, Tensor]:
        return {"V": glorot_path(layer, stream)}

    @property
    def preparation(self) -> str:
        return f"mirror phase before training: {count(self._first_batches, 'batch')} of {self.options['mirror_samples']}"

    @property
    def _first_batches(self) -> int:
        return math.ceil(5 / float(self.options["mirror_rate"]))

    def prepare(self) -> None:
        self.mirror(self._first_batches)

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.step_kind == _MIRRORS:
            self.mirror(1)
        self.steps += 1

    @property
    def step_kind(self) -> int:
        return _MIRRORS if (self.steps + 1) % self.period == 0 else 0

    @property
    def period(self) -> int:
        return int(self.options["mirror_every"])

    @torch.no_grad()
    def mirror(self, batches: int) -> None:
        """``batches`` mirror batches for every layer, in network order."""
        samples, rate = int(self.options["mirror_samples"]), float(self.options["mirror_rate"])
        paths = [layer.V for layer in self.layers]
        shapes = [(samples, layer.fan_in) for layer in self.layers if not self._draws_moments(layer)]
        for _ in range(batches):
            noise = self.noises(shapes, self.layers[0].weight)
            products = [self._correlation(layer, samples, noise) for layer in self.layers]
            torch._foreach_mul_(paths, 1 - rate)
            torch._foreach_add_(paths, products, alpha=rate / samples)

    def _draws_moments(self, layer: FeedbackLayer) -> bool:
        return self.options["mirror_noise"] == "wishart" and layer.fan_in <= int(
            self.options["mirror_samples"]
        )

    def _correlation(self, layer: FeedbackLayer, samples: int, noise: Iterator[Tensor]) -> Tensor:
        """YᵀX of a mirror batch, shape of W; X is the next ``noise`` where it is drawn."""
        lying = as_it_lies(layer.weight)  # what the order of the inputs is makes no difference to noise
        W = lying.flatten(1)
        if self._draws_moments(layer):
            A = self._bartlett(layer.fan_in, samples, W)
            product = (W @ A) @ A.T
        else:
            X = next(noise)
            Y = X @ W.T
            product = Y.T @ X
        return lying_as(product.view(lying.shape), layer.weight)

    def _bartlett(self, size: int, samples: int, like: Tensor) -> Tensor:
        """A, lower triangular [size, size], such that A·Aᵀ is distributed as XᵀX of X ~ N(0, 1) [samples, size]."""
        A = self.noise((size, size), like.device, like.dtype).tril_(-1)
        freedom = torch.arange(samples, samples - size, -1, device=like.device, dtype=like.dtype)
        # χ²(k) = 2·Γ(k / 2). torch.distributions calls the same function, and takes no generator.
        A.diagonal().copy_((2 * torch._standard_gamma(freedom / 2, generator=self.generator)).sqrt_())
        return A


_MIRRORS = 1  # the kind of step that a mirror batch follows; 0 is the other kind
