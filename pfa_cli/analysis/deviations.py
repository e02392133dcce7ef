"""Ours against the published curves, panel by panel: at the last common epoch, and over the whole curve."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import pandas as pd

from pfa_cli.analysis import published
from pfa_cli.analysis.curves import panel_letter
from pfa_cli.analysis.evidence import Cohort, Comparison, Evidence
from pfa_cli.analysis.paper import Figure, departures, paper
from pfa_cli.analysis.published import ANGLE, RATIO, our_order
from pfa_cli.analysis.statistics import (
    ANGLE_MARGIN_DEGREES,
    CONTRADICTED,
    DIFFERENT,
    EQUAL,
    NOT_COMPARED,
    NOT_RUN,
    RATIO_MARGIN,
    SUPPORTED,
    UNDECIDED,
    Interval,
    Sample,
    around,
    difference,
    judge,
    margin,
    worst,
)
from pfa_cli.registry import described

TOGETHER_DEGREES = (
    0.05  # a run repeated draw for draw has parted from the published one where an angle differs by more
)
_WORDS = {SUPPORTED: EQUAL, CONTRADICTED: DIFFERENT, UNDECIDED: UNDECIDED}


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

    ``reason``: why it is not compared, or what else to know. ``note``: what to know about the published curve.
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
    note: str = ""


@dataclass(frozen=True)
class Replay:
    """A published run repeated draw for draw (``draws = "published"``): its angles against those of the published run.

    ``largest``: by layer, the largest difference over the ``epochs`` that both have, in degrees, and its epoch.
    ``together``: the last epoch up to which no layer differs by more than `TOGETHER_DEGREES`; None: they differ at the start.
    ``settings``: what else is not as in our recipe, in words.
    """

    recipe: str
    algorithm: str
    run_id: int
    epochs: int
    start: float
    largest: Mapping[str, tuple[float, int]]
    together: int | None
    settings: str


def replays(evidence: Evidence) -> list[Replay]:
    """Every replayed run of seed 0 whose angles were published."""
    found = []
    runs = evidence.replays[evidence.replays["seed"] == 0].sort_values(["recipe", "run_id"])
    for run in runs.to_dict("records"):
        recipe, algorithm = str(run["recipe"]), str(run["algorithm"])
        theirs = published.alignment_curves(recipe, algorithm, ANGLE)
        ours = evidence.layers(recipe).rename(columns={f"{described(algorithm).measure}_{ANGLE}": "ours"})
        ours = ours.loc[ours["run_id"] == run["run_id"], ["epoch", "layer_index", "layer", "ours"]]
        both = ours.merge(theirs[["epoch", "layer_index", "mean"]], on=["epoch", "layer_index"])
        both = both.assign(apart=(both["ours"] - both["mean"]).abs()).dropna(subset="apart")
        if both.empty:
            continue
        by_epoch = both.groupby("epoch")["apart"].max()
        parted = by_epoch[by_epoch > TOGETHER_DEGREES].index.min()
        together = by_epoch.index if pd.isna(parted) else by_epoch.index[by_epoch.index < parted]
        worst_rows = both.loc[both.groupby("layer_index")["apart"].idxmax()]
        departed = departures(run["configuration"], run["dataset"])
        found.append(
            Replay(
                recipe=recipe,
                algorithm=algorithm,
                run_id=int(run["run_id"]),
                epochs=int(by_epoch.index.max()),
                start=float(by_epoch.iloc[0]),
                largest={
                    str(row.layer): (float(row.apart), int(row.epoch)) for row in worst_rows.itertuples()
                },
                together=int(together.max()) if len(together) else None,
                settings="; ".join(said for key, said in departed.items() if key != "draws"),
            )
        )
    return found


def panels(run: Mapping[str, Comparison]) -> list[Panel]:
    """Every panel of the paper's own figures that it has a curve for, in their order; ``run``: what ran, by recipe."""
    return [
        _panel(run.get(figure.recipe), (name, letter, figure.recipe, algorithm, quantity))
        for name, figure in paper().figures.items()
        if figure.kind == "training" and not figure.others and figure.recipe in paper().experiments
        for letter, algorithm, quantity in _contents(figure)
    ]


def _contents(figure: Figure) -> Iterator[tuple[str, str, str]]:
    for name in figure.accuracy:
        yield "a", name, paper().experiments[figure.recipe].accuracy
    for number, name in enumerate(figure.alignment, start=1):
        for quantity in (ANGLE, RATIO):
            yield panel_letter(number), name, quantity


