"""Writing to a terminal, a file or a pipe: the two streams, the one table, and text of unknown origin.

Every command writes through ``output`` and ``messages``. What they print may come from a database or a recipe that
somebody else made: they show its control characters escaped, and never read it as rich markup.
"""

import io
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import measure_renderables
from rich.segment import Segment
from rich.table import Table as RichTable
from rich.text import Text

from pfa_cli.errors import shown

_GAP = 2  # characters between two columns
_EDGES = 2  # characters around a table
_WORD = 16  # characters, of a long word: a column of text is no narrower


class Terminal(Console):
    """rich's console for text of unknown origin: no markup, no emoji names, every piece of text ``shown`` (see errors.py).

    The escapes of colours and of the live view are rich's own and are added afterwards.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(shown(segment.text), segment.style)

    def say(self, message: object) -> None:
        """Prints ``message`` as it is, however wide the terminal: nothing is wrapped or cut."""
        self.print(_escaped(str(message)), soft_wrap=True)


# rich reads these when a console is made; 0 is "unknown" to shells.
for _name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):
    if not re.fullmatch("[1-9][0-9]{0,3}", os.environ.get(_name, "1")):
        del os.environ[_name]
output = Terminal()
messages = Terminal(stderr=True)


def can_redraw(console: Console) -> bool:
    """Whether a live view works: on a real terminal, whatever FORCE_COLOR says, that can move its cursor."""
    return console.is_terminal and console.file.isatty() and not console.is_dumb_terminal


def show_error(message: str) -> None:
    """The one form in which `pfa` says what is wrong."""
    messages.print(Text.assemble(("pfa: ", "bold red"), shown(message)), soft_wrap=True)


def prepare_streams() -> None:
    """Before anything is printed: a stream in an encoding without, say, "→" gets "?" in its place."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@dataclass(frozen=True)
class Column:
    """A column that is as wide as its longest line, none of which is broken; numbers stand at its ``right``.

    ``wraps_to``: its text may be broken between words, down to this many characters.
    ``least``: characters that it takes even if its cells are shorter now.
    """

    heading: str
    cells: Sequence[RenderableType]
    right: bool = False
    wraps_to: int | None = None
    least: int = 0

    def widths(self, console: Console, options: ConsoleOptions) -> tuple[int, int]:
        """The characters without which it cannot be read, and those with which no line is broken."""
        whole = measure_renderables(console, options, [self.heading, *map(_escaped, self.cells)]).maximum
        least = max(self.least, whole if self.wraps_to is None else min(whole, self.wraps_to))
        return least, max(least, whole)


class FittingTable:
    """A table of ``columns``. Where they do not fit, those in ``drop_first`` go, by their headings, the first one first."""

    def __init__(
        self, columns: Iterable[Column], drop_first: Iterable[str] = (), title: str | None = None
    ) -> None:
        self._columns, self._drop_first, self._title = list(columns), list(drop_first), title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept = [(column, *column.widths(console, options)) for column in self._columns]

        def room() -> int:
            return options.max_width - _EDGES - _GAP * (len(kept) - 1) - sum(least for _, least, _ in kept)

        for heading in self._drop_first:
            if room() >= 0:
                break
            kept = [one for one in kept if one[0].heading != heading]
        table = RichTable(
            title=self._title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0), pad_edge=False,
        )  # fmt: skip
        # Where text has to be broken, what room is left goes to the columns in proportion to what they lack.
        lacking = sum(whole - least for _, least, whole in kept)
        share = min(1.0, max(0, room()) / lacking) if lacking else 0.0
        for column, least, whole in kept:
            table.add_column(
                column.heading,
                justify="right" if column.right else "left",
                no_wrap=column.right,
                overflow="fold",
                width=max(1, min(least + int(share * (whole - least)), options.max_width - _EDGES)),
            )
        for cells in zip(*(column.cells for column, _, _ in kept), strict=True):
            table.add_row(*map(_escaped, cells))
        yield table


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str | None = None,
    *,
    wraps: Iterable[str] = (),
    right: Iterable[str] = (),
) -> FittingTable:
    """Rows of words under ``headings``; columns in ``wraps`` may be broken between words, in ``right`` are numbers."""
    columns = list(zip(*rows, strict=True)) or [()] * len(headings)
    return FittingTable(
        [
            Column(heading, cells, right=heading in right, wraps_to=_WORD if heading in wraps else None)
            for heading, cells in zip(headings, columns, strict=True)
        ],
        title=title,
    )


def _escaped(cell: RenderableType) -> RenderableType:
    """Escaped before it is measured, so that its column is wide enough; str becomes Text, which knows no markup."""
    if isinstance(cell, Text):
        return cell if cell.plain.isprintable() else Text(shown(cell.plain), cell.style)
    return Text(shown(cell)) if isinstance(cell, str) else cell
