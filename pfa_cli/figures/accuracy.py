"""Final accuracies: at the last epoch, and at the epoch that was best on the validation images. Never mixed."""

from collections.abc import Iterable

import pandas as pd

from pfa_cli.figures.evidence import Cohort, Comparison, Evidence

LAST = "test_accuracy_last_epoch_percent"
BEST = "test_accuracy_best_validation_epoch_percent"


def final_accuracy(evidence: Evidence, comparison: Comparison, cohort: Cohort) -> pd.DataFrame:
    """Test accuracy of each pooled run, by seed: ``LAST``, ``BEST`` (NaN without a validation split), ``run_id``."""
    epochs = evidence.epochs(comparison.recipe)
    epochs = epochs[epochs["run_id"].isin(cohort.pooled["run_id"]) & (epochs["epoch"] > 0)]
    ordered = epochs.sort_values(["run_id", "epoch"]).set_index("run_id")
    last = ordered.groupby(level=0)["test_accuracy_percent"].last()
    validated = ordered[ordered["validation_accuracy_percent"].notna()].reset_index()
    best = validated.loc[validated.groupby("run_id")["validation_accuracy_percent"].idxmax()]
    found = cohort.pooled[["seed", "run_id"]].set_index("run_id")
    found[LAST] = last
    found[BEST] = best.set_index("run_id")["test_accuracy_percent"]
    return found.reset_index().set_index("seed")


def summary(evidence: Evidence, comparisons: Iterable[Comparison]) -> pd.DataFrame:
    """Mean and std (ddof = 1) over seeds of both accuracies, for every recipe and algorithm that was run."""
    rows = []
    for comparison in comparisons:
        for name, cohort in comparison.cohorts.items():
            finals = final_accuracy(evidence, comparison, cohort)
            rows.append(
                {
                    "recipe": comparison.recipe,
                    "algorithm": name,
                    "epochs": comparison.epochs,
                    "finished": cohort.finished and len(finals) > 0,
                    "n": len(finals),
                    "diverged": len(cohort.diverged),
                    f"{LAST}_mean": finals[LAST].mean(),
                    f"{LAST}_std": finals[LAST].std(ddof=1),
                    f"{BEST}_mean": finals[BEST].mean(),
                    f"{BEST}_std": finals[BEST].std(ddof=1),
                    "config_hash": cohort.config_hash,
                    "run_ids": " ".join(str(run) for run in sorted(finals["run_id"])),
                }
            )
    return pd.DataFrame(rows)
