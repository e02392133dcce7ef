"""A training figure: accuracy and its legend on the left, the alignment of every layer on the right, notes below.

Figures 2, 4 and 5 are such figures, and every recipe has one. Panel (a) is the accuracy; each further panel shows one
algorithm: angles above, norm ratios below. What is drawn are the rows of one tidy frame (``analysis.curves``).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.lines import Line2D

from pfa_cli.analysis.curves import accuracy_curves, accuracy_quantity, alignment_curves, limits, panel_letter
from pfa_cli.analysis.evidence import Comparison, Evidence
from pfa_cli.analysis.paper import Figure, paper
from pfa_cli.analysis.published import ANGLE, RATIO
from pfa_cli.analysis.words import MANY_LAYERS, cohort_notes, data_note, labels
from pfa_cli.figures import style
from pfa_cli.figures.drawing import Drawing, Options
from pfa_cli.figures.page import Page
from pfa_cli.registry import described, in_order

# Inches.
_LEFT, _TOP = 0.55, 0.4
_ACCURACY_WIDTH = 2.15
_FIRST = _LEFT + _ACCURACY_WIDTH + 0.75  # left edge of the alignment panels
_PANEL_WIDTH, _PANEL_HEIGHT = 1.62, 1.45
_GAP, _ROW_GAP = 0.2, 0.25
_BOTTOM = _TOP + 2 * _PANEL_HEIGHT + _ROW_GAP
_BLOCK = _BOTTOM + 0.3  # from one block of panels to the next
_ACROSS = 5  # alignment panels beside each other; more go into a further block


def draw(name: str, declared: Figure, evidence: Evidence, options: Options) -> Drawing | None:
    """The figure as declared, or None if no algorithm of it was run."""
    comparison = evidence.comparison(declared.recipe)
    if comparison is None:
        return None
    others = [one for one in comparison.cohorts if one not in paper().algorithms] if declared.others else []
    accuracy, aligned = [*declared.accuracy, *others], [*declared.alignment, *others]
    wanted = in_order([*accuracy, *aligned])
    if not set(wanted) & set(comparison.cohorts) - {declared.reference}:
        return None
    quantity = accuracy_quantity(comparison, validation=options.validation)
    parts = [
        accuracy_curves(comparison, accuracy, quantity, with_published=options.published),
        alignment_curves(comparison, aligned, with_published=options.published),
    ]
    shown = pd.concat([part for part in parts if len(part)], ignore_index=True)
    shown.insert(0, "figure", name)
    notes = _what_is_drawn(comparison, shown)
    if options.validation and quantity.startswith("test"):
        notes.append("No validation accuracy was recorded: (a) shows test accuracy.")
    failed = [name for name in aligned if (own := comparison.cohorts.get(name)) and limits(own) is None]
    if failed:
        notes.append(f"Not drawn, since the function that computes them fails: limits of {labels(failed)}.")
    notes += cohort_notes(comparison, wanted)
    first = shown[shown["panel"] == "a"]
    legend = 0.35 + 0.15 * first.loc[first["source"] != "published", "algorithm"].nunique()
    below = (-(-len(aligned) // _ACROSS) - 1) * _BLOCK if aligned else 0.0  # further blocks of panels
    height = max(_BOTTOM - _TOP - legend - 0.1 + below / 2, _PANEL_HEIGHT)
    bottom = max(_BOTTOM + below, _TOP + height + legend + 0.1)
    page = Page(_FIRST + min(len(aligned), _ACROSS) * (_PANEL_WIDTH + _GAP) + 0.1, bottom + 0.85, notes)
    _accuracy(page, first, comparison.epochs, quantity, height, style.colours(evidence.runs["algorithm"]))
    _alignment(page, shown, comparison, aligned, _BOTTOM + below + 0.42)
    return Drawing(page.figure, shown)


def declaration(evidence: Evidence, recipe: str) -> Figure:
    """A figure of all algorithms that this recipe was run with; BP, which is aligned by definition, has no panel."""
    comparison = evidence.comparison(recipe)
    names = tuple(comparison.cohorts) if comparison else ()
    return Figure(
        title=f"Recipe {recipe}.",
        command=f"pfa run {recipe}",
        recipe=recipe,
        accuracy=names,
        alignment=tuple(name for name in names if name != "bp"),
    )


def _what_is_drawn(comparison: Comparison, shown: pd.DataFrame) -> list[str]:
    many = shown.loc[shown["source"] == "ours", "layer_index"].nunique() > MANY_LAYERS
    bands = "bands, drawn in (a) only," if many else "bands"
    notes = [
        f"{data_note(comparison)} Lines are means over seeds, {bands} their standard deviation (ddof = 1).",
        "Dotted: limits after learning (Propositions 1 and 3; KP is PFA with B = I), else BP's norm ratio 1.",
    ]
    panels = set(shown.loc[shown["source"] == "published", "panel"])
    if panels:
        experiment = paper().experiments[comparison.recipe]
        kind = experiment.accuracy.partition("_")[0]
        details = [
            "alignment: seed 0 only" if panels != {"a"} else "",
            f"accuracy: of the {kind} images" if kind != "test" and "a" in panels else "",
            experiment.alignment_remark if panels != {"a"} else "",
            experiment.remark,
        ]
        said = "; ".join(filter(None, details))
        notes.append(f"Grey: published curves{f' ({said})' if said else ''}.")
    return notes


def _accuracy(
    page: Page, curves: pd.DataFrame, epochs: int, quantity: str, height: float, colours: Mapping[str, str]
) -> None:
    """Panel (a), and below it the legend, which no curve can reach there."""
    ax = page.axes(_LEFT, _TOP, _ACCURACY_WIDTH, height)
    lines = accuracy_panel(ax, curves, epochs, f"{quantity.partition('_')[0]} accuracy (%)", colours)
    style.label_panel(ax, "a")
    if lines:
        page.legend(
            _LEFT, _TOP + height + 0.52, handles=lines, title=f"at epoch {epochs} (mean ± std)",
            title_fontsize=style.SMALL, alignment="left",
        )  # fmt: skip


def _alignment(
    page: Page, shown: pd.DataFrame, comparison: Comparison, aligned: Sequence[str], bottom: float
) -> None:
    """Panels (b), (c), …, and below them which colour is which layer."""
    key: list[Line2D] = []
    for row, quantity in enumerate((ANGLE, RATIO)):
        rows = shown[shown["quantity"] == quantity]
        top = _top(rows, quantity)
        for number, name in enumerate(aligned):
            block, column = divmod(number, _ACROSS)
            down = _TOP + block * _BLOCK + row * (_PANEL_HEIGHT + _ROW_GAP)
            ax = page.axes(_FIRST + column * (_PANEL_WIDTH + _GAP), down, _PANEL_WIDTH, _PANEL_HEIGHT)
            lines = alignment_panel(ax, rows[rows["algorithm"] == name], quantity, comparison.epochs, top)
            key = max(key, lines, key=len)
            if not lines:
                style.say_inside(ax, _absence(comparison, name))
            if row == 0:
                ax.set_title(style.shown(described(name).label))
                style.label_panel(ax, panel_letter(number + 1), left=-4)
                ax.set_xlabel("")
                ax.tick_params(labelbottom=False)
            if column == 0:
                ax.set_ylabel("angle to W (degrees)" if quantity == ANGLE else "norm ratio to W")
            else:
                ax.tick_params(labelleft=False)
    _layer_key(page, key, bottom)


def _layer_key(page: Page, lines: Sequence[Line2D], top: float) -> None:
    """Which colour is which layer: a legend, or a colour bar where there are many."""
    if 0 < len(lines) <= MANY_LAYERS:
        page.legend(_FIRST, top, handles=lines, ncols=len(lines))
    elif lines:
        ax = page.axes(_FIRST + 0.4, top + 0.05, 2.2, 0.09)
        colours = ScalarMappable(
            Normalize(0.5, len(lines) + 0.5), ListedColormap(style.layer_colours(len(lines)))
        )
        page.figure.colorbar(colours, cax=ax, orientation="horizontal", ticks=[1, len(lines)])
        ax.tick_params(length=2, pad=1)
        ax.set_ylabel("layer", rotation=0, ha="right", va="center", fontsize=style.SMALL)


def _absence(comparison: Comparison, algorithm: str) -> str:
    if algorithm in comparison.elsewhere:
        return "run with\nother settings"
    if algorithm not in comparison.cohorts:
        return "not run"
    return "diverged" if comparison.cohorts[algorithm].pooled.empty else "not defined"


def _top(rows: pd.DataFrame, quantity: str) -> float:
    """The upper end of the axis that all panels of a quantity share."""
    least = 95.0 if quantity == ANGLE else 1.25
    return max(least, 1.05 * float(rows["mean"].max())) if len(rows) else least


def accuracy_panel(
    ax: Axes, curves: pd.DataFrame, epochs: int, ylabel: str, colours: Mapping[str, str]
) -> list[Line2D]:
    """Accuracy against epochs, a line per algorithm with its band over seeds; the lines for the legend."""
    for _, curve in _lines(curves, "published", "algorithm"):
        ax.plot(curve["epoch"], curve["mean"], **style.PUBLISHED)
    handles = []
    for name, curve in _lines(curves, "ours", "algorithm"):
        colour = colours[name]
        _band(ax, curve, colour)
        (line,) = ax.plot(
            curve["epoch"], curve["mean"], color=colour, linestyle=style.linestyle(name), marker=_marker(curve),
            markersize=3, clip_on=False,
        )  # fmt: skip
        line.set_label(_legend(name, curve, epochs))
        handles.append(line)
    low, high = _limits(curves)
    labelled = set(curves.loc[curves["source"] == "ours", "algorithm"])
    for (name, _), curve in _lines(curves, "diverged", ["algorithm", "run_ids"]):
        colour = colours[name]
        (line,) = ax.plot(curve["epoch"], curve["mean"], color=colour, linewidth=0.7)
        end = curve.iloc[-1]
        y = max(end["mean"], low)
        ax.plot(end["epoch"], y, color=colour, marker="X", markersize=5, clip_on=False, zorder=5)
        if name not in labelled:
            labelled.add(name)
            line.set_label(style.shown(f"{described(name).label}  diverged"))
            handles.append(line)
    ax.set_ylim(low, high)
    _frame(ax, epochs)
    ax.set_ylabel(ylabel)
    return handles


def alignment_panel(ax: Axes, curves: pd.DataFrame, quantity: str, epochs: int, top: float) -> list[Line2D]:
    """Angle or norm ratio against epochs, a line per layer coloured by depth; the lines for the legend.

    ``top`` is the upper end of the axis, which a figure's panels share.
    """
    for _, curve in _lines(curves, "published", "layer_index"):
        ax.plot(curve["epoch"], curve["mean"], **style.PUBLISHED)
    for _, curve in _lines(curves, "theory", "quantity"):
        ax.plot(curve["epoch"], curve["mean"], **style.THEORY)
    ours = list(_lines(curves, "ours", "layer_index"))
    count = max((int(index) for index, _ in ours), default=-1) + 1
    colours = style.layer_colours(count)
    handles = []
    for index, curve in ours:
        colour = colours[int(index)]
        if count <= MANY_LAYERS:
            _band(ax, curve, colour)
        width = 1.2 if count <= MANY_LAYERS else 0.8
        (line,) = ax.plot(
            curve["epoch"], curve["mean"], color=colour, linewidth=width, marker=_marker(curve), markersize=2.5,
            clip_on=False, label=f"layer {int(index) + 1}",
        )  # fmt: skip
        handles.append(line)
    _frame(ax, epochs)
    ax.set_ylim(-0.02 * top, top)
    ax.locator_params(axis="y", nbins=6)
    if quantity == ANGLE:
        ax.set_yticks([0, 30, 60, 90])
    return handles


def _limits(curves: pd.DataFrame) -> tuple[float, float]:
    """The accuracies to show: a run that diverged must not flatten the curves of the others."""
    rows = curves[curves["source"] != "diverged"]
    rows = curves if rows.empty else rows
    if rows.empty:
        return 0.0, 100.0
    spread = rows["std"].where(rows["source"] == "ours", 0.0).fillna(0.0)
    low, high = float((rows["mean"] - spread).min()), float((rows["mean"] + spread).max())
    pad = 0.04 * (high - low) or 1.0
    return max(low - pad, 0.0), min(high + pad, 100.0)


def _lines(curves: pd.DataFrame, source: str, by: str | list[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    return iter(curves[curves["source"] == source].groupby(by, sort=False))


def _band(ax: Axes, curve: pd.DataFrame, colour: str) -> None:
    shown = curve[curve["std"].notna()]
    if len(shown):
        low, high = shown["mean"] - shown["std"], shown["mean"] + shown["std"]
        ax.fill_between(shown["epoch"], low, high, color=colour, alpha=style.BAND_ALPHA, linewidth=0)


def _marker(curve: pd.DataFrame) -> str:
    return "o" if len(curve) <= 3 else ""  # a line of one point would not be seen


def _legend(algorithm: str, curve: pd.DataFrame, epochs: int) -> str:
    last = curve.iloc[-1]
    spread = "" if pd.isna(last["std"]) else f" ± {last['std']:.2f}"
    early = "" if last["epoch"] == epochs else f", epoch {last['epoch']}"
    return style.shown(f"{described(algorithm).label}  {last['mean']:.2f}{spread}  (n = {last['n']}{early})")


def _frame(ax: Axes, epochs: int) -> None:
    ax.set_xlim(0, epochs)
    ax.set_xlabel("epochs of training")
    ax.locator_params(axis="x", nbins=5, integer=True)
