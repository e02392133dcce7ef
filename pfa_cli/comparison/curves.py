"""Ours against the published curves, panel by panel: at the last common epoch, and over the whole curve."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.comparison.intervals import (
    ANGLE_MARGIN_DEGREES,
    CONTRADICTED,
    NOT_RUN,
    RATIO_MARGIN,
    SUPPORTED,
    UNDECIDED,
    Sample,
    around,
    difference,
    judge,
)
from pfa_cli.figures import fig2, fig4, fig5, published
from pfa_cli.figures.curves import ANGLE, RATIO
from pfa_cli.figures.evidence import Cohort, Comparison, Evidence, pool
from pfa_cli.figures.training import TrainingFigure
from pfa_cli.figures.verdicts import Interval, margin

EQUAL, DIFFERENT, NOT_COMPARED = "equal", "different", "not compared"
_WORDS = {SUPPORTED: EQUAL, CONTRADICTED: DIFFERENT, UNDECIDED: UNDECIDED}
_PUBLISHED_SEEDS = 5
_ACCURACY = {"cifar10": "validation_accuracy_percent"}  # the paper's curve is of the validation images


@dataclass(frozen=True)
class Course:
    """The deviation over all common epochs, in the unit of the quantity.

    ``spread`` and ``published_spread``: standard deviation over seeds, root mean square over the epochs (NaN: one run).
    """

    epochs: int
    mean: float
    mean_absolute: float
    max_absolute: float
    max_epoch: int
    spread: float
    published_spread: float
    equal: int
    undecided: int
    different: int


@dataclass(frozen=True)
class Deviation:
    """One curve: an accuracy (``layer`` is None), or one layer's angle or norm ratio.

    ``epoch`` is the last common epoch (of a curve that may not be compared: our last). ``difference`` is ours minus
    published; None, as ``margin`` and ``course``, where nothing is compared.
    """

    layer_index: int | None
    layer: str | None
    epoch: int
    ours: Sample
    published: Sample
    verdict: str
    margin: float | None = None
    difference: Interval | None = None
    course: Course | None = None


@dataclass(frozen=True)
class Panel:
    """One quantity of one algorithm in one panel: a deviation for the accuracy, or one per layer.

    ``reason``: why it is not compared, or what else to know.
    """

    figure: str
    panel: str
    recipe: str
    algorithm: str
    quantity: str
    verdict: str
    reason: str = ""
    config_hash: str = ""
    run_ids: tuple[int, ...] = ()
    deviations: tuple[Deviation, ...] = ()


def panels(evidence: Evidence, run: Mapping[str, Comparison]) -> list[Panel]:
    """Every panel of the three figures that the paper has a curve for, in their order; ``run``: what ran, by recipe."""
    return [
        _panel(evidence, run.get(figure.recipe), figure, letter, name, quantity)
        for figure in (fig2.FIGURE, fig4.FIGURE, fig5.FIGURE)
        for letter, name, quantity in _contents(figure)
    ]


def _contents(figure: TrainingFigure) -> Iterator[tuple[str, str, str]]:
    for name in figure.accuracy:
        yield "a", name, _ACCURACY.get(figure.recipe, "test_accuracy_percent")
    for letter, name in zip("bcdefgh", figure.aligned, strict=False):
        for quantity in (ANGLE, RATIO):
            yield letter, name, quantity


def _panel(
    evidence: Evidence,
    comparison: Comparison | None,
    figure: TrainingFigure,
    letter: str,
    algorithm: str,
    quantity: str,
) -> Panel:
    place = (figure.name, letter, figure.recipe, algorithm, quantity)
    cohort = comparison.cohorts.get(algorithm) if comparison else None
    if comparison is None or cohort is None:
        elsewhere = comparison is not None and algorithm in comparison.elsewhere
        return Panel(*place, NOT_RUN, "run with other settings only" if elsewhere else "")
    config_hash, runs = cohort.config_hash, tuple(sorted(int(run) for run in cohort.pooled["run_id"]))
    if cohort.pooled.empty:
        return Panel(*place, UNDECIDED, "all seeds diverged", config_hash, runs)
    curves = list(_curves(evidence, cohort, figure.recipe, quantity))
    if cohort.departures:
        apart = tuple(pair for curve in curves if (pair := _side_by_side(*curve)))
        return Panel(*place, NOT_COMPARED, "; ".join(cohort.departures.values()), config_hash, runs, apart)
    found = tuple(deviation for curve in curves if (deviation := _deviation(*curve, quantity)))
    return Panel(*place, _worst([one.verdict for one in found]), _remarks(cohort), config_hash, runs, found)


_Curve = tuple[int | None, str | None, pd.DataFrame, pd.DataFrame]


def _curves(evidence: Evidence, cohort: Cohort, recipe: str, quantity: str) -> Iterator[_Curve]:
    """Layer, our curve, and the published one: frames by epoch of mean, std and n."""
    if quantity not in (ANGLE, RATIO):
        epochs = evidence.epochs(recipe)
        theirs = _of(published.accuracy(), recipe, cohort.algorithm)
        theirs = theirs.rename(columns={"accuracy_mean_percent": "mean", "accuracy_std_percent": "std"})
        theirs = theirs.assign(n=theirs["std"].notna().map({True: _PUBLISHED_SEEDS, False: 1}))
        yield None, None, _ours(epochs[epochs["epoch"] > 0], cohort, quantity), theirs
        return
    theirs = _of(published.alignment(), recipe, cohort.algorithm)
    theirs = theirs.rename(columns={quantity: "mean"}).assign(std=math.nan, n=1)
    theirs = theirs[theirs["mean"].notna()]
    names = theirs.groupby("layer_index")["layer"].first()
    layers = evidence.layers(recipe)
    measured = f"{ALGORITHMS[cohort.algorithm].measure}_{quantity}"
    for index, layer in zip(our_order(names.tolist()), names.index, strict=True):
        own = layers[layers["layer_index"] == index]
        if own["run_id"].isin(cohort.pooled["run_id"]).any():
            name = str(own.loc[own["run_id"].isin(cohort.pooled["run_id"]), "layer"].iloc[0])
            yield index, name, _ours(own, cohort, measured), theirs[theirs["layer_index"] == layer]


def our_order(published_layers: Sequence[str]) -> list[int]:
    """Our index of each published layer: there, a block's shortcut (``0_0``) precedes its two convolutions.

    >>> our_order(["conv1_0", "0_0", "conv1_1", "conv2_0", "fc_0"])
    [0, 3, 1, 2, 4]
    """
    order = list(range(len(published_layers)))
    for i, name in enumerate(published_layers):
        if name.startswith("0_"):
            order[i], order[i + 1], order[i + 2] = i + 2, i, i + 1
    return order


def _of(frame: pd.DataFrame, recipe: str, algorithm: str) -> pd.DataFrame:
    rows = frame[(frame["recipe"] == recipe) & (frame["algorithm"] == algorithm)]
    rows = rows[rows["epochs_trained"] <= published.EPOCHS[recipe]]
    return rows.rename(columns={"epochs_trained": "epoch"})


def _ours(frame: pd.DataFrame, cohort: Cohort, value: str) -> pd.DataFrame:
    """The pooled curve, as far as all runs have come."""
    curve = pool(frame, cohort, value)
    return curve[curve["n"] == len(cohort.pooled)]


def _deviation(
    index: int | None, layer: str | None, ours: pd.DataFrame, theirs: pd.DataFrame, quantity: str
) -> Deviation | None:
    common = ours.merge(theirs, on="epoch", suffixes=("", "_published")).sort_values("epoch")
    if common.empty:
        return None
    points = []
    for row in common.to_dict("records"):
        own, other = (_sample(row, ending) for ending in ("", "_published"))
        allowed = {ANGLE: ANGLE_MARGIN_DEGREES, RATIO: RATIO_MARGIN}.get(quantity) or margin(other.mean)
        found = difference(own, other)
        points.append(Deviation(
            index, layer, int(row["epoch"]), own, other, _WORDS[judge([found], around(0, allowed))], allowed, found,
        ))  # fmt: skip
    last = points[-1]
    return Deviation(
        index,
        layer,
        last.epoch,
        last.ours,
        last.published,
        last.verdict,
        last.margin,
        last.difference,
        _course(points),
    )


def _course(points: Sequence[Deviation]) -> Course:
    differences = [point.ours.mean - point.published.mean for point in points]
    verdicts = [point.verdict for point in points]
    largest = max(range(len(points)), key=lambda i: abs(differences[i]))
    return Course(
        epochs=len(points),
        mean=math.fsum(differences) / len(points),
        mean_absolute=math.fsum(map(abs, differences)) / len(points),
        max_absolute=abs(differences[largest]),
        max_epoch=points[largest].epoch,
        spread=_root_mean_square([point.ours.std for point in points]),
        published_spread=_root_mean_square([point.published.std for point in points]),
        equal=verdicts.count(EQUAL),
        undecided=verdicts.count(UNDECIDED),
        different=verdicts.count(DIFFERENT),
    )


def _side_by_side(
    index: int | None, layer: str | None, ours: pd.DataFrame, theirs: pd.DataFrame
) -> Deviation | None:
    """Where both end; no difference is taken, because the epochs mean different things."""
    if ours.empty or theirs.empty:
        return None
    own, other = (curve.sort_values("epoch").to_dict("records")[-1] for curve in (ours, theirs))
    return Deviation(index, layer, int(own["epoch"]), _sample(own), _sample(other), NOT_COMPARED)


def _sample(row: dict[Hashable, Any], ending: str = "") -> Sample:
    return Sample(float(row[f"mean{ending}"]), float(row[f"std{ending}"]), int(row[f"n{ending}"]))


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(math.fsum(value**2 for value in values) / len(values))


def _worst(verdicts: Sequence[str]) -> str:
    order = (DIFFERENT, UNDECIDED, EQUAL)
    return min(verdicts, key=order.index) if verdicts else UNDECIDED


def _remarks(cohort: Cohort) -> str:
    remarks = [] if cohort.finished else ["unfinished"]
    if len(cohort.diverged):
        remarks.append(f"{len(cohort.diverged)} diverged, left out")
    if cohort.configuration.get("precision", "fp32") != "fp32":
        remarks.append(f"precision {cohort.configuration['precision']}")
    return "; ".join(remarks)
