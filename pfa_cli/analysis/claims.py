"""What our runs say about a claim of the paper or of our own: supported, contradicted, undecided, a trial only, or not run."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import pandas as pd

from pfa_cli.analysis.evidence import Cohort, Comparison
from pfa_cli.analysis.paper import Claim
from pfa_cli.analysis.published import ANGLE, RATIO, final_accuracies, final_layers, last_common_epoch
from pfa_cli.analysis.statistics import (
    ANGLE_MARGIN_DEGREES,
    CONTRADICTED,
    NOT_RUN,
    RATIO_MARGIN,
    STILL_MOVING_DEGREES,
    SUPPORTED,
    TRIAL,
    UNDECIDED,
    Interval,
    Region,
    Sample,
    around,
    below,
    difference,
    judge,
    margin,
    outside,
    t_interval,
    worst,
)
from pfa_cli.analysis.words import absent, apart, by_layer, layer_range, signed, with_ends
from pfa_cli.registry import described
from pfa_cli.theory.propositions import path_angle_degrees
from pfa_cli.wording import count

ERROR_ANGLE = "error_angle_degrees"


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


def judge_all(run: Mapping[str, Comparison], claims: Iterable[Claim]) -> list[Judgement]:
    """Every claim, in order; ``run``: what ran, by recipe."""
    return [_judge(run.get(claim.recipe), claim) for claim in claims]


def _judge(comparison: Comparison | None, claim: Claim) -> Judgement:
    found = Judgement(claim.title, claim.source, claim.recipe, NOT_RUN, published=_papers(claim))
    if comparison is None:
        return found
    if claim.sweep:
        return _sweep(comparison, found)
    wanted = [name for name in (claim.algorithm, claim.other) if name]
    if missing := absent(comparison, wanted):
        return replace(found, remark=missing)
    if claim.fewer:
        return _fewer(comparison, claim, found)
    ours = comparison.cohorts[claim.algorithm]
    if claim.options:
        variants = comparison.variants(claim.algorithm, *claim.options)
        if (values := tuple(claim.options.values())) not in variants:
            return replace(found, remark="run with other settings only")
        ours = variants[values]
    if claim.other:
        return _accuracy(comparison, claim, found, ours, comparison.cohorts[claim.other])
    return _layers(comparison, claim, found, ours)


def _papers(claim: Claim) -> str:
    """The paper's own numbers under the same rule."""
    if claim.sweep:
        return ""
    if not claim.other:
        layers = final_layers(claim.recipe, claim.algorithm, claim.quantity)
        return f"seed 0: {layer_range(list(layers.values()), claim.quantity)}" if layers else ""
    names = [claim.algorithm, claim.other]
    ours, other = final_accuracies(claim.recipe, names)
    if not ours.n:
        return ""
    interval, region = difference(ours, other), _region(claim, other.mean)
    known = math.isfinite(interval.low)
    verdict = f": {judge([interval], region)}" if known else ", one run each: no interval"
    return f"epoch {last_common_epoch(claim.recipe, names)}: {apart(ours.mean, other.mean, interval, region)}{verdict}"


def _accuracy(
    comparison: Comparison,
    claim: Claim,
    found: Judgement,
    ours: Cohort,
    other: Cohort,
    ignoring: Sequence[str] = (),
) -> Judgement:
    pairs = comparison.pairs(ours, other)
    runs = [*pairs["run_id_ours"], *pairs["run_id_other"], *ours.diverged["run_id"]]
    found = replace(found, run_ids=tuple(sorted(int(run) for run in runs)), n=len(pairs))
    lost = claim.relation == "equal" and len(ours.diverged) > 0
    if pairs.empty:
        return _settled(found, [ours, other], CONTRADICTED if lost else UNDECIDED, ignoring)
    region = _region(claim, float(pairs["other"].mean()))
    borrowed = len(pairs) == 1
    interval = _one_pair(claim, pairs) if borrowed else t_interval((pairs["ours"] - pairs["other"]).tolist())
    text = apart(pairs["ours"].mean(), pairs["other"].mean(), interval, region)
    if borrowed and math.isfinite(interval.low):
        text += ", scatter over seeds as published"
    measured = (Measured("difference of accuracies in points", interval, region),)
    found = replace(found, ours=text, measured=measured)
    return _settled(found, [ours, other], CONTRADICTED if lost else judge([interval], region), ignoring)


