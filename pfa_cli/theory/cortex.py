"""The weight correlation of connected cortical neurons, as the paper's appendix 1.2 estimates it.

Of the feedforward weights, drawn from a normal distribution, 69 % have no feedback weight (0); for the other 31 % the
feedback weight is drawn with correlation 0.36 (Song et al. 2005). Both are standard normal here. With p = 0.31 and
r = 0.36 the correlation over all pairs needs no simulation: the covariance is p·r, the variances are 1 and p, hence

    R = p·r / √p = r·√p = 0.200,    arccos R = 78.4°

so the paper's R ≈ 0.2 and 78° follow from its assumptions. One of them matters: 31 % is a share of connected *pairs*,
and the estimate applies it to *synapses*. A reciprocal pair has two synapses, so that 2p/(1+p) = 47 % of all synapses
have a partner; counted so, R = 0.248 and the angle is 75.7°.
"""

import json
import math
from dataclasses import asdict, dataclass

import numpy as np

RECIPROCAL_SHARE = 0.31
RECIPROCAL_CORRELATION = 0.36


@dataclass(frozen=True)
class CorticalEstimate:
    """Correlation and alignment angle: exact, and mean ± std over simulated draws of ``pairs`` connected pairs."""

    exact_correlation: float
    exact_angle_degrees: float
    correlation_mean: float
    correlation_std: float
    angle_degrees_mean: float
    angle_degrees_std: float
    pairs: int
    draws: int

    def sentence(self) -> str:
        """The estimate in words."""
        return (
            f"Weight correlation over all connected pairs: R = {self.exact_correlation:.3f}, a weight alignment angle of "
            f"{self.exact_angle_degrees:.1f}° (the paper: R ≈ 0.2, 78°). {self.draws:,} simulations of {self.pairs:,} "
            f"pairs: R = {self.correlation_mean:.3f} ± {self.correlation_std:.3f}, "
            f"{self.angle_degrees_mean:.1f}° ± {self.angle_degrees_std:.1f}°.\n"
            f"The paper counts 31 % of synapses as reciprocal; if 31 % of connected pairs are, "
            f"{100 * synapse_share():.0f} % of synapses have a partner, and R = {correlation(synapse_share()):.3f}, "
            f"{angle_degrees(correlation(synapse_share())):.1f}°."
        )

    def as_json(self) -> str:
        """The numbers as a JSON object."""
        return json.dumps(asdict(self), indent=2)


def correlation(share: float = RECIPROCAL_SHARE, reciprocal: float = RECIPROCAL_CORRELATION) -> float:
    """The correlation r·√p over all connected pairs.

    >>> round(correlation(), 3), round(correlation(synapse_share()), 3)
    (0.2, 0.248)
    """
    return reciprocal * math.sqrt(share)


def synapse_share(share: float = RECIPROCAL_SHARE) -> float:
    """Share of synapses that have a partner, 2p/(1+p), where a share p of connected pairs is reciprocal."""
    return 2 * share / (1 + share)


def angle_degrees(r: float) -> float:
    """The alignment angle of two zero-mean weight vectors with correlation ``r``.

    >>> round(angle_degrees(correlation()), 1)
    78.4
    """
    return math.degrees(math.acos(r))


def estimate(synapses: int = 1_000_000, seed: int = 0) -> CorticalEstimate:
    """The appendix's simulation, of ``synapses`` feedforward weights in draws of 1,000 (the last few dropped).

    The spread over draws (std, ddof = 1) says how far a sample of 1,000 pairs can be from the exact value.
    """
    pairs = min(1000, synapses // 2)
    draws = synapses // pairs
    rng = np.random.default_rng(seed)
    r = np.array([_sample(pairs, rng) for _ in range(draws)])
    angles = np.degrees(np.arccos(r))
    exact = correlation()
    return CorticalEstimate(
        exact_correlation=exact,
        exact_angle_degrees=angle_degrees(exact),
        correlation_mean=float(r.mean()),
        correlation_std=float(r.std(ddof=1)),
        angle_degrees_mean=float(angles.mean()),
        angle_degrees_std=float(angles.std(ddof=1)),
        pairs=pairs,
        draws=draws,
    )


def _sample(pairs: int, rng: np.random.Generator) -> float:
    """The correlation of one draw of feedforward weights with their feedback weights."""
    forward, noise = rng.standard_normal((2, pairs))
    correlated = RECIPROCAL_CORRELATION * forward + math.sqrt(1 - RECIPROCAL_CORRELATION**2) * noise
    backward = np.where(rng.random(pairs) < RECIPROCAL_SHARE, correlated, 0.0)
    return float(np.corrcoef(forward, backward)[0, 1])
