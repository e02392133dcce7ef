"""The two kinds of panel that Figures 2, 4 and 5 are made of. Each draws the rows of its frame (``curves.COLUMNS``)."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.figures import style
from pfa_cli.figures.curves import ANGLE

MANY_LAYERS = 6
"""With more layers than this, bands over seeds would only cover each other, and a colour bar takes the legend's place."""


def accuracy_panel(ax: Axes, curves: pd.DataFrame, epochs: int, ylabel: str) -> list[Line2D]:
    """Accuracy against epochs, a line per algorithm with its band over seeds; the lines for the legend."""
    for _, curve in _lines(curves, "published", "algorithm"):
        ax.plot(curve["epoch"], curve["mean"], **style.PUBLISHED)
    handles = []
    for name, curve in _lines(curves, "ours", "algorithm"):
        colour = style.COLOURS[name]
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
        colour = style.COLOURS[name]
        (line,) = ax.plot(curve["epoch"], curve["mean"], color=colour, linewidth=0.7)
        end = curve.iloc[-1]
        y = max(end["mean"], low)
        ax.plot(end["epoch"], y, color=colour, marker="X", markersize=5, clip_on=False, zorder=5)
        if name not in labelled:
            labelled.add(name)
            line.set_label(f"{ALGORITHMS[name].label}  diverged")
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
    return f"{ALGORITHMS[algorithm].label}  {last['mean']:.2f}{spread}  (n = {last['n']}{early})"


def _frame(ax: Axes, epochs: int) -> None:
    ax.set_xlim(0, epochs)
    ax.set_xlabel("epochs of training")
    ax.locator_params(axis="x", nbins=5, integer=True)
