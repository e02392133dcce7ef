"""Table 1: six properties of each algorithm; the first three are declared, the last three judged from the database."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import pandas as pd

from pfa_cli.analysis.evidence import LAST, Cohort, Comparison, Evidence, final_accuracies
from pfa_cli.analysis.paper import paper
from pfa_cli.analysis.statistics import (
    BETTER,
    CONFIDENCE,
    CONTRADICTED,
    MARGIN,
    NO,
    NO_INTERVAL,
    OPEN,
    PARTLY,
    SUPPORTED,
    YES,
    Interval,
    above,
    judge,
    margin,
    t_interval,
    worst,
)
from pfa_cli.analysis.words import data_note, mean_std, others_note, settings_note, signed, with_ends
from pfa_cli.registry import described, in_order
from pfa_cli.wording import count

SYMMETRIC_DEGREES = 20.0
FREE_DEGREES = 85.0
ALIGNED_DEGREES = 25.0
FIXED_FEEDBACK = ("fa", "dfa")
CONTROL = "readout"
UNKNOWN = "–"
_SIGNS = {True: YES, False: NO, None: UNKNOWN}

RULES = (
    f"No explicit weight symmetry: the angle between each W and its direct feedback weights after training. ✓ if it is at "
    f"least {FREE_DEGREES:g}° in every layer, ✗ if its mean over layers is below {SYMMETRIC_DEGREES:g}°, * in between. DFA: "
    "the output layer, where alone the shapes agree.",
    f"Accurate approximation to BP: the angle between each W and its feedback path (PFA: (RB)ᵀ; the others: their weights) "
    f"after training. ✓ if its mean over layers is at most {ALIGNED_DEGREES:g}°. DFA has no such path: judged by the "
    "error angle, between its errors and BP's on one fixed batch, mean over the hidden layers; for the others the error "
    "angle is shown only.",
    f"BP-level task performance: final test accuracy minus BP's, paired by seed, with a {CONFIDENCE:.0%} t interval. The "
    f"margin is {MARGIN:.0%} of BP's error rate. ✓ if the whole interval lies above minus the margin, ✗ if it lies below, "
    "? if neither (or with fewer than two pairs). ◆ in place of ✗: with confidence better than FA and DFA; ? while that is "
    "not known. A diverged seed rules out BP's level: ✗, whatever the others reached.",
)


@dataclass(frozen=True)
class Finding:
    """What the runs of one recipe say about one cell. ``decides``: it enters the cell's verdict."""

    recipe: str
    verdict: str
    text: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    run_ids: tuple[int, ...] = ()
    decides: bool = True


@dataclass(frozen=True)
class Cell:
    """A verdict, the paper's ("" if it has none), and the evidence by recipe (none for a declared property)."""

    verdict: str
    papers: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Row:
    """One property, with a cell per algorithm."""

    title: str
    unit: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Table1:
    """The whole table. ``accuracy`` is the table of final accuracies that belongs to it."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    accuracy: pd.DataFrame

    @property
    def columns(self) -> tuple[str, ...]:
        """The algorithms: the paper's, then others that were run."""
        return tuple(self.rows[0].cells)

    def frame(self) -> pd.DataFrame:
        """One row per property, algorithm and recipe that says something about them."""
        rows = []
        for number, row in enumerate(self.rows, start=1):
            for name, cell in row.cells.items():
                common = {
                    "row": number, "property": row.title, "algorithm": name, "verdict": cell.verdict,
                    "paper_verdict": cell.papers,
                }  # fmt: skip
                rows += [
                    common
                    | {
                        "recipe": f.recipe, "recipe_verdict": f.verdict, "decides": f.decides, "evidence": f.text,
                        "unit": row.unit, "value": f.value, "low": f.low, "high": f.high, "n": f.n,
                        "run_ids": " ".join(map(str, f.run_ids)),
                    }
                    for f in cell.findings
                ] or [common]  # fmt: skip
        return pd.DataFrame(rows)


def judge_table(evidence: Evidence) -> Table1:
    """The table from all that the database holds; "not run" where it holds nothing.

    It speaks of the paper's recipes, and shows some others beside them. Algorithms that the paper has not, but these recipes
    were run with, have a column without a verdict of the paper.
    """
    recipes = (*paper().experiments, *paper().beside_table1)
    comparisons = [c for recipe in recipes if (c := evidence.comparison(recipe)) is not None]
    run = in_order(name for comparison in comparisons for name in comparison.cohorts)
    known = [name for name in paper().algorithms if described(name).variant_of is None]
    columns = [*known, *(name for name in run if name not in paper().algorithms and name != CONTROL)]
    rows = [
        _declared("No need to transport weight sign", "no_sign_transport", columns),
        _declared("No need to transport weight magnitude", "no_magnitude_transport", columns),
        _declared("No separate feedback weight learning phase", "no_separate_phase", columns),
        _judged("No explicit weight symmetry after training", "degrees", "symmetry", _symmetry, columns, comparisons),
        _judged(
            "Accurate approximation to BP (path alignment)", "degrees", "approximation", _approximation, columns,
            comparisons,
        ),
        _judged(
            "BP-level task performance", "points of accuracy", "performance", _performance, columns, comparisons
        ),
    ]  # fmt: skip
    return Table1(tuple(rows), tuple(_notes(comparisons)), final_accuracies(comparisons))


