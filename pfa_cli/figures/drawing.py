"""What a figure module is asked for, and what it gives back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

_REAL = ("expansion", "mean", "std")
_WHOLE = ("layer_index", "epoch", "n")


@dataclass(frozen=True)
class Wishes:
    """``published``: draw the paper's curves too, in grey. ``validation``: validation accuracy in place of test."""

    published: bool = True
    validation: bool = False


@dataclass(frozen=True)
class Drawing:
    """A figure, and the tidy frame of all that is drawn in it."""

    figure: Figure
    shown: pd.DataFrame


def tidy(frames: Iterable[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """The frames' rows with exactly these columns, numbers as numbers; a column that a frame lacks is empty there."""
    rows = [frame.reindex(columns=list(columns)).astype("object") for frame in frames if len(frame)]
    whole = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=list(columns))
    kinds = dict.fromkeys(_REAL, "float64") | dict.fromkeys(_WHOLE, "Int64")
    return whole.astype({name: kind for name, kind in kinds.items() if name in columns})
