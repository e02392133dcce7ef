"""The one table of words, and its forms: Markdown, LaTeX, terminal; ``report.html`` shows it in HTML. Text is escaped here."""

import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from pfa_cli.analysis.statistics import (
    CONTRADICTED,
    DIFFERENT,
    EQUAL,
    NOT_COMPARED,
    NOT_RUN,
    SUPPORTED,
    TRIAL,
    UNDECIDED,
)
from pfa_cli.errors import shown as printable
from pfa_cli.terminal import Column, FittingTable

# How a verdict looks: its CSS class, and its style on a terminal.
_LOOKS = {
    SUPPORTED: ("good", "green"), EQUAL: ("good", "green"), CONTRADICTED: ("bad", "bold red"),
    DIFFERENT: ("bad", "bold red"), UNDECIDED: ("open", "yellow"), NOT_RUN: ("none", "dim"), NOT_COMPARED: ("none", "dim"),
    TRIAL: ("none", "dim"),
}  # fmt: skip
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "#": r"\#", "^": r"\^{}", "~": r"\~{}", "%": r"\%",
    "_": r"\_", "&": r"\&", "<": r"\textless{}", ">": r"\textgreater{}", "✓": r"\checkmark", "✗": r"$\times$",
    "◆": r"$\blacklozenge$", "†": r"\dag", "*": r"$\ast$", "°": r"$^\circ$", "−": r"$-$", "–": "--", "±": r"$\pm$",
    "²": "$^2$", "ᵀ": r"$^\top$",
}  # fmt: skip
_SIGNS = len("✓ ✓")  # ours and the paper's


@dataclass(frozen=True)
class Table:
    """Rows of words under a head.

    ``verdict``: the column that holds a verdict in words. ``kind``: the class of the HTML table.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    verdict: int | None = None
    kind: str = ""

    def without(self, heading: str) -> "Table":
        """The table without one column to the right of the verdict."""
        place = self.head.index(heading)
        cut = [(*row[:place], *row[place + 1 :]) for row in (self.head, *self.rows)]
        return replace(self, head=cut[0], rows=tuple(cut[1:]))

    def markdown(self, align: str = "l") -> list[str]:
        """Its lines in Markdown; none if it has no row. ``align``: "c" centres all columns but the first."""
        if not self.rows:
            return []
        rule = ":---:" if align == "c" else "---"
        rows = [self.head, ("---", *[rule] * (len(self.head) - 1)), *self.rows]
        return [f"| {' | '.join(map(markdown, row))} |" for row in rows]

    def latex(self, columns: str) -> list[str]:
        r"""The lines of a ``tabular`` with these columns; needs amssymb."""
        lines = [" & ".join(map(latex, row)) + r" \tabularnewline" for row in (self.head, *self.rows)]
        shape = rf"\begin{{tabular}}{{{columns}}}"
        return [shape, r"\hline", lines[0], r"\hline", *lines[1:], r"\hline", r"\end{tabular}"]

    def terminal(
        self, wraps_to: Mapping[str, int | None], drop_first: Iterable[str], short: Mapping[str, str]
    ) -> FittingTable:
        """The columns that ``wraps_to`` names: characters to which a line may be broken, None: it may not.

        ``drop_first``: those to leave out where there is no room, the first one first. ``short``: words said shorter.
        """
        columns = []
        for heading, characters in wraps_to.items():
            place = self.head.index(heading)
            texts = [row[place] for row in self.rows]
            cells = [Text(short.get(t, t), _LOOKS[t][1] if place == self.verdict else "") for t in texts]
            columns.append(Column(short.get(heading, heading), cells, wraps_to=characters))
        return FittingTable(columns, [short.get(name, name) for name in drop_first], self.title)


class Blocks:
    """On a terminal, a table whose columns stand in blocks below one another where they do not fit beside each other.

    Each block opens with the first column. ``narrow``: the other columns hold signs, which are not broken.
    """

    def __init__(self, table: Table, narrow: bool = False) -> None:
        self._table, self._narrow = table, narrow

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbounded = options.update_width(sys.maxsize)
        n = len(self._table.head) - 1
        for blocks in range(1, n + 1):
            size = math.ceil(n / blocks)
            parts = [self._part(slice(first, first + size)) for first in range(1, n + 1, size)]
            if all(Measurement.get(console, unbounded, one).minimum <= options.max_width for one in parts):
                break
        yield from parts

    def _part(self, columns: slice) -> RichTable:
        part = RichTable(box=box.SIMPLE_HEAD)
        part.add_column("", min_width=24 if self._narrow else None, no_wrap=not self._narrow)
        for heading in map(_text, self._table.head[columns]):
            if self._narrow:
                part.add_column(
                    heading, justify="center", no_wrap=True, min_width=max(_SIGNS, heading.cell_len)
                )
            else:
                part.add_column(heading)
        for row in self._table.rows:
            part.add_row(*map(_text, (row[0], *row[columns])))
        return part


def _text(cell: str) -> Text:
    return Text(printable(cell))


def markdown(text: str) -> str:
    """Text that Markdown shows as it is: no table, no emphasis, no HTML, no link."""
    shown = " ".join(printable(text).split("\n")).replace("|", r"\|").replace("*", r"\*")
    return shown.replace("<", "&lt;").replace("](", r"]\(")


def latex(text: str) -> str:
    """Text that LaTeX sets as it is, in ASCII where this project writes it."""
    return "".join(_LATEX.get(character, character) for character in printable(text))


def tight(text: str) -> str:
    """Text of a table's cell, whose numbers are not torn apart at the end of a line; not escaped."""
    joined = re.sub(r" (?=[±/%=])|(?<=[±=]) |(?<=epoch) (?=\d)", "\u00a0", printable(text))
    joined = re.sub(r"(?<=\d) to (?=[\d−])", "\u00a0to\u00a0", joined)
    joined = re.sub(r"\[[^\]]*\]", lambda found: found[0].replace(" ", "\u00a0"), joined)
    return re.sub(r"(?<=\d)–(?=\d)", "\u2060–\u2060", joined)


def look(verdict: str) -> str:
    """The CSS class of a verdict."""
    return _LOOKS[verdict][0]


def bullets(lines: Sequence[str]) -> list[str]:
    """A list in Markdown."""
    return [f"* {markdown(line)}" for line in lines]
