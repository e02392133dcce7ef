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

    def widths(self, console: Console, options: ConsoleOptions) -> tuple[int, int]:
        """The characters without which it cannot be read, and those with which no line is broken."""
        whole = measure_renderables(console, options, [self.heading, *self.cells]).maximum
        least = max(self.least, whole if self.wraps_to is None else min(whole, self.wraps_to))
        return least, max(least, whole)


class FittingTable:
    """A table of ``columns``. Where they do not fit, the ``spared`` ones go, by their headings, the first one first."""

    def __init__(self, columns: Iterable[Column], spared: Iterable[str], title: str | None = None) -> None:
        self._columns, self._spared, self._title = list(columns), list(spared), title

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept = [(column, *column.widths(console, options)) for column in self._columns]

        def room() -> int:
            return options.max_width - _EDGES - _GAP * (len(kept) - 1) - sum(least for _, least, _ in kept)

        for heading in self._spared:
            if room() >= 0:
                break
            kept = [one for one in kept if one[0].heading != heading]
        table = Table(
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
                width=min(least + int(share * (whole - least)), options.max_width - _EDGES),
            )
        for cells in zip(*(column.cells for column, _, _ in kept), strict=True):
            table.add_row(*cells)
        yield table
