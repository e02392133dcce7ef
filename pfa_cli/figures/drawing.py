"""What a figure is drawn from, and what it gives back. A figure of one's own is a function ``Evidence -> Drawing | None``."""

from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Options:
    """``published``: draw the paper's curves too, in grey. ``validation``: validation accuracy in place of test."""

    published: bool = True
    validation: bool = False


@dataclass(frozen=True)
class Drawing:
    """A figure, and the tidy frame of all that is drawn in it, which becomes the figure's CSV file."""

    figure: Figure
    shown: pd.DataFrame
