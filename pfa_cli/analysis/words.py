"""Numbers, ids and runs in words: the same ones in figures' notes, Table 1 and the comparison."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import pandas as pd

from pfa_cli.analysis.evidence import Cohort, Comparison
from pfa_cli.analysis.paper import paper
from pfa_cli.analysis.published import RATIO
from pfa_cli.analysis.statistics import Interval, Region, inside, outside
from pfa_cli.registry import described
from pfa_cli.wording import count, setting

MANY_LAYERS = 6
"""More layers than this are summed up: their range in words, one colour bar and no bands in a figure."""

_IN_DATA_NOTE = ("data", "epochs", "train_images", "test_images")
"""What ``data_note`` says of a whole comparison, by its name in ``Cohort.departures``."""


def labels(algorithms: Iterable[str]) -> str:
    """The algorithms' names as figures write them.

    >>> labels(["bp", "pfa-o"])
    'BP, PFA-o'
    """
    return ", ".join(described(name).label for name in algorithms)


def ids(runs: Iterable[int]) -> str:
    """Ids in order, neighbours drawn together.

    >>> ids([9, 1, 2, 3])
    '1–3, 9'
    """
    spans: list[list[int]] = []
    for run in sorted(runs):
        if spans and run == spans[-1][-1] + 1:
            spans[-1][1:] = [run]
        else:
            spans.append([run])
    return ", ".join("–".join(map(str, span)) for span in spans)


def plain(value: float, places: int = 2) -> str:
    """A number with a true minus sign."""
    return f"{value:.{places}f}".replace("-", "−")


def signed(value: float, places: int = 2) -> str:
    """With its sign, unless it rounds to zero.

    >>> signed(-0.5), signed(0.014), signed(-0.001), signed(float("inf"))
    ('−0.50', '+0.01', '0.00', '+∞')
    """
    if math.isinf(value):
        return "+∞" if value > 0 else "−∞"
    text = f"{value:+.{places}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def with_ends(interval: Interval, places: int = 2, number: Callable[[float, int], str] = plain) -> str:
    """The mean and its interval in brackets, if it has one; ``number``: how a number is written.

    >>> with_ends(Interval(-0.5, -1.0, 0.014, 3), number=signed)
    '−0.50 [−1.00, +0.01]'
    """
    ends = f" [{number(interval.low, places)}, {number(interval.high, places)}]"
    return number(interval.mean, places) + (ends if math.isfinite(interval.low) else "")


def mean_std(mean: float, std: float, places: int = 2) -> str:
    """Mean ± standard deviation, if there is one."""
    return plain(mean, places) + (f" ± {std:.{places}f}" if math.isfinite(std) else "")


def apart(ours: float, other: float, interval: Interval, region: Region) -> str:
    """A difference of two accuracies in percent, and where it has to lie."""
    below = region.low == -math.inf
    needed = f"needed below {signed(region.high)}" if below else f"needed within ±{region.high:.2f}"
    return f"{ours:.2f} vs {other:.2f} %: {with_ends(interval, number=signed)}, {needed}"


def layer_range(values: Sequence[float], quantity: str) -> str:
    """Values of all layers if they are few, else their range."""
    if len(values) <= MANY_LAYERS:
        return " / ".join(map(plain, values)) + _unit(quantity)
    return f"{len(values)} layers, {plain(min(values))} to {plain(max(values))}{_unit(quantity)}"


def by_layer(intervals: Mapping[str, Interval], quantity: str, region: Region) -> str:
    """Each layer's mean with its interval if they are few, else their range and how many are where."""
    if not intervals:
        return "no layer has a value"
    unit = _unit(quantity)
    span = "at most" if region.low < 0 else f"{region.low:.2f} to"
    needed = f"needed {span} {region.high:.2f}{unit}"
    if len(intervals) <= MANY_LAYERS:
        return "; ".join([*(f"{name} {with_ends(one)}" for name, one in intervals.items()), needed])
    text = layer_range([one.mean for one in intervals.values()], quantity)
    if all(math.isfinite(one.low) for one in intervals.values()):
        counts = [sum(where(one, region) for one in intervals.values()) for where in (inside, outside)]
        text += f": {counts[0]} inside, {counts[1]} outside"
    return f"{text}; {needed}"


