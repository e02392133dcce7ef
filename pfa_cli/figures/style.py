"""The common look: one fixed colour per algorithm, sober axes, and files whose bytes depend on the data alone."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import is_color_like, to_hex

from pfa_cli.errors import shown as printable
from pfa_cli.registry import described, in_order

# For algorithms that declare no colour, by the order of their names. Told apart from all others with every kind of colour
# vision, as are the colours that the algorithms declare.
OTHERS = ("#000090", "#481800", "#A848F0", "#480060", "#183030")

PUBLISHED: dict[str, Any] = {"color": "#9A9A9A", "linewidth": 0.7, "zorder": 1.5}
THEORY: dict[str, Any] = {"color": "#404040", "linewidth": 0.8, "linestyle": (0, (1, 1.6)), "zorder": 1.8}
BAND_ALPHA = 0.18
SMALL = 7.0

_SETTINGS: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.2,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.labelspacing": 0.35,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "pfa",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a "$" in the name of a recipe or an algorithm is a dollar sign
}


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's defaults and ours; the user's own matplotlibrc must not change the pictures.

    A character that the font lacks, in the name of a recipe, is drawn as a box, without a warning.
    """
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def layer_colours(count: int) -> list[str]:
    """One colour per layer, from the first (dark) to the last (light), readable on white."""
    shades = mpl.colormaps["viridis"]
    return [to_hex(shades(0.88 * i / max(count - 1, 1))) for i in range(count)]


def label_panel(ax: Axes, letter: str, left: float = -36) -> None:
    """The panel's letter, bold, above its upper left corner, ``left`` points from it."""
    ax.annotate(
        letter,
        (0, 1),
        xytext=(left, 7),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=10,
        weight="bold",
    )


def say_inside(ax: Axes, text: str) -> None:
    """Words in the middle of a panel, readable over curves."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2}
    ax.text(
        0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color="#606060", bbox=box, zorder=6
    )


def colours(algorithms: Iterable[str]) -> dict[str, Any]:
    """The colour of each algorithm: its own, or one of ``OTHERS`` by the order of their names.

    >>> colours(["b", "bp", "a"]) == {"bp": "#000000", "a": OTHERS[0], "b": OTHERS[1]}
    True
    """
    names = in_order(algorithms)
    own = {name: colour for name in names if is_color_like(colour := described(name).colour)}
    others = [name for name in names if name not in own]
    return own | {name: OTHERS[i % len(OTHERS)] for i, name in enumerate(sorted(others))}


def linestyle(algorithm: str) -> str | tuple[int, Sequence[float]]:
    """Solid, but dashed for an algorithm whose curve covers another's."""
    return (0, (4, 1.5)) if described(algorithm).dashed else "-"


def shown(text: str) -> str:
    """Text of unknown origin, such as a name from a database: control characters escaped, on one line.

    matplotlib leaves a label that begins with an underscore out of legends, hence the space before it.
    """
    line = " ".join(printable(text).split("\n"))
    return f" {line}" if line.startswith("_") else line
