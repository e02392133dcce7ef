"""Table 1 for readers: Markdown, CSV, LaTeX, and the terminal."""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import pandas as pd
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.figures.accuracy import BEST, LAST
from pfa_cli.figures.page import save_frame, write
from pfa_cli.figures.table1 import COLUMNS, Cell, Finding, Row, Table1
from pfa_cli.figures.verdicts import NOT_RUN

T = TypeVar("T")

_LATEX = {
    "✓": r"\checkmark",
    "✗": r"$\times$",
    "◆": r"$\blacklozenge$",
    "†": r"\dag",
    "*": r"$\ast$",
    "°": r"$^\circ$",
    "−": r"$-$",
    "–": "--",
    "±": r"$\pm$",
    "²": "$^2$",
    "ᵀ": r"$^\top$",
    "%": r"\%",
    "_": r"\_",
    "&": r"\&",
}


def write_all(table: Table1, folder: Path) -> list[Path]:
    """``table1.md``, ``.csv`` and ``.tex``, and ``table1-accuracy.csv``."""
    return [
        write(folder / "table1.md", markdown(table).encode()),
        save_frame(frame(table), folder / "table1.csv"),
        write(folder / "table1.tex", latex(table).encode()),
        save_frame(table.accuracy, folder / "table1-accuracy.csv"),
    ]


def frame(table: Table1) -> pd.DataFrame:
    """One row per property, algorithm and recipe that says something about them."""
    rows = []
    for number, row in enumerate(table.rows, start=1):
        for name, cell in row.cells.items():
            common = {
                "row": number,
                "property": row.title,
                "algorithm": name,
                "verdict": cell.verdict,
                "paper_verdict": cell.papers,
            }
            for f in cell.findings:
                rows.append(
                    common
                    | {
                        "recipe": f.recipe, "recipe_verdict": f.verdict, "decides": f.decides, "evidence": f.text,
                        "unit": row.unit, "value": f.value, "low": f.low, "high": f.high, "n": f.n, "run_ids": f.run_ids,
                    }
                )  # fmt: skip
            if not cell.findings:
                rows.append(common)
    return pd.DataFrame(rows)


def markdown(table: Table1) -> str:
    """A Markdown document: the table, its notes, and the final accuracies."""
    head = ["", *(ALGORITHMS[name].label for name in COLUMNS)]
    lines = ["# Table 1", "", _bar(head), _bar(["---", *(":---:" for _ in COLUMNS)])]
    for row in table.rows:
        lines.append(_bar([row.title, *(_escaped("<br>".join(_lines(row.cells[name]))) for name in COLUMNS)]))
    lines += ["", *(f"* {_escaped(note)}" for note in table.notes), "", "## Final test accuracy (%)", ""]
    lines += [_bar(ACCURACY_HEAD), _bar(["---"] * len(ACCURACY_HEAD))]
    lines += [_bar(row) for row in accuracy_rows(table)]
    return "\n".join(lines) + "\n"


def latex(table: Table1) -> str:
    r"""A LaTeX ``tabular`` and its notes."""
    lines = [
        "% needs \\usepackage{amssymb}",
        r"\begin{tabular}{l" + "c" * len(COLUMNS) + "}",
        r"\hline",
        " & ".join(["", *(ALGORITHMS[name].label for name in COLUMNS)]) + r" \\",
        r"\hline",
    ]
    for row in table.rows:
        cells = [_latex_cell(row.cells[name]) for name in COLUMNS]
        lines.append(" & ".join([_tex(row.title), *cells]) + r" \\")
    lines += [r"\hline", r"\end{tabular}", "", r"\begin{itemize}\footnotesize"]
    lines += [rf"\item {_tex(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{itemize}"]) + "\n"


