"""Table 1: six properties of eight algorithms, the last three judged from the database (rules: ``verdicts.py``)."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.figures import verdicts
from pfa_cli.figures.accuracy import LAST, final_accuracy, summary
from pfa_cli.figures.evidence import Cohort, Comparison, Evidence
from pfa_cli.figures.notes import data_note
from pfa_cli.figures.published import EPOCHS, VERDICTS

COLUMNS = tuple(name for name, entry in ALGORITHMS.items() if entry.variant_of is None)


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
    run_ids: str = ""
    decides: bool = True


@dataclass(frozen=True)
class Cell:
    """A verdict, the paper's, and the evidence by recipe (none for a property of the algorithm)."""

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


def judge(evidence: Evidence) -> Table1:
    """The table from all that the database holds; "not run" where it holds nothing."""
    comparisons = [c for recipe in EPOCHS if (c := evidence.comparison(recipe)) is not None]
    rows = (
        *_declared(),
        Row(
            "No explicit weight symmetry after training",
            "degrees",
            _cells("symmetry", _symmetry, evidence, comparisons),
        ),
        Row(
            "Accurate approximation to BP (path alignment)",
            "degrees",
            _cells("approximation", _approximation, evidence, comparisons),
        ),
        Row(
            "BP-level task performance",
            "points of accuracy",
            _cells("performance", _performance, evidence, comparisons),
        ),
    )
    return Table1(rows, tuple(_notes(comparisons)), summary(evidence, comparisons))


def _declared() -> list[Row]:
    """Rows 1 to 3: properties of the algorithms, which the registry declares."""
    titles = {
        "no_sign_transport": "No need to transport weight sign",
        "no_magnitude_transport": "No need to transport weight magnitude",
        "no_separate_phase": "No separate feedback weight learning phase",
    }
    symbol = {True: verdicts.YES, False: verdicts.NO, "†": "†"}
    rows = []
    for name, title in titles.items():
        marks = {column: symbol[getattr(ALGORITHMS[column], name)] for column in COLUMNS}
        rows.append(Row(title, "", {column: Cell(mark, mark) for column, mark in marks.items()}))
    return rows


_Judge = Callable[[Evidence, Comparison, Cohort], Finding]


def _cells(
    claim: str, judge_cohort: _Judge, evidence: Evidence, comparisons: Sequence[Comparison]
) -> dict[str, Cell]:
    """The cells of a row whose verdicts the runs decide."""
    cells = {}
    for name in COLUMNS:
        run_on = [c for c in comparisons if name in c.cohorts]
        full = [c for c in run_on if not c.cohorts[name].departures]
        findings = []
        for comparison in run_on:
            finding = judge_cohort(evidence, comparison, comparison.cohorts[name])
            findings.append(replace(finding, decides=comparison in full or not full))
        verdict = verdicts.worst([finding.verdict for finding in findings if finding.decides])
        cells[name] = Cell(verdict, VERDICTS[claim][name], tuple(findings))
    return cells


def _symmetry(evidence: Evidence, comparison: Comparison, cohort: Cohort) -> Finding:
    angles = _final_layers(evidence, comparison, cohort)["weight_angle_degrees"].dropna().tolist()
    return _from_angles(comparison, cohort, angles, verdicts.symmetry, "")


def _approximation(evidence: Evidence, comparison: Comparison, cohort: Cohort) -> Finding:
    layers = _final_layers(evidence, comparison, cohort)
    # The output layer's error is the loss's own gradient with every algorithm: 0°, which would flatter the mean.
    errors = layers["error_angle_degrees"].iloc[:-1].dropna().tolist()
    error = f"; error {_mean(errors):.1f}°" if errors else ""
    if cohort.algorithm == "dfa":
        return _from_angles(comparison, cohort, errors, verdicts.approximation, "", prefix="error ")
    angles = layers[f"{ALGORITHMS[cohort.algorithm].measure}_angle_degrees"].dropna().tolist()
    return _from_angles(comparison, cohort, angles, verdicts.approximation, error)