def symmetry(angles: Sequence[float]) -> str:
    """Row 4, from the weight angle of every layer that has one, in degrees.

    >>> symmetry([90, 90, 90]), symmetry([89.9, 84.8, 61.2]), symmetry([6, 5, 2])
    ('✓', '*', '✗')
    """
    if min(angles) >= FREE_DEGREES:
        return YES
    return NO if fmean(angles) < SYMMETRIC_DEGREES else PARTLY


def approximation(angles: Sequence[float]) -> str:
    """Row 5, from the angle of every layer, in degrees.

    >>> approximation([18.98, 19.50, 23.27]), approximation([31.56, 30.81, 28.09])
    ('✓', '✗')
    """
    return YES if fmean(angles) <= ALIGNED_DEGREES else NO


def performance(to_bp: Interval, within: float, to_fixed: Sequence[Interval] = ()) -> str:
    """Row 6, from the differences to BP and to the fixed-feedback algorithms (FA, DFA) in accuracy points.

    ``to_fixed``: both of them, ``NO_INTERVAL`` where it is not known; none for the fixed-feedback algorithms themselves.

    >>> performance(Interval(-0.02, -0.05, 0.01, 5), within=0.16)
    '✓'
    >>> performance(Interval(-5.1, -5.4, -4.8, 5), within=3.0, to_fixed=[Interval(20, 19, 21, 5)])
    '◆'
    """
    verdict = judge([to_bp], above(-within))
    if verdict != CONTRADICTED:
        return YES if verdict == SUPPORTED else OPEN
    if not to_fixed or any(other.low <= 0 for other in to_fixed):
        return NO
    return BETTER if judge(to_fixed, above(0)) == SUPPORTED else OPEN


def _declared(title: str, name: str, columns: Sequence[str]) -> Row:
    """A property of the algorithms, which they declare; the paper's verdict is the same."""
    cells = {}
    for column in columns:
        value = getattr(described(column), name)
        sign = _SIGNS.get(value, str(value))
        cells[column] = Cell(sign, sign if column in paper().algorithms else "")
    return Row(title, "", cells)


_Judge = Callable[[Comparison, Cohort], Finding]


def _judged(
    title: str, unit: str, claim: str, judge_cohort: _Judge, columns: Sequence[str], comparisons: Sequence[Comparison]
) -> Row:  # fmt: skip
    """A row whose verdicts the runs decide."""
    cells = {}
    for name in columns:
        run_on = [c for c in comparisons if name in c.cohorts]
        papers = [c for c in run_on if c.recipe in paper().experiments]
        deciding = [c for c in papers if not c.cohorts[name].departures] or papers
        findings = tuple(
            replace(judge_cohort(comparison, comparison.cohorts[name]), decides=comparison in deciding)
            for comparison in run_on
        )
        verdict = worst(finding.verdict for finding in findings if finding.decides)
        cells[name] = Cell(verdict, paper().verdicts[claim].get(name, ""), findings)
    return Row(title, unit, cells)


def _symmetry(comparison: Comparison, cohort: Cohort) -> Finding:
    angles = _last_angles(comparison, cohort)["weight_angle_degrees"].dropna().tolist()
    return _from_angles(comparison, cohort, angles, symmetry)


def _approximation(comparison: Comparison, cohort: Cohort) -> Finding:
    layers = _last_angles(comparison, cohort)
    # The output layer's error is the loss's own gradient with every algorithm: 0°, which would flatter the mean.
    errors = layers["error_angle_degrees"].iloc[:-1].dropna().tolist()
    if cohort.algorithm == "dfa":
        return _from_angles(comparison, cohort, errors, approximation, prefix="error ")
    error = f"; error {fmean(errors):.1f}°" if errors else ""
    angles = layers[f"{described(cohort.algorithm).measure}_angle_degrees"].dropna().tolist()
    return _from_angles(comparison, cohort, angles, approximation, error)


