"""The comparison with the paper in words: its tables, what to read them with, and its forms."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from rich.console import Group, RenderableType
from rich.text import Text

from pfa_cli.analysis.claims import Judgement
from pfa_cli.analysis.deviations import TOGETHER_DEGREES, Course, Deviation, Panel
from pfa_cli.analysis.findings import Findings
from pfa_cli.analysis.paper import task
from pfa_cli.analysis.published import ANGLE, RATIO
from pfa_cli.analysis.statistics import (
    CONTRADICTED,
    DIFFERENT,
    EQUAL,
    NOT_COMPARED,
    NOT_RUN,
    RULES,
    SUPPORTED,
    TRIAL,
    UNDECIDED,
)
from pfa_cli.analysis.words import MANY_LAYERS, ids, labels, mean_std, plain, signed, with_ends
from pfa_cli.registry import described
from pfa_cli.report.tables import Table, bullets, markdown
from pfa_cli.wording import count

QUANTITIES = {ANGLE: "angle, °", RATIO: "norm ratio"}
REPLAYED = "The published run, replayed: seed 0, draw for draw"
_PLACES = {RATIO: 3}
_EPOCHS = "epochs equal / undecided / different"
_TOGETHER = f"within {TOGETHER_DEGREES}° until epoch"
_LARGEST = "largest difference of a layer's angle, °"
_NUMBERS = (
    "epoch", "ours", "published", "deviation", "margin", "curve: mean, mean |·|, largest", _EPOCHS,
    "seeds' std: ours, published", "n",
)  # fmt: skip
_SHORT = {
    "test accuracy, %": "test %",
    "validation accuracy, %": "valid. %",
    _EPOCHS: "epochs equal /\nundecided /\ndifferent",
    _TOGETHER: f"≤ {TOGETHER_DEGREES}°\nuntil",
    _LARGEST: "largest, °",
}


def counts(claims: Sequence[Judgement]) -> dict[str, int]:
    """How many claims got which verdict."""
    verdicts = [one.verdict for one in claims]
    return {word: verdicts.count(word) for word in (SUPPORTED, CONTRADICTED, UNDECIDED, TRIAL, NOT_RUN)}


def summary(findings: Findings) -> str:
    """How many of the paper's claims got which verdict, in words."""
    parts = [f"{n} {word}" for word, n in counts(findings.claims).items() if n or word != TRIAL]
    return f"{count(len(findings.claims), 'claim')}: {', '.join(parts)}"


def claims(findings: Findings) -> Table:
    """One row per claim of the paper."""
    return _claims("Claims of the paper", findings.claims, "the paper's own numbers")


def own_claims(findings: Findings) -> Table:
    """One row per claim of our own."""
    return _claims("Claims of our own: results of this suite on MNIST", findings.own_claims)


def _claims(title: str, judged: Sequence[Judgement], papers: str = "") -> Table:
    rows = []
    for one in judged:
        ours = "; ".join(filter(None, [one.ours, one.remark]))
        published = (one.published,) if papers else ()
        rows.append(
            (one.claim, one.source, one.verdict, ours, str(one.n or ""), *published, ids(one.run_ids))
        )
    head = ("claim", "source", "verdict", "ours", "n", *([papers] if papers else []), "runs")
    return Table(title, head, tuple(rows), 2, "claims")


def panels(findings: Findings) -> Table:
    """One row per panel, algorithm and quantity that was run; layers side by side or summed up."""
    rows = tuple(_panel(panel) for panel in findings.panels if panel.verdict != NOT_RUN)
    head = ("panel", "algorithm", "quantity", "verdict", *_NUMBERS, "")
    return Table("Ours against the published curves", head, rows, 3, "curves")


def layers(findings: Findings) -> Table:
    """One row per layer of every alignment panel that was run."""
    rows = []
    for panel in findings.panels:
        for one in panel.deviations:
            if one.layer is not None:
                rows.append((*_place(panel), str(one.layer), one.verdict, *_numbers(panel, [one])))
    head = ("panel", "algorithm", "quantity", "layer", "verdict", *_NUMBERS)
    return Table("Layer by layer", head, tuple(rows), 4, "curves")


