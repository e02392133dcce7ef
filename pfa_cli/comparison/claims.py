"""The paper's claims, in a form that runs can be held against (``judgement.py``)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.figures.curves import ANGLE, RATIO
from pfa_cli.figures.published import EPOCHS
from pfa_cli.theory.propositions import path_angle_degrees

Relation = Literal["equal", "below", "far below"]
ERROR_ANGLE = "error_angle_degrees"
TASKS = {"mnist": "MNIST", "cifar10": "CIFAR-10", "imagenet": "ImageNet"}
SWEEP_RECIPE = "mnist"


@dataclass(frozen=True)
class AccuracyClaim:
    """``algorithm`` and ``other`` reach the same accuracy, or the first stays (far) below the second.

    Below: by more than the margin of equality. Far below: at least twice the errors of ``other``.
    """

    recipe: str
    algorithm: str
    other: str
    relation: Relation
    source: str

    @property
    def title(self) -> str:
        """The claim in symbols."""
        sign = {"equal": "=", "below": "<", "far below": "≪"}[self.relation]
        return f"{_label(self.algorithm)} {sign} {_label(self.other)} on {TASKS[self.recipe]}"


@dataclass(frozen=True)
class LayerClaim:
    """In every layer, what is measured reaches ``target`` after learning.

    ``limit``: the proposition speaks of the limit in which the initial weights have decayed.
    """

    recipe: str
    algorithm: str
    quantity: str
    target: float
    limit: bool
    said: str
    source: str

    @property
    def title(self) -> str:
        """The claim in words."""
        return f"{_label(self.algorithm)}: {self.said}, {TASKS[self.recipe]}"


@dataclass(frozen=True)
class SweepClaim:
    """PFA's path angle follows Proposition 3 at every expansion ratio that was trained."""

    recipe: str
    source: str

    @property
    def title(self) -> str:
        """The claim in words."""
        return f"PFA: path angle follows arccos(1/√(1+λ)) at every expansion ratio, {TASKS[self.recipe]}"


AnyClaim = AccuracyClaim | LayerClaim | SweepClaim


def claims() -> list[AnyClaim]:
    """The paper's claims in its own order: performance, then alignment."""
    return [*_performance(), *_alignment(), SweepClaim(SWEEP_RECIPE, "Fig. 3b, Prop. 3")]


def _performance() -> Iterator[AnyClaim]:
    figure = {"mnist": "Fig. 2a", "cifar10": "Fig. 4a", "imagenet": "Fig. 5a"}
    for recipe in EPOCHS:
        for name in ("pfa", "pfa-o"):
            yield AccuracyClaim(recipe, name, "bp", "equal", figure[recipe])
    yield AccuracyClaim("mnist", "sf", "bp", "equal", figure["mnist"])
    for name in ("fa", "dfa"):
        yield AccuracyClaim("cifar10", name, "bp", "far below", figure["cifar10"])
    yield AccuracyClaim("imagenet", "sf", "bp", "below", figure["imagenet"])


def _alignment() -> Iterator[AnyClaim]:
    figure = {"mnist": "Fig. 2", "cifar10": "Fig. 4", "imagenet": "Fig. 5"}
    angle = path_angle_degrees(0.1)
    for recipe in EPOCHS:
        source = f"{figure[recipe]}, Prop. 3"
        said = f"path angle {angle:.2f}° at λ = 0.1"
        yield LayerClaim(recipe, "pfa", ANGLE, angle, True, said, source)
    for recipe in EPOCHS:
        yield LayerClaim(recipe, "pfa-o", ANGLE, 0.0, True, "path angle → 0°", f"{figure[recipe]}, Prop. 1")
    for recipe in EPOCHS:
        for name in ("pfa", "pfa-o"):
            yield LayerClaim(recipe, name, RATIO, 1.0, False, "path norm ratio ≈ 1", figure[recipe])
    for recipe in EPOCHS:
        yield LayerClaim(recipe, "pfa-o", ERROR_ANGLE, 0.0, True, "error angle to BP → 0°", "Prop. 2")


def _label(algorithm: str) -> str:
    return ALGORITHMS[algorithm].label