def _region(claim: Claim, level: float) -> Region:
    """Where the difference to an algorithm of accuracy ``level`` must lie."""
    if claim.relation == "far below":
        return below(-(100 - level))
    return around(0, margin(level)) if claim.relation == "equal" else below(-margin(level))


def _one_pair(claim: Claim, pairs: pd.DataFrame) -> Interval:
    published = final_accuracies(claim.recipe, [claim.algorithm, claim.other])
    ours, other = (
        Sample(float(pairs[column].iloc[0]), math.nan, 1).scattering_as(sample)
        for column, sample in zip(("ours", "other"), published, strict=True)
    )
    return difference(ours, other)


def _layers(
    comparison: Comparison, claim: Claim, found: Judgement, cohort: Cohort, ignoring: Sequence[str] = ()
) -> Judgement:
    region = around(claim.target, RATIO_MARGIN if claim.quantity == RATIO else ANGLE_MARGIN_DEGREES)
    intervals = {
        layer: t_interval(values.tolist())
        for layer, values in _by_layer(comparison, cohort, claim.quantity).items()
    }
    verdict, remark = judge(intervals.values(), region), ""
    if verdict == CONTRADICTED and claim.limit:
        beyond = [layer for layer, one in intervals.items() if outside(one, region)]
        if _moving(comparison, cohort, claim, beyond):
            verdict, remark = UNDECIDED, "the limit is not reached, but the layers outside still approach it"
    found = replace(
        found,
        ours=by_layer(intervals, claim.quantity, region),
        remark=remark,
        n=len(cohort.pooled),
        run_ids=cohort.run_ids,
        measured=tuple(Measured(layer, one, region) for layer, one in intervals.items()),
    )
    return _settled(found, [cohort], verdict, ignoring)


def _by_layer(comparison: Comparison, cohort: Cohort, quantity: str, at: float = 1.0) -> dict[str, pd.Series]:
    """Each layer's values over the pooled runs, ``at`` this fraction of what each has trained; in layer order."""
    layers, column = comparison.last_layers(cohort, at), quantity
    if quantity == ERROR_ANGLE:  # the output layer's error is the loss's own gradient with every algorithm
        layers = layers[layers["layer_index"] < layers["layer_index"].max()]
    else:
        column = f"{described(cohort.algorithm).measure}_{quantity}"
    rows = layers[layers[column].notna()]
    return {str(name): own[column] for (_, name), own in rows.groupby(["layer_index", "layer"])}


def _moving(comparison: Comparison, cohort: Cohort, claim: Claim, names: Sequence[str]) -> bool:
    """Whether all these layers came nearer to the target in the last quarter of training."""
    before, after = (_by_layer(comparison, cohort, claim.quantity, at) for at in (0.75, 1.0))
    nearer = [
        abs(before[name].mean() - claim.target) - abs(after[name].mean() - claim.target)
        if name in before
        else 0.0
        for name in names
    ]
    return all(gain >= STILL_MOVING_DEGREES for gain in nearer)