def _performance(evidence: Evidence, comparison: Comparison, cohort: Cohort) -> Finding:
    ours = final_accuracy(evidence, comparison, cohort)
    runs = _ids([*cohort.pooled["run_id"], *cohort.diverged["run_id"]])
    lost = f"{len(cohort.diverged)} of {len(cohort.diverged) + len(ours)} seeds diverged"

    def finding(verdict: str, text: str, interval: verdicts.Interval = verdicts.NO_INTERVAL) -> Finding:
        if len(cohort.diverged):
            verdict, text = verdicts.NO, f"{text}; {lost}" if text else lost
        numbers = (interval.mean, interval.low, interval.high, interval.n)
        return Finding(comparison.recipe, verdict, text, *numbers, run_ids=runs)

    if ours.empty or not cohort.finished:
        return finding(verdicts.UNDECIDED, "" if ours.empty else "unfinished")
    level = f"{ours[LAST].mean():.2f} %"
    if cohort.algorithm == "bp":
        return finding(verdicts.YES, f"{level}, the reference (n = {len(ours)})")
    to_bp = _difference(evidence, comparison, cohort, "bp")
    if to_bp.n == 0:
        return finding(verdicts.UNDECIDED, f"{level}; no finished BP run of the same seeds and scale")
    within = verdicts.margin(_level(evidence, comparison, "bp"))
    others = () if cohort.algorithm in ("fa", "dfa") else ("fa", "dfa")
    fixed = [_difference(evidence, comparison, cohort, name) for name in others]
    ends = f" [{_signed(to_bp.low)}, {_signed(to_bp.high)}]" if to_bp.n > 1 else ""
    text = f"{level}, {_signed(to_bp.mean)}{ends} to BP, margin {within:.2f} (n = {to_bp.n})"
    return finding(verdicts.performance(to_bp, within, fixed), text, to_bp)


def _difference(evidence: Evidence, comparison: Comparison, ours: Cohort, other: str) -> verdicts.Interval:
    """Our final accuracy minus the other algorithm's, over the seeds that both finished; NO_INTERVAL without such.

    A trial of the other is nothing to hold runs at the paper's scale against.
    """
    theirs = comparison.cohorts.get(other)
    if theirs is None or theirs.pooled.empty or not theirs.finished:
        return verdicts.NO_INTERVAL
    if theirs.departures and not ours.departures:
        return verdicts.NO_INTERVAL
    finals = [final_accuracy(evidence, comparison, cohort)[LAST] for cohort in (ours, theirs)]
    pairs = (finals[0] - finals[1]).dropna()
    return verdicts.t_interval(pairs.tolist()) if len(pairs) else verdicts.NO_INTERVAL


def _level(evidence: Evidence, comparison: Comparison, algorithm: str) -> float:
    return float(final_accuracy(evidence, comparison, comparison.cohorts[algorithm])[LAST].mean())


def _final_layers(evidence: Evidence, comparison: Comparison, cohort: Cohort) -> pd.DataFrame:
    """The layers after the last epoch, in order: every angle's mean over the pooled seeds."""
    layers = evidence.layers(comparison.recipe)
    layers = layers[layers["run_id"].isin(cohort.pooled["run_id"])]
    last = layers[layers["epoch"] == layers.groupby("run_id")["epoch"].transform("max")]
    angles = [name for name in last.columns if name.endswith("_angle_degrees")]
    return last.groupby("layer_index")[angles].mean()


def _from_angles(
    comparison: Comparison, cohort: Cohort, angles: list[float], rule: Callable[[Sequence[float]], str], more: str,
    prefix: str = "",
) -> Finding:  # fmt: skip
    n, runs = len(cohort.pooled), _ids(cohort.pooled["run_id"])
    if not angles:
        why = "all seeds diverged" if n == 0 else "no angle is defined"
        return Finding(comparison.recipe, verdicts.UNDECIDED, why, n=n, run_ids=runs)
    low, mean, high = min(angles), _mean(angles), max(angles)
    spread = f" ({low:.1f}–{high:.1f})" if high - low >= 0.05 else ""
    text = f"{prefix}{mean:.1f}°{spread}{more}, n = {n}"
    verdict = rule(angles) if cohort.finished else verdicts.UNDECIDED
    if not cohort.finished:
        text += ", unfinished"
    return Finding(comparison.recipe, verdict, text, mean, low, high, n, runs)


def _signed(points: float) -> str:
    return f"{points:+.2f}".replace("-", "−")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _ids(runs: Iterable[int]) -> str:
    return " ".join(str(run) for run in sorted(runs))


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
        "overrule trials (in parentheses)."
    )
    yield from verdicts.RULES
    for comparison in comparisons:
        yield f"{comparison.recipe}: {data_note(comparison)}"