def replays(findings: Findings) -> Table:
    """One row per published run that was repeated draw for draw."""
    rows = []
    for one in findings.replays:
        apart = [f"{value:.2f} (epoch {epoch})" for value, epoch in one.largest.values()]
        if len(apart) > MANY_LAYERS:
            layer, (value, epoch) = max(one.largest.items(), key=lambda pair: pair[1][0])
            mean = fmean(value for value, _ in one.largest.values())
            apart = [f"mean {mean:.2f}, largest {value:.2f} ({layer}, epoch {epoch})"]
        until = "not at the start" if one.together is None else str(one.together)
        place = (task(one.recipe), described(one.algorithm).label, str(one.epochs), until)
        rows.append((*place, f"{one.start:.5f}", " / ".join(apart), one.settings, str(one.run_id)))
    head = (
        "task", "algorithm", "epochs", _TOGETHER, "at the start, °", _LARGEST, "other settings", "run",
    )  # fmt: skip
    return Table(REPLAYED, head, tuple(rows))


def not_run(findings: Findings) -> list[str]:
    """Which panels of the paper have no run here, by figure."""
    missing: dict[tuple[str, str, str], dict[str, None]] = {}
    for panel in findings.panels:
        if panel.verdict == NOT_RUN:
            key = (panel.figure, panel.recipe, panel.reason)
            missing.setdefault(key, {})[panel.algorithm] = None
    return [
        f"{_figure(figure)}, {task(recipe)}: {labels(names)} {reason or 'not run'}"
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
    found = [f"{about} ({labels(names)}): {reason}." for (about, reason), names in said.items()]
    return found + [panel.note for panel in findings.panels if panel.note]


def figure_title(panel: Panel) -> str:
    """The figure's number and task."""
    return f"{_figure(panel.figure)}, {task(panel.recipe)}"


def terminal(findings: Findings) -> Group:
    """What ``rich`` prints, by the width at hand: the claims, the panels, what to read them with, what was not run.

    Margins, scatter and seeds are left to the other forms, on a narrow terminal also what is not a row's result.
    """
    parts: list[RenderableType] = [Text(f"{recipe}: {note}") for recipe, note in findings.data.items()]
    papers = "the paper's own numbers"
    wraps: Mapping[str, int | None] = {"claim": 18, "verdict": None, "ours": 20, papers: 20}
    if (table := claims(findings)).rows:
        parts.append(table.terminal(wraps, [papers], _SHORT))
    wraps = {"claim": 18, "verdict": None, "ours": 20}
    parts.append(own_claims(findings).terminal(wraps, [], _SHORT))
    wraps = {
        "panel": None, "algorithm": None, "quantity": None, "verdict": None, "epoch": None, "ours": 14,
        "published": 14, "deviation": 22, _EPOCHS: None,
    }  # fmt: skip
    if (table := panels(findings)).rows:
        drop_first = [_EPOCHS, "epoch", "deviation", "published", "ours"]
        short = {row[0]: row[0].removeprefix("Fig. ") for row in table.rows}
        parts.append(table.terminal(wraps, drop_first, _SHORT | short))
    if (table := replays(findings)).rows:
        wraps = {
            "task": None, "algorithm": None, "epochs": None, _TOGETHER: None, _LARGEST: 24, "other settings": 20,
        }  # fmt: skip
        parts.append(table.terminal(wraps, ["other settings", "epochs", _LARGEST], _SHORT))
    parts += [Text(line, style="dim") for line in (*_remarks_by_figure(findings), *not_run(findings))]
    parts.append(
        Text(f"{summary(findings)}. Rules, layers, runs, every column: --format md, or --json.", style="bold")
    )
    return Group(*parts)


def as_markdown(findings: Findings) -> str:
    """A Markdown document: summary, claims, panels, layers, what was not run, rules."""
    lines = ["# Ours against the paper", "", f"{summary(findings)}.", ""]
    lines += [f"* {markdown(recipe)}: {markdown(note)}" for recipe, note in findings.data.items()]
    for table in (
        claims(findings),
        own_claims(findings),
        panels(findings),
        layers(findings),
        replays(findings),
    ):
        if table.rows:
            lines += ["", f"## {table.title}", "", *table.markdown()]
    if missing := not_run(findings):
        lines += ["", "## Not run", "", *bullets(missing)]
    lines += ["", "## Rules", "", *bullets(RULES)]
    return "\n".join(lines) + "\n"


def by_figure(findings: Findings) -> Iterator[Findings]:
    """The panels of one figure after the other."""
    for figure in dict.fromkeys(panel.figure for panel in findings.panels):
        yield replace(findings, panels=tuple(panel for panel in findings.panels if panel.figure == figure))


def _remarks_by_figure(findings: Findings) -> Iterator[str]:
    for own in by_figure(findings):
        for remark in remarks(own):
            yield f"{figure_title(own.panels[0])}: {remark}"


def _panel(panel: Panel) -> tuple[str, ...]:
    numbers = _numbers(panel, panel.deviations) if panel.deviations else ("",) * 9
    return (*_place(panel), panel.verdict, *numbers, panel.reason)


def _place(panel: Panel) -> tuple[str, str, str]:
    quantity = QUANTITIES.get(panel.quantity) or f"{panel.quantity.split('_')[0]} accuracy, %"
    return f"{_figure(panel.figure)}{panel.panel}", described(panel.algorithm).label, quantity


def _figure(name: str) -> str:
    return name.replace("fig", "Fig. ")


def _numbers(panel: Panel, deviations: Sequence[Deviation]) -> tuple[str, ...]:
    """Epoch, ours, published, deviation, margin, curve, epochs by verdict, scatter, n."""
    places = _PLACES.get(panel.quantity, 2)
    compared = [one for one in deviations if one.difference is not None]
    courses = [one.course for one in compared if one.course is not None]
    return (
        _span([one.epoch for one in deviations]),
        _means([one.ours.mean for one in deviations], [one.ours.std for one in deviations], places),
        _means([one.published.mean for one in deviations], [one.published.std for one in deviations], places),
        _deviation(compared, places),
        f"{compared[0].margin:.{places}f}" if compared else "",
        _course(courses, places),
        _epochs(courses),
        _scatter(courses, places),
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
        return with_ends(found[0][1], places, signed)
    if len(found) <= MANY_LAYERS:
        text = " / ".join(signed(interval.mean, places) for _, interval in found)
    else:
        layer, worst = max(found, key=lambda pair: abs(pair[1].mean))
        mean = fmean(abs(interval.mean) for _, interval in found)
        text = f"mean |·| {mean:.{places}f}, largest {signed(worst.mean, places)} ({layer})"
    return f"{text}; {_layer_verdicts([one.verdict for one in compared])}"


def _layer_verdicts(verdicts: Sequence[str]) -> str:
    counted = [(verdicts.count(word), word) for word in (EQUAL, UNDECIDED, DIFFERENT)]
    return "layers: " + ", ".join(f"{n} {word}" for n, word in counted if n)


def _course(courses: Sequence[Course], places: int) -> str:
    if not courses:
        return ""
    mean = fmean(one.mean for one in courses)
    absolute = fmean(one.mean_absolute for one in courses)
    largest = max(courses, key=lambda one: one.max_absolute)
    return f"{signed(mean, places)}, {absolute:.{places}f}, {largest.max_absolute:.{places}f} (epoch {largest.max_epoch})"


def _epochs(courses: Sequence[Course]) -> str:
    counts = (sum(getattr(one, word) for one in courses) for word in (EQUAL, UNDECIDED, DIFFERENT))
    return " / ".join(map(str, counts)) if courses else ""


def _scatter(courses: Sequence[Course], places: int) -> str:
    """The scatter over seeds, ours and the published, as far as it is known: mean over the layers that have one."""
    if not courses:
        return ""
    sides = ([one.spread for one in courses], [one.published_spread for one in courses])
    known = [[spread for spread in side if math.isfinite(spread)] for side in sides]
    return ", ".join(f"{fmean(side):.{places}f}" if side else "–" for side in known)


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}–{high}"
