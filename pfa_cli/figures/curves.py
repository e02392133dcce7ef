"""The numbers of a training figure, as one tidy frame: what is drawn, and what its CSV file says.

One row per point. ``source`` is ours (a mean over the pooled runs), diverged (one run that diverged), published or
theory; ``quantity`` names the value with its unit; ``epoch`` counts finished epochs.
"""

from collections.abc import Sequence

import pandas as pd

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.figures import published
from pfa_cli.figures.drawing import tidy
from pfa_cli.figures.evidence import Cohort, Comparison, Evidence, pool
from pfa_cli.theory.propositions import path_angle_degrees, path_norm_ratio

COLUMNS = (
    "panel",
    "source",
    "algorithm",
    "quantity",
    "layer_index",
    "layer",
    "epoch",
    "mean",
    "std",
    "n",
    "statistic",
    "config_hash",
    "run_ids",
)
ANGLE, RATIO = "angle_degrees", "norm_ratio"
_OVER_SEEDS = "mean over seeds"


def accuracy_quantity(evidence: Evidence, comparison: Comparison, *, validation: bool) -> str:
    """The accuracy to draw: of the validation images if asked for and recorded, else of the test images."""
    quantity = "validation_accuracy_percent"
    epochs = evidence.epochs(comparison.recipe)
    ours = {run for cohort in comparison.cohorts.values() for run in cohort.pooled["run_id"]}
    recorded = epochs.loc[epochs["run_id"].isin(ours), quantity].notna().any()
    return quantity if validation and recorded else "test_accuracy_percent"


def accuracy_curves(
    evidence: Evidence,
    comparison: Comparison,
    algorithms: Sequence[str],
    quantity: str,
    *,
    with_published: bool,
) -> pd.DataFrame:
    """Panel (a): accuracy from the first trained epoch on, of every algorithm that was run."""
    epochs = evidence.epochs(comparison.recipe)
    epochs = epochs[epochs["epoch"] > 0]
    found = []
    for name in algorithms:
        if with_published:
            rows = _of(published.accuracy(), comparison, name)
            found.append(
                rows.rename(columns={"accuracy_mean_percent": "mean", "accuracy_std_percent": "std"}).assign(
                    source="published",
                    n=rows["accuracy_std_percent"].notna().map({True: 5, False: 1}),
                    statistic=_OVER_SEEDS,
                )
            )
        if cohort := comparison.cohorts.get(name):
            found.append(_ours(epochs, cohort, quantity))
            found.extend(_diverged(epochs, cohort, quantity))
    return _tidy(found, panel="a", quantity=quantity)


def alignment_curves(
    evidence: Evidence, comparison: Comparison, algorithms: Sequence[str], *, with_published: bool
) -> pd.DataFrame:
    """Panels (b), (c), …: the angle and the norm ratio of every layer, one panel per algorithm."""
    layers = evidence.layers(comparison.recipe)
    panels = []
    for panel, name in zip("bcdefgh", algorithms, strict=False):
        cohort = comparison.cohorts.get(name)
        for quantity in (ANGLE, RATIO):
            found = []
            if with_published:
                rows = _of(published.alignment(), comparison, name)
                rows = rows[rows[quantity].notna()].rename(columns={quantity: "mean"})
                found.append(rows.assign(source="published", n=1, statistic="seed 0"))
            if cohort:
                measured = f"{ALGORITHMS[name].measure}_{quantity}"
                found.append(_ours(layers, cohort, measured, by=("layer_index", "layer")))
                found.append(_theory(cohort, comparison.epochs, quantity))
            panels.append(_tidy(found, panel=panel, quantity=quantity, algorithm=name))
    return pd.concat(panels, ignore_index=True)


def limit(algorithm: str, expansion: float | None, quantity: str) -> float | None:
    """Where the angle or ratio ends up by Propositions 1 and 3; the ratio of the others: 1, which is BP's."""
    if algorithm == "pfa" and expansion is not None:
        return path_angle_degrees(1 / expansion) if quantity == ANGLE else path_norm_ratio(1 / expansion)
    if quantity == RATIO:
        return 1.0
    return 0.0 if algorithm in ("bp", "pfa-o", "kp") else None


def _of(frame: pd.DataFrame, comparison: Comparison, algorithm: str) -> pd.DataFrame:
    """The published rows of one algorithm, as far as our runs train."""
    rows = frame[(frame["recipe"] == comparison.recipe) & (frame["algorithm"] == algorithm)]
    rows = rows[rows["epochs_trained"] <= comparison.epochs]
    return rows.rename(columns={"epochs_trained": "epoch"})


def _ours(frame: pd.DataFrame, cohort: Cohort, value: str, by: Sequence[str] = ()) -> pd.DataFrame:
    curves = pool(frame, cohort, value, by)
    return curves.assign(
        source="ours", algorithm=cohort.algorithm, statistic=_OVER_SEEDS, config_hash=cohort.config_hash
    )


def _diverged(frame: pd.DataFrame, cohort: Cohort, value: str) -> list[pd.DataFrame]:
    curves = []
    for run, seed in zip(cohort.diverged["run_id"], cohort.diverged["seed"], strict=True):
        rows = frame.loc[(frame["run_id"] == run) & frame[value].notna(), ["epoch", value]]
        curves.append(
            rows.rename(columns={value: "mean"}).assign(
                source="diverged", algorithm=cohort.algorithm, n=1, statistic=f"seed {seed}",
                config_hash=cohort.config_hash, run_ids=str(run),
            )
        )  # fmt: skip
    return curves


def _theory(cohort: Cohort, epochs: int, quantity: str) -> pd.DataFrame:
    value = limit(cohort.algorithm, cohort.options.get("expansion"), quantity)
    if value is None:
        return pd.DataFrame()
    return pd.DataFrame({"epoch": [0, epochs], "mean": value, "source": "theory", "statistic": "limit"})


def _tidy(found: list[pd.DataFrame], **constant: str) -> pd.DataFrame:
    return tidy((frame.assign(**constant) for frame in found if len(frame)), COLUMNS)
