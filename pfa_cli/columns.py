"""Tables that leave out what a narrow terminal has no room for, so that what stays can be read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import measure_renderables
from rich.table import Table

_GAP = 2  # characters between two columns
_EDGES = 2  # characters around a table


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

    def width(self, console: Console, options: ConsoleOptions) -> int:
        """The characters without which it cannot be read."""
        longest = measure_renderables(console, options, [self.heading, *self.cells]).maximum
        return max(self.least, longest if self.wraps_to is None else min(longest, self.wraps_to))


class FittingTable:
    """A table of ``columns``. Where they do not fit, the ``spared`` ones go, by their headings, the first one first."""

    def __init__(self, columns: Iterable[Column], spared: Iterable[str], title: str | None = None) -> None:
        self._columns, self._spared, self._title = list(columns), list(spared), title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.max_width - _EDGES
        kept = [(column, column.width(console, options)) for column in self._columns]
        for heading in self._spared:
            if sum(width for _, width in kept) + _GAP * (len(kept) - 1) <= room:
                break
            kept = [(column, width) for column, width in kept if column.heading != heading]
        table = Table(
            title=self._title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0), pad_edge=False,
        )  # fmt: skip
        for column, width in kept:
            table.add_column(
                column.heading,
                justify="right" if column.right else "left",
                no_wrap=column.right,
                overflow="fold",
                width=min(width, room) if column.wraps_to is None else None,
            )
        for cells in zip(*(column.cells for column, _ in kept), strict=True):
            table.add_row(*cells)
        yield table
