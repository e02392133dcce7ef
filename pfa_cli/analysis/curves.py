"""The numbers of a training figure, as one tidy frame: what is drawn, and what its CSV file says.

One row per point. ``source`` is ours (a mean over the pooled runs), diverged (one run that diverged), published or
theory; ``quantity`` names the value with its unit; ``epoch`` counts finished epochs.
"""

import string
from collections.abc import Iterable, Sequence

import pandas as pd

from pfa_cli.analysis import published
from pfa_cli.analysis.evidence import Cohort, Comparison
from pfa_cli.analysis.paper import paper
from pfa_cli.analysis.published import ANGLE, RATIO
from pfa_cli.registry import described
from pfa_cli.store.export import is_formula

COLUMNS = (
    "panel", "source", "algorithm", "quantity", "layer_index", "layer", "epoch", "mean", "std", "n", "statistic",
    "config_hash", "run_ids",
)  # fmt: skip
_REAL = ("expansion", "mean", "std")
_WHOLE = ("layer_index", "epoch", "n")
_OVER_SEEDS = "mean over seeds"


def panel_letter(number: int) -> str:
    """(a) is panel 0.

    >>> panel_letter(1), panel_letter(27)
    ('b', 'bb')
    """
    turn, place = divmod(number, len(string.ascii_lowercase))
    return string.ascii_lowercase[place] * (turn + 1)


def accuracy_quantity(comparison: Comparison, *, validation: bool) -> str:
    """The accuracy to draw: of the validation images if asked for and recorded, else of the test images."""
    quantity = "validation_accuracy_percent"
    if validation and any(len(comparison.curve(cohort, quantity)) for cohort in comparison.cohorts.values()):
        return quantity
    return "test_accuracy_percent"


def accuracy_curves(
    comparison: Comparison, algorithms: Sequence[str], quantity: str, *, with_published: bool
) -> pd.DataFrame:
    """Panel (a): accuracy from the first trained epoch on, of every algorithm that was run."""
    found = []
    for name in algorithms:
        if with_published:
            rows = published.accuracy_curve(comparison.recipe, name)
            rows = rows[rows["epoch"] <= comparison.epochs]
            if len(rows):
                theirs = paper().experiments[comparison.recipe].accuracy
                found.append(rows.assign(source="published", statistic=_OVER_SEEDS, quantity=theirs))
        if cohort := comparison.cohorts.get(name):
            curve = comparison.curve(cohort, quantity)
            found.append(_ours(curve[curve["epoch"] > 0], cohort, quantity=quantity))
            found += _diverged(comparison, cohort, quantity)
    return tidy(found, COLUMNS, panel="a")


def variant_curves(comparison: Comparison, algorithm: str, option: str, quantity: str) -> pd.DataFrame:
    """Accuracy of the algorithm's runs with other values of ``option``, of whatever setting; source "variant".

    The statistic names the value, and then in what else they differ from the paper's runs.
    """
    usual, found = described(algorithm).options.get(option), []
    for (value,), cohort in comparison.variants(algorithm, option, anywhere=True).items():
        chosen = cohort.config_hash == comparison.cohorts[algorithm].config_hash
        if usual is not None and value != usual.default and not chosen:
            curve = comparison.curve(cohort, quantity)
            others = [said for key, said in cohort.departures.items() if key != option]
            name = ", ".join([f"{option.replace('_', ' ')} {value:.3g}", *others])
            shown = curve[(curve["epoch"] > 0) & (curve["epoch"] <= comparison.epochs)]
            found.append(_ours(shown, cohort, source="variant", statistic=f"{_OVER_SEEDS}, {name}"))
    return tidy(found, COLUMNS, panel="a", quantity=quantity)


def alignment_curves(
    comparison: Comparison, algorithms: Sequence[str], *, with_published: bool
) -> pd.DataFrame:
    """Panels (b), (c), …: the angle and the norm ratio of every layer, one panel per algorithm."""
    found = []
    for number, name in enumerate(algorithms, start=1):
        entry, cohort = described(name), comparison.cohorts.get(name)
        ends = (limits(cohort) if cohort else None) or {}
        for quantity in (ANGLE, RATIO):
            place = {"panel": panel_letter(number), "quantity": quantity, "algorithm": name}
            if with_published:
                rows = published.alignment_curves(comparison.recipe, name, quantity)
                rows = rows[rows["epoch"] <= comparison.epochs]
                found.append(rows.assign(source="published", statistic="seed 0", **place))
            if cohort:
                curves = comparison.layer_curves(cohort, f"{entry.measure}_{quantity}")
                found.append(_ours(curves, cohort, **place))
            if ends.get(quantity) is not None:
                line = pd.DataFrame({"epoch": [0, comparison.epochs], "mean": ends[quantity]})
                found.append(line.assign(source="theory", statistic="limit", **place))
    return tidy(found, COLUMNS)


def limits(cohort: Cohort) -> dict[str, float | None] | None:
    """Where angle and norm ratio end up by theory (None: not known); None if a plug-in's own function for it fails."""
    try:
        return dict(zip((ANGLE, RATIO), described(cohort.algorithm).limit_of(cohort.options), strict=True))
    except Exception:
        return None


def tidy(frames: Iterable[pd.DataFrame], columns: Sequence[str], **constant: str) -> pd.DataFrame:
    """The frames' rows with exactly these columns, numbers as numbers; a column that a frame lacks is empty there."""
    rows = [frame for frame in frames if len(frame)]
    whole = (pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()).assign(**constant)
    whole = whole.reindex(columns=list(columns))
    kinds = dict.fromkeys(_REAL, "float64") | dict.fromkeys(_WHOLE, "Int64")
    return whole.astype({name: kind for name, kind in kinds.items() if name in columns})


def csv(frame: pd.DataFrame) -> str:
    """``frame`` as CSV; an empty cell is a value that is not defined. Formulas have an apostrophe (``is_formula``)."""
    safe = frame.copy(deep=False)
    for name, column in frame.select_dtypes(exclude="number").items():
        if any(map(is_formula, column)):
            safe[name] = [f"'{value}" if is_formula(value) else value for value in column]
    return safe.to_csv(index=False, float_format="%.10g", lineterminator="\n")


def _ours(curves: pd.DataFrame, cohort: Cohort, **more: str) -> pd.DataFrame:
    usual = {"source": "ours", "algorithm": cohort.algorithm, "statistic": _OVER_SEEDS}
    return curves.assign(config_hash=cohort.config_hash, **(usual | more))


def _diverged(comparison: Comparison, cohort: Cohort, value: str) -> list[pd.DataFrame]:
    """The curve of each run that diverged."""
    epochs, curves = comparison.evidence.epochs(comparison.recipe), []
    for run, seed in zip(cohort.diverged["run_id"], cohort.diverged["seed"], strict=True):
        own = epochs[(epochs["run_id"] == run) & (epochs["epoch"] > 0) & epochs[value].notna()]
        curves.append(
            own[["epoch", value]].rename(columns={value: "mean"}).assign(
                source="diverged", algorithm=cohort.algorithm, quantity=value, n=1, statistic=f"seed {seed}",
                config_hash=cohort.config_hash, run_ids=str(run),
            )
        )  # fmt: skip
    return curves
