"""What a figure is drawn from, and what it gives back. A figure of one's own is a function ``Evidence -> Drawing | None``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from pfa_cli.errors import UsageError

_INCHES = {"mm": 1 / 25.4, "cm": 1 / 2.54, "in": 1.0}
_WIDTHS = (40, 1000)  # millimetres


@dataclass(frozen=True)
class Options:
    """How figures are drawn.

    ``published``: the paper's curves too, in grey. ``validation``: validation accuracy in place of test. ``algorithms``: these
    in place of the figure's own. ``panels``: these letters only. ``width`` in inches (183 mm: two columns of a journal),
    ``font_size`` in points, ``dpi`` of PNG files. ``style``: a matplotlib style file, read after the common look.
    ``runs_note``: which runs are shown, where these are not all; written below the figure.
    """

    published: bool = True
    validation: bool = False
    algorithms: Sequence[str] = ()
    panels: Sequence[str] = ()
    notes: bool = True
    width: float = 183 / 25.4
    font_size: float | None = None
    dpi: float | None = None
    style: Path | None = None
    runs_note: str = ""

    def chosen(self, name: str, letters: Sequence[str]) -> list[str]:
        """Which of a figure's panels are drawn; UsageError if it has not all that were asked for."""
        if unknown := [letter for letter in self.panels if letter not in letters]:
            raise UsageError(f"{name} has no panel {', '.join(unknown)}; it has {', '.join(letters)}")
        return [letter for letter in letters if not self.panels or letter in self.panels]


@dataclass(frozen=True)
class Drawing:
    """A figure, and the tidy frame of all that is drawn in it, which becomes the figure's CSV file."""

    figure: Figure
    shown: pd.DataFrame


def inches(text: str) -> float:
    """A width such as 89mm, 8.9cm or 3.5in; UsageError if it is none, or none that a figure can have.

    >>> round(inches("89mm"), 3), inches("3.5in")
    (3.504, 3.5)
    """
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(mm|cm|in)\s*", text)
    width = float(found[1]) * _INCHES[found[2]] if found else 0.0
    if not _WIDTHS[0] <= round(25.4 * width, 6) <= _WIDTHS[1]:
        raise UsageError(
            f"--width {text}: give {_WIDTHS[0]}mm to {_WIDTHS[1]}mm, for example 89mm, 18.3cm or 3.5in"
        )
    return width
