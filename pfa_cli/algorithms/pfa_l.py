"""PFA-l: product feedback alignment whose B is learned by a local rule.

PFA needs an expansion ratio of about ten because the elements of B are drawn independently. The paper's Discussion asks for a
plasticity rule that makes BᵀB nearly the identity at a smaller ratio. Similarity matching does (Pehlevan, Hu & Chklovskii
2015, Neural Computation 27, "A Hebbian/anti-Hebbian neural network for linear subspace learning"). The extra population has
lateral weights M, so that an error e settles it at

    ē = F·e,    F = (M + εI)⁻¹·B

and every synapse changes by what it meets at its two ends (means over the errors of a step):

    ΔB = η·(ē eᵀ - B)        feedforward, Hebbian
    ΔM = η·(ē ēᵀ - M)        lateral, anti-Hebbian

The fixed point is FᵀF = I, whatever the covariance of e. Before training the network is driven by spontaneous activity,
e ~ N(0, I). Then F takes the place of B and stays; all else is PFA's (see pfa.py), and its closed form is exact.

``lateral="symmetric"``: as above. M is symmetric, so two units of the extra population inhibit each other mutually.
``lateral="one-way"``: only the lower triangle of M exists, ΔM = η·(tril(ē ēᵀ) - M), so that no pair of neurons anywhere is
connected both ways. This rule leaves a noise that falls with η; therefore η falls here with the step t: 1/η(t) = 1/η + t/2.

Shapes: e [N_out, samples], B and F [N̄, N_out], M [N̄, N̄].

Where it differs from its source: the source learns a subspace smaller than its input (N̄ < N_out) from data; here N̄ may also
equal or exceed N_out. If it exceeds N_out, M is singular at the fixed point, and ε = 0.01; else ε = 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pfa_cli.algorithms.base import FeedbackLayer
from pfa_cli.algorithms.pfa import PFA
from pfa_cli.errors import PfaError
from pfa_cli.registry import Entry, Option, OptionValue


class PFAL(PFA):
    """PFA with an effective B that spontaneous activity has made nearly orthonormal; per layer ``G`` = FᵀF and ``C0``."""

    entry = Entry(
        "pfa-l",
        label="PFA-l",
        title="Product feedback alignment, B learned by a local rule",
        colour="#F01860",
        measure="path",
        limit="pfa_cli.theory.propositions:orthogonal_limit",
        options={
            "expansion": Option(
                1.0, "expansion ratio 1/λ: error units per unit of the layer above", minimum=0.01
            ),
            "form": Option(
                "closed",
                "closed form at BP's cost, or the paper's equations literally",
                choices=("closed", "literal"),
            ),
            "least_units": Option(1, "error units of a layer, at least (at most its own units)", minimum=1),
            "lateral": Option(
                "symmetric", "lateral weights of the extra population", choices=("symmetric", "one-way")
            ),
            "b_steps": Option(50, "steps of spontaneous activity before training", minimum=0),
            "b_rate": Option(0.2, "η: learning rate of B and M in these steps", minimum=1e-6, maximum=0.9),
            "b_samples": Option(1.0, "errors in a step, per unit of the layer above", minimum=1e-6),
        },
        no_sign_transport=True,
        no_magnitude_transport=True,
        no_separate_phase=False,
    )

    @classmethod
    def extra_numbers(cls, options: Mapping[str, Any], layers: Sequence[tuple[int, int]]) -> float:
        lateral = max((float(options["expansion"]) * n_out) ** 2 for n_out, _ in layers)
        return super().extra_numbers(options, layers) + 3 * lateral  # M, its factor and the step's change

    @staticmethod
    def draw_pair(
        layer: FeedbackLayer, options: Mapping[str, OptionValue], stream: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """F, which stands where PFA has B, and R₀."""
        B, R0 = PFA.draw_pair(layer, options, stream)
        blocks = B.to(torch.promote_types(B.dtype, torch.float32)).chunk(layer.groups)
        try:
            F = torch.cat([_learned(block, options, stream) for block in blocks])
        except torch.linalg.LinAlgError:  # M has become singular
            F = torch.full_like(B, torch.nan)
        if not F.isfinite().all():
            raise PfaError(
                f"layer {layer.name!r}: the {options['lateral']} rule that learns B diverged at b_rate (={options['b_rate']}) "
                f"and b_samples (={options['b_samples']}): take a smaller rate, or more samples in a step"
            )
        return F.to(B.dtype), R0


def _learned(B: Tensor, options: Mapping[str, OptionValue], stream: torch.Generator) -> Tensor:
    """F after all steps of spontaneous activity, [N̄, N_out] like B."""
    population = ErrorPopulation(B, one_way=options["lateral"] == "one-way")
    samples = max(1, round(float(options["b_samples"]) * B.shape[1]))
    for step in range(int(options["b_steps"])):
        errors = torch.randn((B.shape[1], samples), generator=stream, dtype=B.dtype)
        population.learn(errors, population.rate_at(step, float(options["b_rate"])))
    return population.effective()


class ErrorPopulation:
    """The extra population of one layer: feedforward weights ``B`` [N̄, N_out] and lateral weights ``M`` [N̄, N̄]."""

    def __init__(self, B: Tensor, *, one_way: bool) -> None:
        self.B, self.one_way = B.clone(), one_way
        units, errors = B.shape
        self.M = torch.eye(units, dtype=B.dtype)
        self._leak = 0.01 * torch.eye(units, dtype=B.dtype) if units > errors else 0.0  # ε

    def response(self, e: Tensor) -> Tensor:
        """ē = (M + εI)⁻¹·B·e, [N̄, samples], for errors e [N_out, samples]."""
        M = self.M + self._leak
        if self.one_way:
            return torch.linalg.solve_triangular(M, self.B @ e, upper=False)
        return torch.cholesky_solve(self.B @ e, torch.linalg.cholesky(M))

    def learn(self, e: Tensor, rate: float) -> None:
        """One step of both rules on the errors e [N_out, samples], at the rate η."""
        response, n = self.response(e), e.shape[1]
        correlation = response @ response.T / n
        self.B.lerp_(response @ e.T / n, rate)
        self.M.lerp_(correlation.tril() if self.one_way else correlation, rate)

    def rate_at(self, step: int, rate: float) -> float:
        """η of this step, counted from 0; it falls where only one direction of the lateral weights exists."""
        return rate / (1 + rate * step / 2) if self.one_way else rate

    def effective(self) -> Tensor:
        """F = (M + εI)⁻¹·B, [N̄, N_out]."""
        return self.response(torch.eye(self.B.shape[1], dtype=self.B.dtype))
