"""Figure 3's simulations, stored in the results database: they are computed once, figures only read.

For each expansion ratio several draws of B and W; per draw the moments and the extremes of the eigenvalues of BᵀB
(kind "eigenvalues"), and the path angle and norm ratio (kind "path").
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import select

from pfa_cli.store.engine import Store
from pfa_cli.store.schema import simulations
from pfa_cli.store.writer import parameters_hash, record_simulation
from pfa_cli.theory.marchenko_pastur import sample_gram
from pfa_cli.theory.propositions import simulate_path

EXPANSIONS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100)


@dataclass(frozen=True)
class Setting:
    """One simulation: N_{l+1} ``units``, N_l ``inputs``, N̄_l = ``expansion`` · ``units``, drawn ``draws`` times."""

    expansion: int
    units: int = 256
    inputs: int = 256
    draws: int = 5
    seed: int = 0

    def parameters(self, kind: str) -> dict[str, Any]:
        """What identifies this setting in the database; the eigenvalues know of no inputs."""
        every = {"expansion": self.expansion, "units": self.units, "draws": self.draws, "seed": self.seed}
        return every | ({"inputs": self.inputs} if kind == "path" else {})


SETTINGS = tuple(Setting(expansion) for expansion in EXPANSIONS)


def simulate(setting: Setting) -> dict[str, dict[str, list[float]]]:
    """kind → quantity → one value per draw. The same setting gives the same numbers."""
    found: dict[str, dict[str, list[float]]] = {
        "eigenvalues": {f"eigenvalue_{name}": [] for name in ("mean", "std", "min", "max")},
        "path": {"path_angle_degrees": [], "path_norm_ratio": []},
    }
    for draw in range(setting.draws):
        rng = np.random.default_rng([setting.seed, setting.expansion, draw])
        gram = sample_gram(setting.units, setting.expansion, rng)
        eigenvalues = np.linalg.eigvalsh(gram)
        for name, values in found["eigenvalues"].items():
            values.append(float(getattr(eigenvalues, name.removeprefix("eigenvalue_"))()))
        angle, ratio = simulate_path(gram, setting.inputs, rng)
        found["path"]["path_angle_degrees"].append(angle)
        found["path"]["path_norm_ratio"].append(ratio)
    return found


def run(store: Store, settings: tuple[Setting, ...] = SETTINGS) -> int:
    """Simulates every setting (about two seconds) and stores it in place of what was there; how many were stored."""
    for setting in settings:
        for kind, values in simulate(setting).items():
            record_simulation(store, kind, setting.parameters(kind), values)
    return len(settings)


def ensure(store: Store, settings: tuple[Setting, ...] = SETTINGS) -> int:
    """Simulates what the database does not hold yet; how many settings that were."""
    query = select(simulations.c.kind, simulations.c.parameters_hash).distinct()
    stored = {tuple(row) for row in store.read(lambda connection: connection.execute(query).all())}
    missing = tuple(
        s
        for s in settings
        if any((k, parameters_hash(s.parameters(k))) not in stored for k in ("eigenvalues", "path"))
    )
    return run(store, missing)
