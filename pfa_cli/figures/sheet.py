"""The layout of a training figure: accuracy and its legend on the left, angles above norm ratios on the right."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.figures import style
from pfa_cli.figures.curves import ANGLE, RATIO
from pfa_cli.figures.evidence import Comparison
from pfa_cli.figures.page import Page
from pfa_cli.figures.panels import MANY_LAYERS, accuracy_panel, alignment_panel

# Inches.
_LEFT, _TOP = 0.55, 0.4
_ACCURACY_WIDTH = 2.15
_FIRST = _LEFT + _ACCURACY_WIDTH + 0.75  # left edge of the alignment panels
_PANEL_WIDTH, _PANEL_HEIGHT = 1.62, 1.45
_GAP, _ROW_GAP = 0.2, 0.25
_BOTTOM = _TOP + 2 * _PANEL_HEIGHT + _ROW_GAP


def sheet(
    comparison: Comparison, shown: pd.DataFrame, aligned: Sequence[str], quantity: str, notes: Sequence[str]
) -> Figure:
    """Draws the rows of ``shown``; ``quantity`` is the accuracy of panel (a), ``aligned`` the other panels' algorithms."""
    page = Page(_FIRST + len(aligned) * (_PANEL_WIDTH + _GAP) + 0.1, _BOTTOM + 0.85, notes)
    _accuracy(page, shown[shown["panel"] == "a"], comparison.epochs, quantity)
    key: list[Line2D] = []
    for row, what in enumerate((ANGLE, RATIO)):
        rows = shown[shown["quantity"] == what]
        top = _top(rows, what)
        for column, name in enumerate(aligned):
            left = _FIRST + column * (_PANEL_WIDTH + _GAP)
            ax = page.axes(left, _TOP + row * (_PANEL_HEIGHT + _ROW_GAP), _PANEL_WIDTH, _PANEL_HEIGHT)
            lines = alignment_panel(ax, rows[rows["algorithm"] == name], what, comparison.epochs, top)
            key = max(key, lines, key=len)
            if not lines:
                style.say_inside(ax, _absence(comparison, name))
            if row == 0:
                ax.set_title(ALGORITHMS[name].label)
                style.label_panel(ax, "bcdefgh"[column], left=-4)
                ax.set_xlabel("")
                ax.tick_params(labelbottom=False)
            if column == 0:
                ax.set_ylabel("angle to W (degrees)" if what == ANGLE else "norm ratio to W")
            else:
                ax.tick_params(labelleft=False)
    _layer_key(page, key)
    return page.figure


def _accuracy(page: Page, curves: pd.DataFrame, epochs: int, quantity: str) -> None:
    """Panel (a), and below it the legend, which no curve can reach there."""
    legend = 0.35 + 0.15 * curves.loc[curves["source"] != "published", "algorithm"].nunique()
    ax = page.axes(_LEFT, _TOP, _ACCURACY_WIDTH, _BOTTOM - _TOP - legend - 0.1)
    split = quantity.partition("_")[0]
    lines = accuracy_panel(ax, curves, epochs, f"{split} accuracy (%)")
    style.label_panel(ax, "a")
    if lines:
        page.legend(
            _LEFT, _BOTTOM - legend + 0.42, handles=lines, title=f"at epoch {epochs} (mean ± std)",
            title_fontsize=style.SMALL, alignment="left",
        )  # fmt: skip


def _layer_key(page: Page, lines: Sequence[Line2D]) -> None:
    """Which colour is which layer: a legend, or a colour bar where there are many."""
    top = _BOTTOM + 0.42
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
