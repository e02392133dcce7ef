"""A training figure: accuracy and its legend on the left, the alignment of every layer on the right, notes below.

Figures 2, 4 and 5 are such figures, and every recipe has one. Panel (a) is the accuracy; each further panel shows one
algorithm: angles above, norm ratios below. What is drawn are the rows of one tidy frame (``analysis.curves``).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pfa_cli.analysis.curves import (
    accuracy_curves,
    accuracy_quantity,
    alignment_curves,
    limits,
    panel_letter,
    variant_curves,
)
from pfa_cli.analysis.evidence import Comparison, Evidence
from pfa_cli.analysis.paper import Figure, paper
from pfa_cli.analysis.published import ANGLE, RATIO
from pfa_cli.analysis.table1 import CONTROL
from pfa_cli.analysis.words import MANY_LAYERS, absent, cohort_notes, data_note, labels
from pfa_cli.errors import PfaError
from pfa_cli.figures import style
from pfa_cli.figures.drawing import Drawing, Options
from pfa_cli.figures.page import page
from pfa_cli.registry import described, in_order

_COLUMN = 4.5  # inches: a narrower figure has its panels below one another
_SHARE = 0.31  # of the width, for panel (a)
_PANEL = 0.95  # inches, the least width of a panel of the alignment
_BLOCK, _LINE = 2.9, 0.13  # inches: height of a row of panels with its legend, and of a line of a legend
_FEW_WIDTH = 1.2  # points: the width of a layer's line where layers are few
_ZOOM = 0.2  # the end of the curves is enlarged where it takes less than this part of the axis

_Curve = npt.NDArray[np.float64]  # a row for each point: epoch, mean, std, n


def draw(name: str, declared: Figure, evidence: Evidence, options: Options) -> Drawing | None:
    """The figure as declared, or None if no algorithm of it was run. PfaError if they were with other settings only."""
    comparison = evidence.comparison(declared.recipe, tuple(options.algorithms))
    if comparison is None:
        return None
    accuracy, aligned = _algorithms(declared, comparison, options)
    wanted = in_order([*accuracy, *aligned])
    if not set(wanted) & set(comparison.cohorts) - {declared.reference}:
        if elsewhere := [name for name in wanted if name in comparison.elsewhere]:
            raise PfaError(
                f"{name}: {absent(comparison, elsewhere)}; `--recipe {declared.recipe} --algos {','.join(elsewhere)}` "
                "draws these"
            )
        return None
    quantity = accuracy_quantity(comparison, validation=options.validation)
    letters = options.chosen(name, [panel_letter(number) for number in range(1 + len(aligned))])
    parts = [
        accuracy_curves(comparison, accuracy, quantity, with_published=options.published),
        alignment_curves(comparison, aligned, with_published=options.published),
        *(variant_curves(comparison, n, o, quantity) for n, o in declared.variants.items() if n in accuracy),
    ]
    shown = pd.concat([part for part in parts if len(part)], ignore_index=True)
    shown.insert(0, "figure", name)
    shown = shown[shown["panel"].isin(letters)]
    notes = _notes(comparison, shown, quantity, accuracy, aligned, options)
    first = shown[shown["panel"] == "a"]
    panels = {
        letter: one for number, one in enumerate(aligned, 1) if (letter := panel_letter(number)) in letters
    }
    side = options.width if options.width < _COLUMN or "a" not in letters else (1 - _SHARE) * options.width
    across = max(1, min(len(panels), int((side - 0.3) / _PANEL)))
    heights = [
        2.2 + _LINE * first["algorithm"].nunique() if "a" in letters else 0.0,
        _BLOCK * math.ceil(len(panels) / across) + 0.2 if panels else 0.0,
    ]
    narrow = side == options.width
    figure, content = page(sum(heights) if narrow else max(heights), notes, options)
    left = right = content
    if all(heights):
        if narrow:
            left, right = content.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
        else:
            left, right = content.subfigures(1, 2, squeeze=False, width_ratios=(_SHARE, 1 - _SHARE))[0]
    if heights[0]:
        label = f"{quantity.partition('_')[0]} accuracy (%)"
        _accuracy(left, first, comparison.epochs, label, style.colours(evidence.runs["algorithm"]))
    if heights[1]:
        _alignment(right, shown, comparison, panels, across)
    return Drawing(figure, shown)


def declaration(evidence: Evidence, recipe: str) -> Figure:
    """A figure of all algorithms that this recipe was run with."""
    comparison = evidence.comparison(recipe)
    names = tuple(comparison.cohorts) if comparison else ()
    return Figure(
        title=f"Recipe {recipe}.",
        command=f"pfa run {recipe}",
        recipe=recipe,
        accuracy=names,
        alignment=tuple(name for name in names if _has_path(name)),
    )


def _algorithms(
    declared: Figure, comparison: Comparison, options: Options
) -> tuple[Sequence[str], Sequence[str]]:
    """Those of panel (a), and those that have a panel of their own."""
    if options.algorithms:
        return options.algorithms, [name for name in options.algorithms if _has_path(name)]
    others = []
    if declared.others:
        others = [name for name in comparison.cohorts if name not in paper().algorithms and name != "readout"]
    return [*declared.accuracy, *others], [*declared.alignment, *others]


def _has_path(algorithm: str) -> bool:
    """Whether its alignment can be shown: BP is aligned by definition, and the control sends no error down."""
    return algorithm not in ("bp", CONTROL)


def _notes(
    comparison: Comparison, shown: pd.DataFrame, quantity: str, accuracy: Sequence[str], aligned: Sequence[str],
    options: Options,
) -> list[str]:  # fmt: skip
    many = shown.loc[shown["source"] == "ours", "layer_index"].nunique() > MANY_LAYERS
    bands = "bands, drawn in (a) only," if many else "bands"
    notes = [
        f"{data_note(comparison)} Lines are means over seeds, {bands} their standard deviation (ddof = 1)."
    ]
    if "theory" in set(shown["source"]):
        notes.append(
            "Dotted: limits after learning (Propositions 1 and 3; KP is PFA with B = I), else BP's norm ratio 1."
        )
    published = shown[shown["source"] == "published"]
    panels = set(published["panel"])
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
        notes.append(f"Grey, dashed: published curves{f' ({said})' if said else ''}.")
        drawn = set(published.loc[published["panel"] == "a", "algorithm"])
        notes += [note for name, note in experiment.notes.items() if name in drawn]
    for (name, kind), _ in _lines(shown, "variant", ["algorithm", "statistic"]):
        notes.append(f"Dash-dotted: {described(name).label}, {kind.partition(', ')[2]}.")
    if options.validation and quantity.startswith("test"):
        notes.append("No validation accuracy was recorded: (a) shows test accuracy.")
    failed = [name for name in aligned if (own := comparison.cohorts.get(name)) and limits(own) is None]
    if failed:
        notes.append(f"Not drawn, since the function that computes them fails: limits of {labels(failed)}.")
    variants = shown.loc[shown["source"] == "variant", "config_hash"].unique()
    return notes + cohort_notes(comparison, in_order([*accuracy, *aligned]), variants)


def _accuracy(
    part: SubFigure, curves: pd.DataFrame, epochs: int, label: str, colours: Mapping[str, str]
) -> None:
    """Panel (a), its end enlarged where all curves end close together, and below it the legend."""
    ends = _ends(curves)
    axes = part.subplots(2 if ends else 1, 1, sharex=True, squeeze=False)[:, 0]
    lines = accuracy_panel(axes[0], curves, epochs, colours)
    style.label_panel(axes[0], "a")
    if ends:
        axes[0].axhspan(*ends, **style.SHADE)
        style.bare(axes[0].xaxis)
        accuracy_panel(axes[1], curves, epochs, colours)
        axes[1].set_ylim(*ends)
        axes[1].set_title("the shaded part, enlarged", fontsize="small")
        for drawn in axes[1].lines:
            drawn.set_clip_on(True)
    if lines:
        scatter = " (mean ± std)" if any("±" in str(line.get_label()) for line in lines) else ""
        lines += _published_line(curves)
        part.legend(
            handles=lines, title=f"at epoch {epochs}{scatter}", alignment="left", loc="outside lower left"
        )
    small = FontProperties(size=rcParams["legend.fontsize"]).get_size_in_points() / 72  # inches
    legend = (len(lines) + 1) * 1.5 * small * part.dpi / part.bbox.height if lines else 0.0
    part.supylabel(
        label, y=(1 + min(legend, 0.8)) / 2, fontsize="medium"
    )  # beside the axes, above the legend


def _ends(curves: pd.DataFrame) -> tuple[float, float] | None:
    """The range in which all curves end, if it is a small part of all that is shown."""
    ours = curves[curves["source"] == "ours"]
    last = ours[ours["epoch"] == ours.groupby("algorithm")["epoch"].transform("max")]
    if last["algorithm"].nunique() < 2:
        return None
    spread = last["std"].fillna(0.0)
    low, high = float((last["mean"] - spread).min()), float((last["mean"] + spread).max())
    whole = _limits(curves)
    if not 0 < high - low < _ZOOM * (whole[1] - whole[0]):
        return None
    return max(low - 0.5 * (high - low), 0.0), min(high + 0.25 * (high - low), 100.0)


def _alignment(
    part: SubFigure, shown: pd.DataFrame, comparison: Comparison, panels: Mapping[str, str], across: int
) -> None:
    """Panels (b), (c), …, and below them which colour is which layer."""
    blocks = math.ceil(len(panels) / across)
    axes = part.subplots(2 * blocks, across, squeeze=False)
    layers = 0
    numbers = ["source", "algorithm", "quantity", "layer_index", "epoch", "mean", "std", "n"]
    for row, quantity in enumerate((ANGLE, RATIO)):
        rows = shown.loc[shown["quantity"] == quantity, numbers]
        top = _top(rows, quantity)
        for number, (letter, name) in enumerate(panels.items()):
            block, column = divmod(number, across)
            ax = axes[2 * block + row, column]
            own = rows[rows["algorithm"] == name]
            drawn = alignment_panel(ax, own, quantity, comparison.epochs, top)
            layers = max(layers, drawn)
            if not drawn:
                style.say_inside(ax, _absence(comparison, name))
            if row == 0:
                ax.set_title(style.shown(described(name).label))
                style.label_panel(ax, letter)
                style.bare(ax.xaxis)
            if column == 0:
                ax.set_ylabel("angle to W (°)" if quantity == ANGLE else "norm ratio to W")
            else:
                style.bare(ax.yaxis)
    unused = axes[-2:, len(panels) - across * (blocks - 1) :].ravel()
    for ax in unused:
        ax.remove()
    beside = _published_line(shown[shown["panel"] != "a"]) + _limit_line(shown)
    key: list[Line2D] = []
    if layers > MANY_LAYERS:
        used = [ax for ax in axes.ravel() if ax not in set(unused)]
        _layer_bar(part, used, layers)
    else:
        for number, colour in enumerate(style.layer_colours(layers), start=1):
            key.append(Line2D([], [], color=colour, linewidth=_FEW_WIDTH, label=f"layer {number}"))
    if key or beside:
        part.legend(handles=[*key, *beside], ncols=len(key) + len(beside), loc="outside lower left")


def _layer_bar(part: SubFigure, axes: Sequence[Axes], layers: int) -> None:
    """Which colour is which of many layers."""
    colours = ScalarMappable(Normalize(0.5, layers + 0.5), ListedColormap(style.layer_colours(layers)))
    bar = part.colorbar(
        colours, ax=axes, location="bottom", ticks=[1, layers], shrink=0.4, aspect=30, pad=0.02
    )
    bar.ax.tick_params(length=2, pad=1)
    bar.ax.set_ylabel("layer", rotation=0, ha="right", va="center", fontsize="small")


def _published_line(curves: pd.DataFrame) -> list[Line2D]:
    return (
        [Line2D([], [], label="published", **style.PUBLISHED)] if "published" in set(curves["source"]) else []
    )


def _limit_line(shown: pd.DataFrame) -> list[Line2D]:
    return [Line2D([], [], label="limit", **style.THEORY)] if "theory" in set(shown["source"]) else []


def _absence(comparison: Comparison, algorithm: str) -> str:
    if algorithm in comparison.elsewhere:
        return "run with\nother settings"
    if algorithm not in comparison.cohorts:
        return "not run"
    return "diverged" if comparison.cohorts[algorithm].pooled.empty else "not defined"


def _top(rows: pd.DataFrame, quantity: str) -> float:
    """The upper end of the axis that all panels of a quantity share."""
    finite = rows.loc[np.isfinite(rows["mean"]), "mean"]
    return max(95.0 if quantity == ANGLE else 1.25, 1.05 * finite.max() if len(finite) else 0.0)


def accuracy_panel(ax: Axes, curves: pd.DataFrame, epochs: int, colours: Mapping[str, str]) -> list[Line2D]:
    """Accuracy against epochs, a line per algorithm with its band over seeds; the lines for the legend."""
    for _, curve in _lines(curves, "published", "algorithm"):
        _plot(ax, curve, **style.PUBLISHED)
    handles = []
    for name, curve in _lines(curves, "ours", "algorithm"):
        colour = colours[name]
        _band(ax, curve, colour)
        line = _plot(
            ax, curve, color=colour, linestyle=style.linestyle(name), marker=_marker(curve), markersize=3, clip_on=False
        )  # fmt: skip
        line.set_label(_legend(described(name).label, curve, epochs))
        handles.append(line)
    for (name, kind), curve in _lines(curves, "variant", ["algorithm", "statistic"]):
        line = _plot(ax, curve, color=colours[name], linewidth=0.9, linestyle="-.")
        line.set_label(_legend(f"{described(name).label}, {kind.split(', ')[1]}", curve, epochs))
        handles.append(line)
    low, high = _limits(curves)
    labelled = set(curves.loc[curves["source"] == "ours", "algorithm"])
    for (name, _), curve in _lines(curves, "diverged", ["algorithm", "run_ids"]):
        colour = colours[name]
        line = _plot(ax, curve, color=colour, linewidth=0.7)
        epoch, end = curve[-1, :2]
        ax.plot(epoch, max(end, low), color=colour, marker="X", markersize=5, clip_on=False, zorder=5)
        if name not in labelled:
            labelled.add(name)
            line.set_label(style.shown(f"{described(name).label}  diverged"))
            handles.append(line)
    ax.set_ylim(low, high)
    _frame(ax, epochs)
    return handles


def alignment_panel(ax: Axes, curves: pd.DataFrame, quantity: str, epochs: int, top: float) -> int:
    """Angle or norm ratio against epochs, a line per layer coloured by depth; the number of layers.

    ``top`` is the upper end of the axis, which a figure's panels share.
    """
    _bundle(ax, (curve for _, curve in _lines(curves, "published", "layer_index")), **style.PUBLISHED)
    _bundle(ax, (curve for _, curve in _lines(curves, "theory", "quantity")), **style.THEORY)
    ours = {int(index): curve for index, curve in _lines(curves, "ours", "layer_index")}
    layers = max(ours, default=-1) + 1
    colours = style.layer_colours(layers)
    if layers > MANY_LAYERS:
        shades = [colours[index] for index in ours]
        _bundle(ax, ours.values(), color=shades, linewidth=0.8, capstyle="round", clip_on=False)
    for index, curve in ours.items():
        marker = _marker(curve)
        if layers <= MANY_LAYERS:
            _band(ax, curve, colours[index])
            _plot(
                ax, curve, color=colours[index], linewidth=_FEW_WIDTH, marker=marker, markersize=2.5, clip_on=False
            )  # fmt: skip
        elif marker:
            _plot(ax, curve, color=colours[index], linestyle="", marker=marker, markersize=2.5, clip_on=False)
    _frame(ax, epochs)
    ax.set_ylim(-0.02 * top, top)
    if quantity == ANGLE:
        ax.set_yticks([0, 30, 60, 90])
    else:
        _set_ticks(ax.yaxis, 6)
    return layers


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


def _lines(curves: pd.DataFrame, source: str, by: str | list[str]) -> Iterator[tuple[Any, _Curve]]:
    """The curves of one source by what tells them apart."""
    rows = curves[curves["source"] == source]
    points = rows[["epoch", "mean", "std", "n"]].to_numpy(float)
    for key, places in rows.groupby(by, sort=False).indices.items():
        yield key, points[places]


def _plot(ax: Axes, curve: _Curve, **look: Any) -> Line2D:
    (line,) = ax.plot(*curve.T[:2], **look)
    line.set_in_layout(False)  # it lies inside the axes: the layout need not measure it
    return line


def _bundle(ax: Axes, curves: Iterable[_Curve], **look: Any) -> None:
    """Curves as one object, which takes a small part of the time of as many lines."""
    lines = LineCollection([curve[:, :2] for curve in curves], **look)
    lines.set_in_layout(False)
    ax.add_collection(lines, autolim=False)


def _band(ax: Axes, curve: _Curve, colour: str) -> None:
    epochs, mean, std, _ = curve[~np.isnan(curve[:, 2])].T
    if len(epochs):
        ax.fill_between(epochs, mean - std, mean + std, color=colour, alpha=style.BAND_ALPHA, linewidth=0)


def _marker(curve: _Curve) -> str:
    return "o" if len(curve) <= 3 else ""  # a line of one point would not be seen


def _legend(label: str, curve: _Curve, epochs: int) -> str:
    epoch, mean, std, n = curve[-1]
    spread = "" if math.isnan(std) else f" ± {std:.2f}"
    early = "" if epoch == epochs else f", epoch {epoch:.0f}"
    return style.shown(f"{label}  {mean:.2f}{spread}  (n = {n:.0f}{early})")


def _frame(ax: Axes, epochs: int) -> None:
    ax.set_xlim(0, epochs)
    ax.set_xlabel("epochs of training")
    _set_ticks(ax.xaxis, 5, integer=True)


def _set_ticks(axis: Axis, most: int, *, integer: bool = False) -> None:
    """The ticks in view, once for all: matplotlib would look for them eight times, and make those out of view too."""
    low, high = axis.get_view_interval()
    ticks = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10], integer=integer).tick_values(low, high)
    axis.set_ticks([tick for tick in ticks if low <= tick <= high])
