"""The findings as rows of words: what the terminal, Markdown and the report have in common."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.comparison.claims import TASKS
from pfa_cli.comparison.curves import DIFFERENT, EQUAL, NOT_COMPARED, Deviation, Panel
from pfa_cli.comparison.findings import Findings
from pfa_cli.comparison.intervals import CONTRADICTED, NOT_RUN, SUPPORTED, UNDECIDED
from pfa_cli.comparison.words import ends, mean_std, plain, signed
from pfa_cli.figures.curves import ANGLE, RATIO
from pfa_cli.figures.notes import labels
from pfa_cli.figures.panels import MANY_LAYERS

QUANTITIES = {ANGLE: "angle, °", RATIO: "norm ratio"}
_PLACES = {RATIO: 3}


@dataclass(frozen=True)
class Rows:
    """A table: its title, its head, and its rows. ``verdict`` is the column that holds the verdict."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    verdict: int


def summary(findings: Findings) -> str:
    """How many claims got which verdict."""
    verdicts = [one.verdict for one in findings.claims]
    parts = [f"{verdicts.count(word)} {word}" for word in (SUPPORTED, CONTRADICTED, UNDECIDED, NOT_RUN)]
    return f"{len(verdicts)} claims: {', '.join(parts)}"


def claim_rows(findings: Findings) -> Rows:
    """One row per claim."""
    rows = []
    for one in findings.claims:
        ours = "; ".join(filter(None, [one.ours, one.remark]))
        rows.append(
            (one.claim, one.source, one.verdict, ours, str(one.n or ""), one.published, _ids(one.run_ids))
        )
    head = ("claim", "source", "verdict", "ours", "n", "the paper's own numbers", "runs")
    return Rows("Claims of the paper", head, tuple(rows), 2)


def panel_rows(findings: Findings) -> Rows:
    """One row per panel, algorithm and quantity that was run; layers side by side or summed up."""
    rows = tuple(_panel(panel) for panel in findings.panels if panel.verdict != NOT_RUN)
    head = (
        "panel", "algorithm", "quantity", "verdict", "epoch", "ours", "published", "deviation", "margin",
        "curve: mean, mean |·|, largest", "epochs equal / undecided / different", "seeds' std: ours, published", "n", "",
    )  # fmt: skip
    return Rows("Ours against the published curves", head, rows, 3)


def layer_rows(findings: Findings) -> Rows:
    """One row per layer of every alignment panel that was run."""
    rows = []
    for panel in findings.panels:
        for one in panel.deviations:
            if one.layer is not None:
                rows.append((*_place(panel), str(one.layer), one.verdict, *_numbers(panel, [one])))
    head = (
        "panel", "algorithm", "quantity", "layer", "verdict", "epoch", "ours", "published", "deviation", "margin",
        "curve: mean, mean |·|, largest", "epochs equal / undecided / different", "seeds' std: ours, published", "n",
    )  # fmt: skip
    return Rows("Layer by layer", head, tuple(rows), 4)


def not_run(findings: Findings) -> list[str]:
    """Which panels of the paper have no run here, by figure."""
    missing: dict[tuple[str, str, str], dict[str, None]] = {}
    for panel in findings.panels:
        if panel.verdict == NOT_RUN:
            key = (panel.figure, panel.recipe, panel.reason)
            missing.setdefault(key, {})[panel.algorithm] = None
    return [
        f"{_figure(figure)}, {TASKS[recipe]}: {labels(names)} {reason or 'not run'}"
        for (figure, recipe, reason), names in missing.items()
    ]


def remarks(findings: Findings) -> list[str]:
    """What the panels have to be read with: why they are not compared, what is unfinished, what diverged."""
    said: dict[tuple[str, str], dict[str, None]] = {}
    for panel in findings.panels:
        if panel.reason and panel.verdict != NOT_RUN:
            apart = panel.verdict == NOT_COMPARED
            about = "Not compared, each shown where it ends" if apart else "To know"
            said.setdefault((about, panel.reason), {})[panel.algorithm] = None
    return [f"{about} ({labels(names)}): {reason}." for (about, reason), names in said.items()]


def figure_title(panel: Panel) -> str:
    """The figure's number and task."""
    return f"{_figure(panel.figure)}, {TASKS[panel.recipe]}"


