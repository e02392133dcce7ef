"""Simulations of Figures 3 and 6, stored in the results database: they are computed once, figures only read.

For each expansion ratio several draws of B and W; per draw the moments and the extremes of the eigenvalues of BᵀB
(kind "eigenvalues"), and the path angle and norm ratio (kind "path"). For Figure 6 the path angle while spontaneous
activity drives PFA-l's rule (kind "spontaneous").
"""

from collections.abc import Iterable, Sequence
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

    def stored(self) -> list[tuple[str, dict[str, Any]]]:
        """What is stored of it: kinds with their parameters."""
        return [(kind, self.parameters(kind)) for kind in ("eigenvalues", "path")]

    def results(self) -> Iterable[dict[str, list[float]]]:
        """Values by quantity, of each that is `stored`."""
        return simulate(self).values()


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


@dataclass(frozen=True)
class Spontaneous:
    """Figure 6a: PFA-l's B under spontaneous activity, ``units`` errors and as many error units, drawn ``draws`` times.

    The rate and the errors in a step are the defaults of PFA-l.
    """

    lateral: str
    units: int = 64
    draws: int = 5
    seed: int = 0
    steps: tuple[int, ...] = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 400)

    def parameters(self, steps: int) -> dict[str, Any]:
        """What identifies the state after so many steps in the database."""
        every = {"expansion": 1, "units": self.units, "draws": self.draws, "seed": self.seed}
        return every | {"lateral": self.lateral, "steps": steps}

    def stored(self) -> list[tuple[str, dict[str, Any]]]:
        """What is stored of it: the kind with the parameters of each number of steps."""
        return [("spontaneous", self.parameters(steps)) for steps in self.steps]

    def results(self) -> Iterable[dict[str, list[float]]]:
        """Values by quantity, of each that is `stored`."""
        return [{"path_angle_degrees": angles} for angles in learn(self).values()]


SETTINGS: tuple[Setting | Spontaneous, ...] = (
    *map(Setting, EXPANSIONS),
    Spontaneous("symmetric"),
    Spontaneous("one-way"),
)


def learn(setting: Spontaneous) -> dict[int, list[float]]:
    """Steps of spontaneous activity → angle in degrees between W and its path FᵀF·W, one per draw; W is standard normal."""
    import torch

    from pfa_cli.algorithms.pfa_l import PFAL, ErrorPopulation

    options = {name: option.default for name, option in PFAL.entry.options.items()}
    rate, samples = float(options["b_rate"]), round(float(options["b_samples"]) * setting.units)
    found: dict[int, list[float]] = {step: [] for step in setting.steps}
    for draw in range(setting.draws):
        rng = np.random.default_rng([setting.seed, draw])
        bound = (3 / setting.units) ** 0.5  # elements of variance 1/N̄, as PFA draws them
        drawn = rng.uniform(-bound, bound, size=(setting.units, setting.units))
        population = ErrorPopulation(torch.from_numpy(drawn), one_way=setting.lateral == "one-way")
        for step in range(max(setting.steps) + 1):
            if step in found:
                F = population.effective().numpy()
                found[step].append(simulate_path(F.T @ F, setting.units, rng)[0])
            errors = torch.from_numpy(rng.standard_normal((setting.units, samples)))
            population.learn(errors, population.rate_at(step, rate))
    return found


def run(store: Store, settings: Sequence[Setting | Spontaneous] = SETTINGS) -> int:
    """Simulates every setting (about three seconds) and stores it in place of what was there; how many were stored."""
    for setting in settings:
        for (kind, parameters), values in zip(setting.stored(), setting.results(), strict=True):
            record_simulation(store, kind, parameters, values)
    return len(settings)


def ensure(store: Store, settings: Sequence[Setting | Spontaneous] = SETTINGS) -> int:
    """Simulates what the database does not hold yet; how many settings that were."""
    query = select(simulations.c.kind, simulations.c.parameters_hash).distinct()
    stored = {tuple(row) for row in store.read(lambda connection: connection.execute(query).all())}
    missing = [s for s in settings if any((k, parameters_hash(p)) not in stored for k, p in s.stored())]
    return run(store, missing)
