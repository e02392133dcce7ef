"""The common look: one fixed colour per algorithm, sober axes, and files whose bytes depend on the data alone."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import is_color_like, to_hex

from pfa_cli.errors import PfaError, UsageError
from pfa_cli.errors import shown as printable
from pfa_cli.figures.drawing import Options
from pfa_cli.files import refuse_special
from pfa_cli.registry import described, in_order

# For algorithms that declare no colour, by the order of their names. Told apart from all others with every kind of colour
# vision, as are the colours that the algorithms declare.
OTHERS = ("#000090", "#481800", "#A848F0", "#480060", "#183030")

# A bluish grey: neutral ones of this lightness look like PAL's colour, or SF's, with red-green colour blindness.
PUBLISHED: dict[str, Any] = {"color": "#606080", "linewidth": 0.6, "linestyle": (0, (5, 1.5)), "zorder": 1.5}
THEORY: dict[str, Any] = {"color": "#404040", "linewidth": 0.8, "linestyle": (0, (1, 1.6)), "zorder": 1.8}
SHADE: dict[str, Any] = {"facecolor": "#ECECF2", "edgecolor": "none", "zorder": 0}
BAND_ALPHA = 0.18
FONT_SIZE = 7.5
_NO_ROOM = "constrained_layout not applied"  # how matplotlib's warning begins

_SETTINGS: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": FONT_SIZE,
    "axes.titlesize": "medium",
    "axes.titley": 1.0,  # no ticks are above an axis: matplotlib need not look for them, which takes long
    "xtick.labelsize": "small",
    "ytick.labelsize": "small",
    "legend.fontsize": "small",
    "legend.title_fontsize": "small",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.labelspacing": 0.35,
    "figure.constrained_layout.w_pad": 0.03,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.dpi": 300,  # at which the layout is measured
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "pfa",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a "$" in the name of a recipe or an algorithm is a dollar sign
}


@contextmanager
def house_style(options: Options) -> Iterator[None]:
    """Matplotlib's defaults, ours, and what was asked for; the user's own matplotlibrc must not change the pictures.

    A character that the font lacks, in the name of a recipe, is drawn as a box, without a warning. UsageError if the style
    file cannot be read or nothing can be drawn with it, or if the labels leave no room for the axes.
    """
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        warnings.filterwarnings("error", _NO_ROOM)
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS | {"figure.figsize": (options.width, 0.6 * options.width)})
        if options.style is not None:
            mpl.rcParams.update(_style_file(options.style))
        asked: Any = {"font.size": options.font_size, "savefig.dpi": options.dpi}
        mpl.rcParams.update({key: value for key, value in asked.items() if value is not None})
        try:
            yield
        except PfaError:
            raise
        except Exception as error:
            if isinstance(error, UserWarning) and str(error).startswith(_NO_ROOM):
                raise UsageError(
                    "the labels leave no room to draw: a larger --width or a smaller --font-size"
                ) from error
            if options.style is None:
                raise
            raise UsageError(
                f"--style {options.style}: nothing can be drawn with it ({type(error).__name__}: {error})"
            ) from error


def _style_file(path: Path) -> mpl.RcParams:
    try:
        refuse_special(path)
        return mpl.rc_params_from_file(path, fail_on_error=True, use_default_template=False)
    except Exception as error:  # matplotlib raises what its validators raise
        raise UsageError(f"--style {path}: not a matplotlib style file: {error}") from error


def layer_colours(count: int) -> list[str]:
    """One colour per layer, from the first (dark) to the last (light), with a contrast of 3 to white at least."""
    shades = mpl.colormaps["plasma"]
    return [to_hex(shades(0.63 * i / max(count - 1, 1))) for i in range(count)]


def label_panel(ax: Axes, letter: str) -> None:
    """The panel's letter, bold, above its upper left corner."""
    ax.set_title(letter, loc="left", fontsize="large", weight="bold", x=-0.1)


def bare(axis: Axis) -> None:
    """An axis without words. matplotlib need not look for the place of its label, nor measure it for the layout."""
    axis.set_label_text("")
    axis.set_label_coords(0, 0)
    axis.set_tick_params(label1On=False)
    axis.set_in_layout(False)


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