def _performance(comparison: Comparison, cohort: Cohort) -> Finding:
    ours = comparison.final_accuracy(cohort)[LAST]
    level, interval = f"{ours.mean():.2f} %", NO_INTERVAL
    if ours.empty or not cohort.finished:
        verdict, text = OPEN, "" if ours.empty else "unfinished"
    elif cohort.algorithm == "bp":
        verdict, text = YES, f"{level}, the reference (n = {len(ours)})"
    else:
        interval, bp = _difference(comparison, cohort, "bp")
        others = () if cohort.algorithm in FIXED_FEEDBACK else FIXED_FEEDBACK
        fixed = [_difference(comparison, cohort, name)[0] for name in others]
        verdict, text = OPEN, f"{level}; no finished BP run of the same seeds and scale"
        if interval.n:
            verdict = performance(interval, margin(bp), fixed)
            text = f"{level}, {with_ends(interval, number=signed)} to BP, margin {margin(bp):.2f} (n = {interval.n})"
    if lost := len(cohort.diverged):
        said = f"{lost} of {count(lost + len(ours), 'seed')} diverged"
        verdict, text = NO, f"{text}; {said}" if text else said
    runs = tuple(sorted(int(run) for run in (*cohort.pooled["run_id"], *cohort.diverged["run_id"])))
    return Finding(
        comparison.recipe, verdict, text, interval.mean, interval.low, interval.high, interval.n, runs
    )  # fmt: skip


def _difference(comparison: Comparison, ours: Cohort, other: str) -> tuple[Interval, float]:
    """Our final accuracy minus the other algorithm's, over the seeds that both finished; and the other's level.

    NO_INTERVAL without such seeds, and for runs at the paper's scale against a trial.
    """
    theirs = comparison.cohorts.get(other)
    if theirs is None or not theirs.finished or (theirs.departures and not ours.departures):
        return NO_INTERVAL, math.nan
    pairs = comparison.pairs(ours, theirs)
    if pairs.empty:
        return NO_INTERVAL, math.nan
    return t_interval((pairs["ours"] - pairs["other"]).tolist()), float(pairs["other"].mean())


def _last_angles(comparison: Comparison, cohort: Cohort) -> pd.DataFrame:
    """The layers after the last epoch, in order: every angle's mean over the pooled seeds."""
    last = comparison.last_layers(cohort)
    return last.groupby("layer_index")[[name for name in last if str(name).endswith("_angle_degrees")]].mean()


def _from_angles(
    comparison: Comparison, cohort: Cohort, angles: list[float], rule: Callable[[Sequence[float]], str], more: str = "",
    prefix: str = "",
) -> Finding:  # fmt: skip
    n, runs = len(cohort.pooled), cohort.run_ids
    if not angles:
        why = "all seeds diverged" if n == 0 else "no angle is defined"
        return Finding(comparison.recipe, OPEN, why, n=n, run_ids=runs)
    low, mean, high = min(angles), fmean(angles), max(angles)
    spread = f" ({low:.1f}–{high:.1f})" if high - low >= 0.05 else ""
    text = f"{prefix}{mean:.1f}°{spread}{more}, n = {n}" + ("" if cohort.finished else ", unfinished")
    return Finding(
        comparison.recipe, rule(angles) if cohort.finished else OPEN, text, mean, low, high, n, runs
    )  # fmt: skip


def _notes(comparisons: Sequence[Comparison]) -> Iterator[str]:
    yield (
        "†: it is unclear how these feedback weights could be learned in a biologically plausible way. *: reduces, but "
        "does not fully eliminate, explicit weight symmetry. ◆: significantly better than FA and DFA, but worse than BP. "
        "?: our data decide neither way."
    )
    yield (
        "Rows 1 to 3 are properties of the algorithms. Rows 4 to 6 are judged from the database and stand beside the "
        "paper's verdict, which rests on MNIST, CIFAR-10 and ImageNet together (◆: CIFAR-10 for PAL, ImageNet for SF). A "
        "verdict speaks of the recipes named in its cell, and must hold on each; recipes trained at the paper's scale "
        "overrule trials (in parentheses), and recipes that are not the paper's (in parentheses too) decide nothing."
    )
    yield from RULES
    for comparison in comparisons:
        cohorts = comparison.cohorts.values()
        said = filter(None, (data_note(comparison), settings_note(cohorts), others_note(comparison, cohorts)))
        yield f"{comparison.recipe}: {' '.join(said)}"
        control = comparison.cohorts.get(CONTROL)
        if control and len(last := comparison.final_accuracy(control)[LAST].dropna()):
            early = "" if control.finished else ", unfinished"
            yield (
                f"{comparison.recipe}, control: with the hidden layers as they were drawn and only the output layer learning, "
                f"test accuracy is {mean_std(last.mean(), last.std())} % (n = {len(last)}{early})."
            )
