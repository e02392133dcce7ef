"""The paper's own curves and verdicts, as shipped in ``reference/`` (its README says where they come from)."""

from functools import cache
from importlib.resources import files

import pandas as pd

EPOCHS = {"mnist": 40, "cifar10": 200, "imagenet": 75}
"""Epochs that the paper trained each recipe for."""

# Table 1, rows 4-6. "*": reduces, but does not fully eliminate, explicit weight symmetry. "◆": significantly better
# than FA and DFA, but worse than BP in more challenging tasks (CIFAR-10 for PAL and ImageNet for SF).
VERDICTS = {
    "symmetry": {"bp": "✗", "fa": "*", "dfa": "*", "sf": "*", "kp": "✗", "wm": "✗", "pal": "*", "pfa": "✓"},
    "approximation": {
        "bp": "✓",
        "fa": "✗",
        "dfa": "✗",
        "sf": "✗",
        "kp": "✓",
        "wm": "✓",
        "pal": "✗",
        "pfa": "✓",
    },
    "performance": {
        "bp": "✓",
        "fa": "✗",
        "dfa": "✗",
        "sf": "◆",
        "kp": "✓",
        "wm": "✓",
        "pal": "◆",
        "pfa": "✓",
    },
}


@cache
def accuracy() -> pd.DataFrame:
    """Accuracy by recipe, algorithm and epochs_trained: mean and standard deviation over 5 seeds, in percent."""
    return _read("accuracy.csv")


@cache
def alignment() -> pd.DataFrame:
    """Angle in degrees and norm ratio by recipe, algorithm, layer and epochs_trained, of seed 0."""
    return _read("alignment.csv")


def _read(name: str) -> pd.DataFrame:
    with (files("pfa_cli.figures") / "reference" / name).open(encoding="utf-8") as file:
        return pd.read_csv(file)