def terminal(table: Table1) -> Group:
    """What ``rich`` prints: verdicts in the paper's layout, the numbers behind them, the notes."""
    judged = [row for row in table.rows if any(row.cells[name].findings for name in COLUMNS)]

    def verdicts(names: Sequence[str]) -> Table:
        block = Table(box=box.SIMPLE_HEAD)
        block.add_column("", min_width=24)
        for name in names:
            block.add_column(ALGORITHMS[name].label, justify="center", no_wrap=True, min_width=_SIGNS)
        for row in table.rows:
            block.add_row(row.title, *(_verdicts(row.cells[name]) for name in names))
        return block

    def evidence(rows: Sequence[Row]) -> Table:
        block = Table(box=box.SIMPLE_HEAD)
        for heading in ("", *(row.title for row in rows)):
            block.add_column(heading, no_wrap=not heading)
        for name in COLUMNS:
            found = [row.cells[name].findings for row in rows]
            if any(found):
                said = (Text("\n".join(_said(f) for f in findings)) for findings in found)
                block.add_row(ALGORITHMS[name].label, *said)
        return block

    parts: list[RenderableType] = [
        Text("Table 1: ours, and the paper's where it was judged", style="table.title"),
        _Blocks(COLUMNS, verdicts),
    ]
    if judged:
        parts += [Text("What the database says", style="table.title"), _Blocks(judged, evidence)]
    notes = (Text(note, style="dim") for note in (f"{_NOT_RUN_SIGN}: not run.", *table.notes))
    return Group(*parts, *notes)


class _Blocks(Generic[T]):
    """A table with a column for each of ``items``, or as many below one another as a narrow terminal needs."""

    def __init__(self, items: Sequence[T], table: Callable[[Sequence[T]], Table]) -> None:
        self._items, self._table = items, table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbounded = options.update_width(sys.maxsize)
        n = len(self._items)
        for blocks in range(1, n + 1):
            size = math.ceil(n / blocks)
            tables = [self._table(self._items[first : first + size]) for first in range(0, n, size)]
            if all(Measurement.get(console, unbounded, one).minimum <= options.max_width for one in tables):
                break
        yield from tables


_NOT_RUN_SIGN = "–"
_SIGNS = len("✓ ✓")  # ours and the paper's


def _verdicts(cell: Cell) -> str:
    ours = _NOT_RUN_SIGN if cell.verdict == NOT_RUN else cell.verdict
    return ours if cell.papers == ours and not cell.findings else f"{ours} {cell.papers}"


def _lines(cell: Cell) -> list[str]:
    if cell.papers == cell.verdict and not cell.findings:
        return [cell.verdict]
    return [cell.verdict, f"paper {cell.papers}", *(_said(finding) for finding in cell.findings)]


def _said(finding: Finding) -> str:
    text = f"{finding.recipe}: {finding.text}"
    return text if finding.decides else f"({text})"


def _bar(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return text.replace("*", r"\*").replace("|", r"\|")


def _tex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _latex_cell(cell: Cell) -> str:
    first, *rest = (_tex(line) for line in _lines(cell))
    if not rest:
        return first
    return r"\shortstack{" + r" \\ ".join([first, *(rf"{{\tiny {line}}}" for line in rest)]) + "}"


ACCURACY_HEAD = ["recipe", "algorithm", "epochs", "n", "last epoch", "best validation epoch", "diverged", ""]


def accuracy_rows(table: Table1) -> list[list[str]]:
    """The table of final accuracies in words, under ``ACCURACY_HEAD``."""
    rows = []
    for row in table.accuracy.to_dict("records"):
        accuracies = [_mean_std(row[f"{kind}_mean"], row[f"{kind}_std"]) for kind in (LAST, BEST)]
        state = "" if row["finished"] else "unfinished"
        label = ALGORITHMS[row["algorithm"]].label
        rows.append(
            [
                row["recipe"],
                label,
                str(row["epochs"]),
                str(row["n"]),
                *accuracies,
                str(row["diverged"]),
                state,
            ]
        )
    return rows


def _mean_std(mean: float, std: float) -> str:
    if pd.isna(mean):
        return ""
    return f"{mean:.2f}" if pd.isna(std) else f"{mean:.2f} ± {std:.2f}"
