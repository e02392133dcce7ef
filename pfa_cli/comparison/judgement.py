"""What our runs say about the paper's claims: supported, contradicted, undecided, or not run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.comparison.claims import ERROR_ANGLE, AccuracyClaim, AnyClaim, LayerClaim, claims
from pfa_cli.comparison.intervals import (
    ANGLE_MARGIN_DEGREES,
    CONTRADICTED,
    NOT_RUN,
    RATIO_MARGIN,
    STILL_MOVING_DEGREES,
    SUPPORTED,
    UNDECIDED,
    Region,
    Sample,
    around,
    below,
    difference,
    judge,
    outside,
)
from pfa_cli.comparison.papers import final_accuracies, final_layers, last_common_epoch
from pfa_cli.comparison.words import apart, by_layer, layer_range
from pfa_cli.figures.accuracy import LAST, final_accuracy
from pfa_cli.figures.curves import ANGLE, RATIO
from pfa_cli.figures.evidence import Cohort, Comparison, Evidence
from pfa_cli.figures.notes import labels
from pfa_cli.figures.verdicts import Interval, margin, t_interval
from pfa_cli.theory.propositions import path_angle_degrees


@dataclass(frozen=True)
class Measured:
    """One measurement that a verdict rests on: of a layer, of an expansion ratio, or a difference of accuracies."""

    label: str
    interval: Interval
    region: Region


@dataclass(frozen=True)
class Judgement:
    """A claim, the verdict, and the numbers: ours, the paper's own under the same rule, and what else to know.

    ``remark`` says why runs do not count, or why a limit is not yet contradicted. ``n``: seeds.
    """

    claim: str
    source: str
    recipe: str
    verdict: str
    ours: str = ""
    published: str = ""
    remark: str = ""
    n: int = 0
    run_ids: tuple[int, ...] = ()
    measured: tuple[Measured, ...] = ()


def judge_all(evidence: Evidence, run: Mapping[str, Comparison]) -> list[Judgement]:
    """Every claim, in the paper's order; ``run``: what ran, by recipe."""
    return [_judge(evidence, run.get(claim.recipe), claim) for claim in claims()]


def _judge(evidence: Evidence, comparison: Comparison | None, claim: AnyClaim) -> Judgement:
    if isinstance(claim, AccuracyClaim):
        return _accuracy(evidence, comparison, claim)
    if isinstance(claim, LayerClaim):
        return _layers(evidence, comparison, claim)
    found = Judgement(claim.title, claim.source, claim.recipe, NOT_RUN)
    return _sweep(evidence, comparison, found) if comparison else found


def _accuracy(evidence: Evidence, comparison: Comparison | None, claim: AccuracyClaim) -> Judgement:
    found = Judgement(claim.title, claim.source, claim.recipe, NOT_RUN, published=_published_accuracy(claim))
    wanted = [claim.algorithm, claim.other]
    if comparison is None:
        return found
    if missing := [name for name in wanted if name not in comparison.cohorts]:
        return replace(found, remark=absent(comparison, missing))
    ours, other = (comparison.cohorts[name] for name in wanted)
    finals = [final_accuracy(evidence, comparison, one) for one in (ours, other)]
    pairs = finals[0].merge(finals[1], left_index=True, right_index=True, suffixes=("_ours", "_other"))
    runs = [*pairs["run_id_ours"], *pairs["run_id_other"], *ours.diverged["run_id"]]
    found = replace(found, run_ids=tuple(sorted(int(run) for run in runs)), n=len(pairs))
    pairs = pairs.rename(columns={f"{LAST}_ours": "ours", f"{LAST}_other": "other"})
    lost = claim.relation == "equal" and len(ours.diverged) > 0
    if pairs.empty:
        return _settled(found, [ours, other], CONTRADICTED if lost else UNDECIDED)
    region = _region(claim, float(pairs["other"].mean()))
    borrowed = len(pairs) == 1
    interval = _one_pair(claim, pairs) if borrowed else t_interval((pairs["ours"] - pairs["other"]).tolist())
    text = apart(pairs["ours"].mean(), pairs["other"].mean(), interval, region)
    if borrowed and math.isfinite(interval.low):
        text += ", scatter over seeds as published"
    measured = (Measured("difference of accuracies in points", interval, region),)
    found = replace(found, ours=text, measured=measured)
    verdict = CONTRADICTED if lost else judge([interval], region)
    return _settled(found, [ours, other], verdict)


