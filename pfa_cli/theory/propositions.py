"""Propositions 1 and 3: where the feedback path (RB)ᵀ ends up relative to W once the initial weights have decayed."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def path_angle_degrees(lam: float) -> float:
    """Path alignment angle after learning, arccos(1/√(1+λ)) (Prop. 3); 0 in the limit λ → 0 (Prop. 1).

    >>> round(path_angle_degrees(0.1), 2)
    17.55
    """
    return math.degrees(math.acos(1 / math.sqrt(1 + lam)))


def path_norm_ratio(lam: float) -> float:
    """Path norm ratio ‖RB‖/‖W‖ after learning, √(1+λ): the root mean square eigenvalue of BᵀB.

    >>> round(path_norm_ratio(0.1), 3)
    1.049
    """
    return math.sqrt(1 + lam)


def path_limit(options: Mapping[str, Any]) -> tuple[float, float]:
    """Path angle in degrees and norm ratio of PFA after learning, by its expansion ratio 1/λ and R's density q.

    Of a sparse R, q·N̄ synapses reach each unit below, and only these learn: the angle is that of the expansion ratio q/λ, and
    the norm ratio q·√(1+λ/q). A sparse B changes neither until few synapses are left in each of its columns.
    """
    q = float(options.get("r_density", 1))
    lam = 1 / (float(options["expansion"]) * q)
    return path_angle_degrees(lam), q * path_norm_ratio(lam)


def sparse_b_angle_degrees(units: int, expansion: float, density: float) -> float:
    """PFA's path angle after learning where each element of B exists with probability ``density``, of ``units`` errors.

    A row of BᵀB has the mean square 1 + λ + (κ/density - 2)/N̄, with κ = 9/5 the kurtosis of the uniform elements.

    >>> round(sparse_b_angle_degrees(512, 10, 1.0), 2), round(sparse_b_angle_degrees(512, 10, 0.02), 2)
    (17.55, 18.9)
    """
    return path_angle_degrees(1 / expansion + (1.8 / density - 2) / (expansion * units))


def orthogonal_limit(options: Mapping[str, Any]) -> tuple[float, float]:
    """The same of PFA-o and PFA-l: W itself (Prop. 1); below an expansion ratio of 1, W's projection on N̄ random directions.

    >>> orthogonal_limit({"expansion": 2.0}), tuple(round(x, 2) for x in orthogonal_limit({"expansion": 0.25}))
    ((0.0, 1.0), (60.0, 0.5))
    """
    share = min(1.0, float(options.get("expansion", 1)))
    return math.degrees(math.acos(math.sqrt(share))), math.sqrt(share)


def backpropagation_limit(options: Mapping[str, Any]) -> tuple[float, float]:
    """Angle in degrees and norm ratio where the feedback path becomes W itself (BP, KP)."""
    return 0.0, 1.0


def no_limit(options: Mapping[str, Any]) -> tuple[None, None]:
    """Where no theory says how feedback ends up."""
    return None, None


def simulate_path(gram: NDArray[np.float64], inputs: int, rng: np.random.Generator) -> tuple[float, float]:
    """Angle in degrees and norm ratio between a random W [units, inputs] and its feedback path (RB)ᵀ = BᵀB W.

    Figure 3b's simulation: W is standard normal and Rᵀ = BW, which holds once the initial weights have decayed.
    ``gram`` is BᵀB [units, units].
    """
    w = rng.standard_normal((gram.shape[0], inputs))
    v = gram @ w
    ratio = np.linalg.norm(v) / np.linalg.norm(w)
    cosine = np.vdot(v, w) / (np.linalg.norm(v) * np.linalg.norm(w))
    return math.degrees(math.acos(min(1.0, float(cosine)))), float(ratio)
