"""A sheet of paper: axes placed in inches, the notes below them, and writing it to files."""

import io
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pfa_cli.errors import unknown
from pfa_cli.figures import style
from pfa_cli.files import save

# No date and no version of matplotlib in the file: the same database gives the same bytes.
_METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}
_LINE = 0.125  # inches, of a note's line


class Page:
    """A figure of ``width`` × ``height`` inches, made longer by the room that its notes need."""

    def __init__(self, width: float, height: float, notes: Iterable[str]):
        characters = int(width * 19)  # of the notes' type size
        lines = [
            line
            for note in notes
            for line in textwrap.wrap(style.shown(note), characters, subsequent_indent="   ")
        ]
        self.width = width
        self.height = height + _LINE * len(lines) + (0.15 if lines else 0)
        self.figure = Figure(figsize=(self.width, self.height))
        FigureCanvasAgg(self.figure)
        for i, line in enumerate(lines):
            y = 1 - (height + _LINE * i) / self.height
            self.figure.text(0.12 / width, y, line, fontsize=6.5, color="#404040", va="top")

    def axes(self, left: float, top: float, width: float, height: float, **settings: Any) -> Axes:
        """Axes at ``left``, ``top`` inches from the upper left corner."""
        w, h = self.width, self.height
        return self.figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h), **settings)

    def legend(self, left: float, top: float, **settings: Any) -> None:
        """A legend whose upper left corner is ``left``, ``top`` inches from that of the page."""
        corner = (left / self.width, 1 - top / self.height)
        self.figure.legend(loc="upper left", bbox_to_anchor=corner, borderaxespad=0, borderpad=0, **settings)


def check_formats(formats: Sequence[str]) -> None:
    """UsageError if a picture format is not one of pdf, png, svg."""
    for name in formats:
        if name not in _METADATA:
            raise unknown("format", name, _METADATA)


def rendered(figure: Figure, kind: str) -> bytes:
    """The figure as the content of a pdf, png or svg file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with style.house_style():
        figure.savefig(buffer, format=kind, metadata=_METADATA[kind])
    return buffer.getvalue()


def save_figure(figure: Figure, folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Writes ``figure`` to ``folder/name.<format>`` in every format."""
    return [save(folder / f"{name}.{kind}", rendered(figure, kind)) for kind in formats]