def _region(claim: AccuracyClaim, level: float) -> Region:
    """Where the difference to an algorithm of accuracy ``level`` must lie."""
    if claim.relation == "far below":
        return below(-(100 - level))
    return around(0, margin(level)) if claim.relation == "equal" else below(-margin(level))


def _one_pair(claim: AccuracyClaim, pairs: pd.DataFrame) -> Interval:
    published = final_accuracies(claim.recipe, [claim.algorithm, claim.other])
    ours, other = (
        Sample(float(pairs[column].iloc[0]), math.nan, 1).scattering_as(sample)
        for column, sample in zip(("ours", "other"), published, strict=True)
    )
    return difference(ours, other)


def _published_accuracy(claim: AccuracyClaim) -> str:
    names = [claim.algorithm, claim.other]
    ours, other = final_accuracies(claim.recipe, names)
    interval, region = difference(ours, other), _region(claim, other.mean)
    verdict = (
        f": {judge([interval], region)}" if math.isfinite(interval.low) else ", one run each: no interval"
    )
    return f"epoch {last_common_epoch(claim.recipe, names)}: {apart(ours.mean, other.mean, interval, region)}{verdict}"


def _layers(
    evidence: Evidence, comparison: Comparison | None, claim: LayerClaim, ignoring: Sequence[str] = ()
) -> Judgement:
    papers = final_layers(claim.recipe, claim.algorithm, claim.quantity)
    published = f"seed 0: {layer_range(papers, claim.quantity)}" if papers else ""
    found = Judgement(claim.title, claim.source, claim.recipe, NOT_RUN, published=published)
    cohort = comparison.cohorts.get(claim.algorithm) if comparison else None
    if comparison is None or cohort is None:
        return replace(found, remark=absent(comparison, [claim.algorithm]) if comparison else "")
    margin_ = RATIO_MARGIN if claim.quantity == RATIO else ANGLE_MARGIN_DEGREES
    region = around(claim.target, margin_)
    values = _by_layer(evidence, comparison, cohort, claim.quantity)
    intervals = {layer: t_interval(rows.tolist()) for layer, rows in values.items()}
    found = replace(
        found,
        ours=by_layer(intervals, claim.quantity, region),
        n=len(cohort.pooled),
        run_ids=_ids(cohort),
        measured=tuple(Measured(layer, one, region) for layer, one in intervals.items()),
    )
    verdict = judge(intervals.values(), region)
    if verdict == CONTRADICTED and claim.limit:
        beyond = [layer for layer, one in intervals.items() if outside(one, region)]
        if _moving(evidence, comparison, cohort, claim, beyond):
            verdict = UNDECIDED
            found = replace(
                found, remark="the limit is not reached, but the layers outside still approach it"
            )
    return _settled(found, [cohort], verdict, ignoring)


def _by_layer(
    evidence: Evidence, comparison: Comparison, cohort: Cohort, quantity: str, at: float = 1.0
) -> dict[str, pd.Series]:
    """Each layer's values over the pooled runs, ``at`` this fraction of what each has trained; in layer order."""
    layers = evidence.layers(comparison.recipe)
    layers = layers[layers["run_id"].isin(cohort.pooled["run_id"])]
    if quantity == ERROR_ANGLE:  # the output layer's error is the loss's own gradient with every algorithm
        layers = layers[layers["layer_index"] < layers["layer_index"].max()]
    column = quantity if quantity == ERROR_ANGLE else f"{ALGORITHMS[cohort.algorithm].measure}_{quantity}"
    end = (layers.groupby("run_id")["epoch"].transform("max") * at).astype(int)
    rows = layers[(layers["epoch"] == end) & layers[column].notna()]
    return {str(name): own[column] for (_, name), own in rows.groupby(["layer_index", "layer"])}


