"""Whether runs are the paper's experiment, so that their numbers may stand for or against the paper's."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from pfa_cli.figures.published import EPOCHS
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


def departures(configuration: Mapping[str, Any], data: str) -> dict[str, str]:
    """In what runs differ from the paper's experiment, the recipe as shipped: setting → words.

    Empty at the paper's scale, and for a recipe that the paper has not. ``data``: the data set's description.
    """
    recipe = configuration["recipe"]
    if recipe not in EPOCHS:
        return {}
    found = {}
    if recipe == "imagenet" and _IMAGENET not in data:
        found["data"] = f"{data} in place of ImageNet"
    ours, papers = _flat(configuration), _papers(recipe, configuration["algorithm"])
    skipped = set(_SAME_EXPERIMENT)
    if (epochs := ours["epochs"]) != papers["epochs"]:
        found["epochs"] = f"{epochs} {'epoch' if epochs == 1 else 'epochs'} in place of {papers['epochs']}"
        skipped |= {"epochs", "milestones"}
    for key, value in papers.items():
        if key not in skipped and ours.get(key) != value:
            found[key] = _said(key, ours.get(key), value)
    return found


@cache
def _papers(recipe: str, algorithm: str) -> Mapping[str, Any]:
    return _flat(load_recipe(recipe).configuration(algorithm).model_dump(mode="json"))


def _flat(configuration: Mapping[str, Any]) -> dict[str, Any]:
    return {**configuration, **configuration["options"], "options": None}


def _said(key: str, ours: Any, papers: Any) -> str:
    if papers is None:
        return f"{key.replace('_', ' ')} {ours}"
    return f"{key.replace('_', ' ')} {ours} in place of {papers}"
