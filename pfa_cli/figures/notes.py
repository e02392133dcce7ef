"""The sentences below a figure: what was run, what is shown, and what is not."""

from collections.abc import Iterable, Sequence

import pandas as pd

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.figures.evidence import Cohort, Comparison
from pfa_cli.figures.published import EPOCHS


def labels(algorithms: Iterable[str]) -> str:
    """The algorithms' names as figures write them.

    >>> labels(["bp", "pfa-o"])
    'BP, PFA-o'
    """
    return ", ".join(ALGORITHMS[name].label for name in algorithms)


def data_note(comparison: Comparison) -> str:
    """Data set, recipe and epochs, and how the schedule differs from the paper's."""
    epochs, papers = comparison.epochs, EPOCHS.get(comparison.recipe)
    text = f"{comparison.dataset} (recipe {comparison.recipe}), {count(epochs, 'epoch')}"
    if papers is not None and epochs != papers:
        text += f" in place of the paper's {papers}, its schedule scaled in proportion"
    cut = [
        f"{comparison.setting[key]:,} {what}"
        for key, what in (("train_images", "training"), ("test_images", "test"))
        if comparison.setting.get(key) is not None
    ]
    if cut:
        text += f"; a trial on the first {' and '.join(cut)} images only"
    if comparison.setting["precision"] != "fp32":
        text += f"; precision {comparison.setting['precision']}"
    return text + "."


def cohort_notes(comparison: Comparison, wanted: Sequence[str]) -> list[str]:
    """What is missing, unfinished, diverged or chosen among others, for the algorithms that a figure wants."""
    shown = [comparison.cohorts[name] for name in wanted if name in comparison.cohorts]
    notes = []
    absent = [name for name in wanted if name not in comparison.cohorts]
    if never := [name for name in absent if name not in comparison.elsewhere]:
        notes.append(f"Not run: {labels(never)}.")
    if elsewhere := [name for name in absent if name in comparison.elsewhere]:
        notes.append(
            f"Run with other settings only, hence not comparable and not shown: {labels(elsewhere)}."
        )
    if diverged := [f"{_label(c)} {_diverged(c.diverged)}" for c in shown if len(c.diverged)]:
        notes.append(f"Diverged (✕, in no mean): {'; '.join(diverged)}.")
    if partial := [_label(c) for c in shown if len(c.pooled) and not c.finished]:
        notes.append(
            f"No run has finished yet, the unfinished ones are shown as far as they are: {', '.join(partial)}."
        )
    if waiting := [f"{_label(c)} {_seeds(c.waiting)}" for c in shown if len(c.waiting)]:
        notes.append(f"Unfinished and not shown: {'; '.join(waiting)}.")
    if others := [f"{_label(c)} {c.others}" for c in shown if c.others]:
        notes.append(f"Further configurations in the database, not shown here: {', '.join(others)}.")
    notes.append("Configurations: " + ", ".join(f"{_label(c)} {c.config_hash[:8]}" for c in shown) + ".")
    return notes


def count(n: int, noun: str) -> str:
    """A number with its noun.

    >>> count(1, "epoch"), count(40, "epoch")
    ('1 epoch', '40 epochs')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _label(cohort: Cohort) -> str:
    label, options = ALGORITHMS[cohort.algorithm].label, ALGORITHMS[cohort.algorithm].options
    if "expansion" in options and cohort.options["expansion"] != options["expansion"].default:
        return f"{label} at expansion ratio {cohort.options['expansion']:g}"
    return label


def _seeds(runs: pd.DataFrame) -> str:
    seeds = runs["seed"].tolist()
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _diverged(runs: pd.DataFrame) -> str:
    return ", ".join(
        f"seed {seed} at epoch {epoch}"
        for seed, epoch in zip(runs["seed"], runs["diverged_epoch"], strict=True)
    )
