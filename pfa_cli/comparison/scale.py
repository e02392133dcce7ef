"""Whether runs are the paper's experiment, so that their numbers may stand for or against the paper's."""

from collections.abc import Iterable, Mapping
from typing import Any

from pfa_cli.figures.evidence import Cohort, Comparison
from pfa_cli.figures.notes import count
from pfa_cli.recipes import load_recipe

# Arithmetic and bookkeeping: recorded and shown, but the same experiment.
_SAME_EXPERIMENT = {
    "precision",
    "probe_images",
    "accumulation",
    "split_seed",
    "corrupt_share_percent",
    "form",
}
_IMAGENET = "(1000 classes)"


def departures(comparison: Comparison, cohort: Cohort, ignoring: Iterable[str] = ()) -> list[str]:
    """In what the runs differ from the paper's experiment, in words; empty if they are at the paper's scale."""
    found = []
    if comparison.recipe == "imagenet" and _IMAGENET not in comparison.dataset:
        found.append(f"{comparison.dataset} in place of ImageNet")
    shipped = load_recipe(comparison.recipe).configuration(cohort.algorithm, {}).model_dump(mode="json")
    ours, papers = _flat(cohort.configuration), _flat(shipped)
    skipped = {*_SAME_EXPERIMENT, *ignoring}
    if ours["epochs"] != papers["epochs"]:
        found.append(f"{count(ours['epochs'], 'epoch')} in place of {papers['epochs']}")
        skipped |= {"epochs", "milestones"}
    for key, value in papers.items():
        if key not in skipped and ours.get(key) != value:
            found.append(_said(key, ours.get(key), value))
    return found


def _flat(configuration: Mapping[str, Any]) -> dict[str, Any]:
    return {**configuration, **configuration["options"], "options": None}


def _said(key: str, ours: Any, papers: Any) -> str:
    if papers is None:
        return f"{key.replace('_', ' ')} {ours}"
    return f"{key.replace('_', ' ')} {ours} in place of {papers}"