def data_note(comparison: Comparison) -> str:
    """Data set, recipe and epochs, and how the schedule differs from the paper's."""
    experiment = paper().experiments.get(comparison.recipe)
    text = f"{comparison.dataset} (recipe {comparison.recipe}), {count(comparison.epochs, 'epoch')}"
    if experiment and comparison.epochs != experiment.epochs:
        text += f" in place of the paper's {experiment.epochs}, its schedule scaled in proportion"
    cut = [
        count(comparison.setting[key], what)
        for key, what in (("train_images", "training image"), ("test_images", "test image"))
        if comparison.setting.get(key) is not None
    ]
    if cut:
        text += f"; a trial on the first {' and '.join(cut)} only"
    if comparison.setting["precision"] not in (None, "fp32"):
        text += f"; precision {comparison.setting['precision']}"
    return text + "."


def settings_note(cohorts: Iterable[Cohort], besides: Collection[str] = ()) -> str:
    """In which settings these runs differ from the paper's, beyond what ``data_note`` says; "" if in none.

    Algorithms that differ alike are named together. ``besides``: settings to leave out.
    """
    found: dict[str, dict[str, None]] = {}
    for cohort in cohorts:
        said = [
            words
            for key, words in cohort.departures.items()
            if key not in _IN_DATA_NOTE and key not in besides
        ]
        if said:
            found.setdefault("; ".join(said), {})[cohort.algorithm] = None
    apart = [f"{labels(names)} ({said})" for said, names in found.items()]
    return f"Not the paper's settings: {', '.join(apart)}." if apart else ""


def absent(comparison: Comparison, names: Sequence[str]) -> str:
    """Which of these algorithms have no run, or none in the setting that is compared; "" if all have."""
    missing = [name for name in names if name not in comparison.cohorts]
    never = [name for name in missing if name not in comparison.elsewhere]
    elsewhere = [name for name in missing if name in comparison.elsewhere]
    said = [f"{labels(never)} not run"] if never else []
    return "; ".join(said + ([f"{labels(elsewhere)} run with other settings only"] if elsewhere else []))


def others_note(comparison: Comparison, cohorts: Iterable[Cohort], variants: Collection[str] = ()) -> str:
    """How many configurations there are besides, and what tells the one shown from them; "" if there are none.

    ``variants``: hashes of those that are shown, too.
    """
    found = []
    for cohort in cohorts:
        if others := cohort.others.difference(variants):
            told = " ".join(setting(*one) for one in comparison.telling(cohort, others).items())
            found.append(f"{_label(cohort)} {len(others)} (shown: {told})")
    return f"Further configurations in the database, not shown here: {', '.join(found)}." if found else ""


def cohort_notes(comparison: Comparison, wanted: Sequence[str], variants: Collection[str] = ()) -> list[str]:
    """What is missing, unfinished, diverged or chosen among others, for the algorithms that a figure wants.

    ``variants``: hashes of the configurations that it shows beside the chosen ones.
    """
    shown = [comparison.cohorts[name] for name in wanted if name in comparison.cohorts]
    notes = [note] if (note := settings_note(shown)) else []
    if missing := absent(comparison, wanted):
        notes.append(f"Not shown: {missing}.")
    if diverged := [f"{_label(c)} {_diverged(c.diverged)}" for c in shown if len(c.diverged)]:
        notes.append(f"Diverged (✕, in no mean): {'; '.join(diverged)}.")
    if partial := [_label(c) for c in shown if len(c.pooled) and not c.finished]:
        notes.append(
            f"No run has finished yet, the unfinished ones are shown as far as they are: {', '.join(partial)}."
        )
    if waiting := [f"{_label(c)} {_seeds(c.waiting)}" for c in shown if len(c.waiting)]:
        notes.append(f"Unfinished and not shown: {'; '.join(waiting)}.")
    if note := others_note(comparison, shown, variants):
        notes.append(note)
    notes.append("Configurations: " + ", ".join(f"{_label(c)} {c.config_hash[:8]}" for c in shown) + ".")
    return notes


def _label(cohort: Cohort) -> str:
    entry = described(cohort.algorithm)
    usual = entry.options.get("expansion")
    if usual and cohort.options.get("expansion", usual.default) != usual.default:
        return f"{entry.label} at expansion ratio {cohort.options['expansion']:g}"
    return entry.label


def _seeds(runs: pd.DataFrame) -> str:
    seeds = runs["seed"].tolist()
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _diverged(runs: pd.DataFrame) -> str:
    return ", ".join(
        f"seed {seed} at epoch {epoch}"
        for seed, epoch in zip(runs["seed"], runs["diverged_epoch"], strict=True)
    )


def _unit(quantity: str) -> str:
    return "" if quantity == RATIO else "°"
