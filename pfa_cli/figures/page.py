"""A figure whose layout matplotlib makes, with its notes below it, and writing it to files."""

import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

from pfa_cli.errors import unknown
from pfa_cli.figures import style
from pfa_cli.figures.drawing import Options
from pfa_cli.files import save

# No date and no version of matplotlib in the file: the same database gives the same bytes. At level 3 of 9 a PNG takes two
# thirds of the usual time, and is 5 % larger.
_FORMATS: dict[str, dict[str, Any]] = {
    "pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
    "png": {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 3}},
    "svg": {"metadata": {"Date": None, "Creator": None, "Format": None, "Type": None}},
}
_NOTE = 0.8  # size of the notes, in that of all text
_CHARACTER, _LINE = 0.53, 1.3  # width of a note's mean character and height of its line, in its type size


def page(height: float, notes: Iterable[str], options: Options) -> tuple[Figure, SubFigure]:
    """A figure, and the part of it that panels go into: ``height`` inches, at the common font size, above the notes."""
    size = _NOTE * rcParams["font.size"]
    characters = int(options.width * 72 / (_CHARACTER * size))
    lines = [
        line
        for note in (filter(None, (*notes, options.runs_note)) if options.notes else ())
        for line in textwrap.wrap(style.shown(note), characters, subsequent_indent="  ")
    ]
    room = (_LINE * len(lines) + 1) * size / 72 if lines else 0.0
    scaled = height * (0.5 + 0.5 * rcParams["font.size"] / style.FONT_SIZE)
    figure = Figure(figsize=(options.width, scaled + room), layout="constrained")
    FigureCanvasAgg(figure)
    if lines:
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=size, color="#404040")
    return figure, figure.subfigures(1, 1, squeeze=False)[0, 0]


def check_formats(formats: Sequence[str]) -> None:
    """UsageError if a picture format is not one of pdf, png, svg."""
    for name in formats:
        if name not in _FORMATS:
            raise unknown("format", name, _FORMATS)


def rendered(figure: Figure, kind: str, options: Options) -> bytes:
    """The figure as the content of a pdf, png or svg file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with style.house_style(options):
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
            figure.set_layout_engine(None)  # savefig would draw twice, and lay out for each format anew
        if kind == "pdf":
            _read_fewer_font_tables()
        figure.savefig(buffer, format=kind, **_FORMATS[kind])
    return buffer.getvalue()


def _read_fewer_font_tables() -> None:
    """Has fontTools leave out what a PDF's fonts do not need, and takes longer to read than a figure to draw.

    These tables choose and shift glyphs; in a PDF each glyph has its number and place.
    """
    from fontTools.subset import Options

    usual: list[str] = Options._drop_tables_default
    Options._drop_tables_default = [*usual, *({"GDEF", "GPOS", "GSUB"} - {*usual})]


def save_figure(
    figure: Figure, folder: Path, name: str, formats: Sequence[str], options: Options
) -> Iterator[Path]:
    """Writes ``figure`` to ``folder/name.<format>`` in every format; each file, once it is written."""
    for kind in formats:
        yield save(folder / f"{name}.{kind}", rendered(figure, kind, options))
