"""What Figures 2, 4 and 5 have in common: accuracy in panel (a), the alignment of every layer in (b), (c), …"""

from dataclasses import dataclass

import pandas as pd

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.figures import curves
from pfa_cli.figures.drawing import Drawing, Wishes
from pfa_cli.figures.evidence import Comparison, Evidence
from pfa_cli.figures.notes import cohort_notes, data_note
from pfa_cli.figures.panels import MANY_LAYERS
from pfa_cli.figures.sheet import sheet


@dataclass(frozen=True)
class TrainingFigure:
    """One figure: the recipe it shows, the algorithms of panel (a), and those of the alignment panels in order.

    ``reference``: an algorithm that is shown beside others, but makes no figure alone.
    """

    name: str
    recipe: str
    accuracy: tuple[str, ...]
    aligned: tuple[str, ...]
    reference: str | None = None

    def draw(self, evidence: Evidence, wishes: Wishes) -> Drawing | None:
        """The figure, or None if no algorithm of it was run."""
        comparison = evidence.comparison(self.recipe)
        wanted = [name for name in ALGORITHMS if name in (*self.accuracy, *self.aligned)]
        if comparison is None or not set(wanted) & set(comparison.cohorts) - {self.reference}:
            return None
        quantity = curves.accuracy_quantity(evidence, comparison, validation=wishes.validation)
        published = wishes.published
        parts = [
            curves.accuracy_curves(evidence, comparison, self.accuracy, quantity, with_published=published),
            curves.alignment_curves(evidence, comparison, self.aligned, with_published=published),
        ]
        shown = pd.concat(parts, ignore_index=True)
        shown.insert(0, "figure", self.name)
        notes = [*_what_is_drawn(comparison, shown)]
        if wishes.validation and quantity.startswith("test"):
            notes.append("No validation accuracy was recorded: (a) shows test accuracy.")
        notes += cohort_notes(comparison, wanted)
        return Drawing(sheet(comparison, shown, self.aligned, quantity, notes), shown)


def _what_is_drawn(comparison: Comparison, shown: pd.DataFrame) -> list[str]:
    many = shown.loc[shown["source"] == "ours", "layer_index"].nunique() > MANY_LAYERS
    bands = "bands, drawn in (a) only," if many else "bands"
    notes = [
        f"{data_note(comparison)} Lines are means over seeds, {bands} their standard deviation (ddof = 1).",
        "Dotted: limits after learning (Propositions 1 and 3; KP is PFA with B = I), else BP's norm ratio 1.",
    ]
    panels = set(shown.loc[shown["source"] == "published", "panel"])
    if panels:
        details = [
            "alignment: seed 0 only" if panels != {"a"} else "",
            "accuracy: of the validation images" if comparison.recipe == "cifar10" and "a" in panels else "",
            "some points of the alignment are not known"
            if comparison.recipe == "cifar10" and panels != {"a"}
            else "",
            "of ImageNet itself, 1000 classes" if comparison.recipe == "imagenet" else "",
        ]
        said = "; ".join(filter(None, details))
        notes.append(f"Grey: published curves{f' ({said})' if said else ''}.")
    return notes