def _panel(panel: Panel) -> tuple[str, ...]:
    numbers = _numbers(panel, panel.deviations) if panel.deviations else ("",) * 9
    return (*_place(panel), panel.verdict, *numbers, panel.reason)


def _place(panel: Panel) -> tuple[str, str, str]:
    quantity = QUANTITIES.get(panel.quantity) or f"{panel.quantity.split('_')[0]} accuracy, %"
    return f"{_figure(panel.figure)}{panel.panel}", ALGORITHMS[panel.algorithm].label, quantity


def _figure(name: str) -> str:
    return name.replace("fig", "Fig. ")


def _numbers(panel: Panel, deviations: Sequence[Deviation]) -> tuple[str, ...]:
    """Epoch, ours, published, deviation, margin, curve, epochs by verdict, scatter, n."""
    places = _PLACES.get(panel.quantity, 2)
    compared = [one for one in deviations if one.difference is not None]
    return (
        _span([one.epoch for one in deviations]),
        _means([one.ours.mean for one in deviations], [one.ours.std for one in deviations], places),
        _means([one.published.mean for one in deviations], [one.published.std for one in deviations], places),
        _deviation(compared, places),
        f"{compared[0].margin:.{places}f}" if compared else "",
        _course(compared, places),
        _epochs(compared),
        _scatter(compared, places),
        _span([one.ours.n for one in deviations]),
    )


def _means(means: Sequence[float], stds: Sequence[float], places: int) -> str:
    if len(means) == 1:
        return mean_std(means[0], stds[0], places)
    if len(means) <= MANY_LAYERS:
        return " / ".join(plain(mean, places) for mean in means)
    return f"{plain(min(means), places)} to {plain(max(means), places)}"


def _deviation(compared: Sequence[Deviation], places: int) -> str:
    found = [(one.layer, one.difference) for one in compared if one.difference is not None]
    if not found:
        return ""
    if len(found) == 1:
        return signed(found[0][1].mean, places) + ends(found[0][1], places)
    if len(found) <= MANY_LAYERS:
        text = " / ".join(signed(interval.mean, places) for _, interval in found)
    else:
        layer, worst = max(found, key=lambda pair: abs(pair[1].mean))
        mean = math.fsum(abs(interval.mean) for _, interval in found) / len(found)
        text = f"mean |·| {mean:.{places}f}, largest {signed(worst.mean, places)} ({layer})"
    return f"{text}; {_layer_verdicts([one.verdict for one in compared])}"


def _layer_verdicts(verdicts: Sequence[str]) -> str:
    counted = [(verdicts.count(word), word) for word in (EQUAL, UNDECIDED, DIFFERENT)]
    return "layers: " + ", ".join(f"{n} {word}" for n, word in counted if n)


def _course(compared: Sequence[Deviation], places: int) -> str:
    courses = [one.course for one in compared if one.course is not None]
    if not courses:
        return ""
    mean = math.fsum(one.mean for one in courses) / len(courses)
    absolute = math.fsum(one.mean_absolute for one in courses) / len(courses)
    largest = max(courses, key=lambda one: one.max_absolute)
    return f"{signed(mean, places)}, {absolute:.{places}f}, {largest.max_absolute:.{places}f} (epoch {largest.max_epoch})"


def _epochs(compared: Sequence[Deviation]) -> str:
    courses = [one.course for one in compared if one.course is not None]
    counts = (sum(getattr(one, word) for one in courses) for word in (EQUAL, UNDECIDED, DIFFERENT))
    return " / ".join(map(str, counts)) if courses else ""


def _scatter(compared: Sequence[Deviation], places: int) -> str:
    courses = [one.course for one in compared if one.course is not None]
    return ", ".join(_said(spreads, places) for spreads in (
        [one.spread for one in courses], [one.published_spread for one in courses]
    )) if courses else ""  # fmt: skip


def _said(spreads: Sequence[float], places: int) -> str:
    known = [one for one in spreads if math.isfinite(one)]
    return f"{math.fsum(known) / len(known):.{places}f}" if known else "–"


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}–{high}"


def _ids(runs: Sequence[int]) -> str:
    """Ids in order, neighbours drawn together: 1–3, 9."""
    spans: list[list[int]] = []
    for run in runs:
        if spans and run == spans[-1][-1] + 1:
            spans[-1][1:] = [run]
        else:
            spans.append([run])
    return ", ".join("–".join(map(str, span)) for span in spans)