def _moving(
    evidence: Evidence, comparison: Comparison, cohort: Cohort, claim: LayerClaim, names: Sequence[str]
) -> bool:
    """Whether all these layers came nearer to the target in the last quarter of training."""
    before, after = (_by_layer(evidence, comparison, cohort, claim.quantity, at) for at in (0.75, 1.0))
    nearer = [
        abs(before[name].mean() - claim.target) - abs(after[name].mean() - claim.target)
        if name in before
        else 0.0
        for name in names
    ]
    return all(gain >= STILL_MOVING_DEGREES for gain in nearer)


def _sweep(evidence: Evidence, comparison: Comparison, found: Judgement) -> Judgement:
    """Proposition 3 at each expansion ratio, every one judged as the claim for λ = 0.1 is."""
    ratios = comparison.by_expansion
    if len(ratios) < 2:
        return found
    parts: dict[float, Judgement] = {}
    for ratio, cohort in ratios.items():
        angle = path_angle_degrees(1 / ratio)
        one = replace(comparison, cohorts={**comparison.cohorts, "pfa": cohort})
        claim = LayerClaim(comparison.recipe, "pfa", ANGLE, angle, True, "", "")
        parts[ratio] = _layers(evidence, one, claim, ignoring=("expansion",))
    return _together(found, parts)


def _together(found: Judgement, parts: Mapping[float, Judgement]) -> Judgement:
    counted = [one for one in parts.values() if one.verdict != NOT_RUN]
    order = (CONTRADICTED, UNDECIDED, SUPPORTED)
    verdict = min((one.verdict for one in counted), key=order.index) if counted else NOT_RUN
    texts, measured = [], []
    for ratio, one in parts.items():
        angles = [layer.interval.mean for layer in one.measured]
        mean = f"{math.fsum(angles) / len(angles):.1f}°" if angles else "–"
        texts.append(
            f"1/λ = {ratio:g}: {mean} ({path_angle_degrees(1 / ratio):.1f}° predicted, {one.verdict})"
        )
        measured += [replace(layer, label=f"1/λ = {ratio:g}, {layer.label}") for layer in one.measured]
    remarks = sorted({one.remark for one in parts.values() if one.remark})
    return replace(
        found,
        verdict=verdict,
        ours="mean over layers: " + "; ".join(texts),
        remark="; ".join(remarks),
        n=min(one.n for one in parts.values()),
        run_ids=tuple(sorted({run for one in parts.values() for run in one.run_ids})),
        measured=tuple(measured),
    )


def _settled(
    found: Judgement,
    cohorts: Sequence[Cohort],
    verdict: str,
    ignoring: Sequence[str] = (),
) -> Judgement:
    """The verdict, unless the runs are unfinished or not the paper's experiment."""
    notes = [found.remark] if found.remark else []
    reasons = dict.fromkeys(
        said for cohort in cohorts for key, said in cohort.departures.items() if key not in ignoring
    )
    if reasons:
        verdict, notes = NOT_RUN, [f"not at the paper's scale, hence not counted: {'; '.join(reasons)}"]
    elif not all(cohort.finished for cohort in cohorts):
        verdict, notes = UNDECIDED, ["unfinished"]
    for cohort in cohorts:
        if len(cohort.diverged):
            total = len(cohort.diverged) + len(cohort.pooled) + len(cohort.waiting)
            notes.append(
                f"{ALGORITHMS[cohort.algorithm].label}: {len(cohort.diverged)} of {total} seeds diverged"
            )
    if (
        verdict == UNDECIDED
        and found.n == 1
        and not any(math.isfinite(m.interval.low) for m in found.measured)
    ):
        notes.append("one seed: no interval")
    return replace(found, verdict=verdict, remark="; ".join(notes))


def absent(comparison: Comparison, missing: Sequence[str]) -> str:
    """Which of these algorithms have no run, or none in the setting that is compared."""
    never = [name for name in missing if name not in comparison.elsewhere]
    elsewhere = [name for name in missing if name in comparison.elsewhere]
    said = [f"{labels(never)} not run"] if never else []
    return "; ".join(said + ([f"{labels(elsewhere)} run with other settings only"] if elsewhere else []))


def _ids(cohort: Cohort) -> tuple[int, ...]:
    return tuple(sorted(int(run) for run in cohort.pooled["run_id"]))
