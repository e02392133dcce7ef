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
    """Path angle in degrees and norm ratio of PFA after learning, by its expansion ratio 1/λ."""
    lam = 1 / float(options["expansion"])
    return path_angle_degrees(lam), path_norm_ratio(lam)


def backpropagation_limit(options: Mapping[str, Any]) -> tuple[float, float]:
    """Angle in degrees and norm ratio where the feedback path becomes W itself (BP, KP; PFA-o by Prop. 1)."""
    return 0.0, 1.0


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