def _panel(comparison: Comparison | None, place: tuple[str, str, str, str, str]) -> Panel:
    *_, algorithm, quantity = place
    cohort = comparison.cohorts.get(algorithm) if comparison else None
    if comparison is None or cohort is None:
        elsewhere = comparison is not None and algorithm in comparison.elsewhere
        return Panel(*place, NOT_RUN, "run with other settings only" if elsewhere else "")
    if cohort.pooled.empty:
        return Panel(*place, UNDECIDED, "all seeds diverged", cohort.config_hash)
    curves = list(_curves(comparison, cohort, quantity))
    if cohort.departures:
        verdict, reason = NOT_COMPARED, "; ".join(cohort.departures.values())
        found = [_side_by_side(*curve) for curve in curves]
    else:
        found = [_deviation(*curve, quantity) for curve in curves]
        verdict, reason = worst([one.verdict for one in found if one], UNDECIDED), _remarks(cohort)
    notes = {} if quantity in (ANGLE, RATIO) else paper().experiments[comparison.recipe].notes
    known = tuple(one for one in found if one)
    return Panel(*place, verdict, reason, cohort.config_hash, cohort.run_ids, known, notes.get(algorithm, ""))


_Samples = Mapping[int, Sample]  # a curve's values by epoch


def _curves(
    comparison: Comparison, cohort: Cohort, quantity: str
) -> Iterator[tuple[int | None, str | None, _Samples, _Samples]]:
    """Layer, our curve as far as all runs have come, and the published one."""
    recipe, name = comparison.recipe, cohort.algorithm
    if quantity not in (ANGLE, RATIO):
        ours = comparison.curve(cohort, quantity)
        ours = ours[(ours["epoch"] > 0) & (ours["n"] == len(cohort.pooled))]
        yield None, None, _samples(ours), _samples(published.accuracy_curve(recipe, name))
        return
    ours = comparison.layer_curves(cohort, f"{described(name).measure}_{quantity}")
    names = dict(zip(ours["layer_index"], ours["layer"], strict=True))
    own = {
        index: _samples(curve)
        for index, curve in ours[ours["n"] == len(cohort.pooled)].groupby("layer_index")
    }
    theirs = published.alignment_curves(recipe, name, quantity).groupby("layer_index")
    for index, (_, curve) in zip(our_order(theirs["layer"].first().tolist()), theirs, strict=True):
        if index in names:
            yield index, names[index], own.get(index, {}), _samples(curve)


def _deviation(
    index: int | None, layer: str | None, ours: _Samples, theirs: _Samples, quantity: str
) -> Deviation | None:
    """At the last common epoch, with the course over all common ones."""
    points = []
    for epoch in sorted(ours.keys() & theirs.keys()):
        own, other = ours[epoch], theirs[epoch]
        allowed = {ANGLE: ANGLE_MARGIN_DEGREES, RATIO: RATIO_MARGIN}.get(quantity) or margin(other.mean)
        found = difference(own, other)
        verdict = _WORDS[judge([found], around(0, allowed))]
        points.append(Deviation(index, layer, epoch, own, other, verdict, allowed, found))
    return replace(points[-1], course=_course(points)) if points else None


def _course(points: Sequence[Deviation]) -> Course:
    differences = [point.ours.mean - point.published.mean for point in points]
    verdicts = [point.verdict for point in points]
    largest = max(range(len(points)), key=lambda i: abs(differences[i]))
    return Course(
        epochs=len(points),
        mean=fmean(differences),
        mean_absolute=fmean(map(abs, differences)),
        max_absolute=abs(differences[largest]),
        max_epoch=points[largest].epoch,
        spread=_root_mean_square([point.ours.std for point in points]),
        published_spread=_root_mean_square([point.published.std for point in points]),
        equal=verdicts.count(EQUAL),
        undecided=verdicts.count(UNDECIDED),
        different=verdicts.count(DIFFERENT),
    )


def _side_by_side(index: int | None, layer: str | None, ours: _Samples, theirs: _Samples) -> Deviation | None:
    """Where both end; no difference is taken, because the epochs mean different things."""
    if not ours or not theirs:
        return None
    return Deviation(index, layer, max(ours), ours[max(ours)], theirs[max(theirs)], NOT_COMPARED)


def _samples(curve: pd.DataFrame) -> dict[int, Sample]:
    """A curve's values by epoch."""
    columns = (curve[name].tolist() for name in ("epoch", "mean", "std", "n"))
    return {epoch: Sample(mean, std, n) for epoch, mean, std, n in zip(*columns, strict=True)}


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(fmean(value**2 for value in values))


def _remarks(cohort: Cohort) -> str:
    remarks = [] if cohort.finished else ["unfinished"]
    if len(cohort.diverged):
        remarks.append(f"{len(cohort.diverged)} diverged, left out")
    if cohort.configuration.get("precision", "fp32") != "fp32":
        remarks.append(f"precision {cohort.configuration['precision']}")
    return "; ".join(remarks)