def _sweep(comparison: Comparison, found: Judgement) -> Judgement:
    """Proposition 3 at each expansion ratio, every one judged as the claim for λ = 0.1 is."""
    variants = comparison.variants("pfa", "expansion")
    if len(variants) < 2:
        return found
    parts, texts, measured = [], [], []
    for (ratio,), cohort in variants.items():
        angle = path_angle_degrees(1 / ratio)
        claim = Claim("", "", comparison.recipe, "pfa", quantity=ANGLE, target=angle, limit=True)
        one = _layers(comparison, claim, found, cohort, ignoring=("expansion",))
        angles = [layer.interval.mean for layer in one.measured]
        mean = f"{fmean(angles):.1f}°" if angles else "–"
        texts.append(f"1/λ = {ratio:g}: {mean} ({angle:.1f}° predicted, {one.verdict})")
        measured += [replace(layer, label=f"1/λ = {ratio:g}, {layer.label}") for layer in one.measured]
        parts.append(one)
    return replace(
        found,
        verdict=worst((one.verdict for one in parts if one.verdict != TRIAL), TRIAL),
        ours="mean over layers: " + "; ".join(texts),
        remark="; ".join(sorted({one.remark for one in parts if one.remark})),
        n=min(one.n for one in parts),
        run_ids=tuple(sorted({run for one in parts for run in one.run_ids})),
        measured=tuple(measured),
    )


def _fewer(comparison: Comparison, claim: Claim, found: Judgement) -> Judgement:
    """Whether some expansion ratio below 1, and every larger one that was trained, reaches the other's level."""
    variants = comparison.variants(claim.algorithm, "expansion")
    if min(variants)[0] >= 1:
        return replace(found, remark="no expansion ratio below 1 was run")
    parts, texts = {}, []
    for (ratio,), cohort in variants.items():
        other, ignoring = comparison.cohorts[claim.other], ("expansion", "least_units")
        one = _accuracy(comparison, claim, found, cohort, other, ignoring)
        parts[ratio] = one
        mean = f"{with_ends(one.measured[0].interval, number=signed)} " if one.measured else ""
        texts.append(f"1/λ = {ratio:g}: {mean}({one.verdict})")
    reached = [
        ratio for ratio in parts if all(one.verdict == SUPPORTED for r, one in parts.items() if r >= ratio)
    ]
    below = {one.verdict for ratio, one in parts.items() if ratio < 1}
    verdict = below.pop() if below in ({CONTRADICTED}, {TRIAL}) else UNDECIDED
    least = (
        f"at its level from 1/λ = {min(reached):g} on"
        if reached
        else "at its level at no ratio up to the largest"
    )
    return replace(
        found,
        verdict=SUPPORTED if reached and min(reached) < 1 else verdict,
        ours=f"{least}; difference to {described(claim.other).label} in points: {'; '.join(texts)}",
        remark="; ".join(sorted({one.remark for one in parts.values() if one.remark})),
        n=min(one.n for one in parts.values()),
        run_ids=tuple(sorted({run for one in parts.values() for run in one.run_ids})),
        measured=tuple(
            replace(value, label=f"1/λ = {ratio:g}") for ratio, one in parts.items() for value in one.measured
        ),
    )


def _settled(
    found: Judgement, cohorts: Sequence[Cohort], verdict: str, ignoring: Sequence[str] = ()
) -> Judgement:
    """The verdict, unless the runs are unfinished or not the paper's experiment."""
    notes = [found.remark] if found.remark else []
    reasons = dict.fromkeys(
        said for cohort in cohorts for key, said in cohort.departures.items() if key not in ignoring
    )
    if reasons:
        verdict, notes = TRIAL, [f"not at the paper's scale, hence not counted: {'; '.join(reasons)}"]
    elif not all(cohort.finished for cohort in cohorts):
        verdict, notes = UNDECIDED, ["unfinished"]
    for cohort in cohorts:
        if lost := len(cohort.diverged):
            total = lost + len(cohort.pooled) + len(cohort.waiting)
            notes.append(f"{described(cohort.algorithm).label}: {lost} of {count(total, 'seed')} diverged")
    known = any(math.isfinite(one.interval.low) for one in found.measured)
    if verdict == UNDECIDED and found.n == 1 and not known:
        notes.append("one seed: no interval")
    return replace(found, verdict=verdict, remark="; ".join(notes))
