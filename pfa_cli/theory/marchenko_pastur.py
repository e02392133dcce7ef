"""The eigenvalues of BᵀB: the Marchenko-Pastur law (the paper's eq. 8) and samples of the matrix itself.

``lam`` is the paper's λ = N_{l+1}/N̄_l, the inverse of the expansion ratio.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def edges(lam: float) -> tuple[float, float]:
    """The smallest and the largest eigenvalue in the limit of many units, λ± = (1 ± √λ)².

    >>> edges(0.25)
    (0.25, 2.25)
    """
    root = lam**0.5
    return (1 - root) ** 2, (1 + root) ** 2


def density(v: ArrayLike, lam: float) -> NDArray[np.float64]:
    """Eigenvalue density μ(v) of BᵀB, the paper's eq. 8; zero outside the edges.

    For λ > 1 (a population ē smaller than e) BᵀB is singular: an atom of weight 1 - 1/λ sits at 0, which the density
    leaves out, so that it integrates to 1/λ.

    >>> density([0.1, 1.0, 3.0], lam=0.25).round(4)
    array([0.    , 0.6164, 0.    ])
    """
    v = np.asarray(v, dtype=float)
    low, high = edges(lam)
    inside = (v > low) & (v < high)
    safe = np.where(inside, v, 1.0)
    root = np.sqrt(np.where(inside, (high - safe) * (safe - low), 0.0))
    return root / (2 * np.pi * lam * safe)


def eigenvalue_std(lam: float) -> float:
    """Standard deviation √λ of the eigenvalues; their mean is 1 for every λ."""
    return lam**0.5


def sample_gram(units: int, expansion: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """BᵀB [units, units] of one B [N̄, units], N̄ = expansion · units, drawn as PFA draws it.

    The elements are uniform with mean 0 and variance 1/N̄: Glorot with gain √((1+λ)/2) (appendix 1.1).
    """
    rows = max(1, round(expansion * units))
    bound = (3 / rows) ** 0.5
    b = rng.uniform(-bound, bound, size=(rows, units))
    return b.T @ b
