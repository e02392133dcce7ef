"""Table 1 for readers: Markdown, CSV, LaTeX, and the terminal."""

from pathlib import Path

import pandas as pd
from rich.console import Group, RenderableType
from rich.text import Text

from pfa_cli.analysis.curves import csv
from pfa_cli.analysis.evidence import BEST, LAST
from pfa_cli.analysis.statistics import NOT_RUN
from pfa_cli.analysis.table1 import UNKNOWN, Cell, Finding, Table1
from pfa_cli.analysis.words import mean_std
from pfa_cli.files import save
from pfa_cli.registry import described
from pfa_cli.report.tables import Blocks, Table, bullets, latex


def table(table1: Table1) -> Table:
    """Our verdict, the paper's and the evidence, one below the other in each cell."""
    head = ("", *(described(name).label for name in table1.columns))
    rows = tuple((row.title, *map(_lines, row.cells.values())) for row in table1.rows)
    return Table("Table 1", head, rows, kind="table1", stacked=True)


def accuracy_table(table1: Table1) -> Table:
    """The final accuracies in words."""
    rows = []
    for row in table1.accuracy.to_dict("records"):
        means = [(row[f"{kind}_mean"], row[f"{kind}_std"]) for kind in (LAST, BEST)]
        accuracies = ["" if pd.isna(mean) else mean_std(mean, std) for mean, std in means]
        rows.append(
            (
                row["recipe"], described(row["algorithm"]).label, str(row["epochs"]), str(row["n"]), *accuracies,
                str(row["diverged"]), "" if row["finished"] else "unfinished",
            )
        )  # fmt: skip
    head = ("recipe", "algorithm", "epochs", "n", "last epoch", "best validation epoch", "diverged", "")
    return Table("Final test accuracy (%)", head, tuple(rows), kind="compact")


def as_markdown(table1: Table1) -> str:
    """A Markdown document: the table, its notes, and the final accuracies."""
    accuracy = accuracy_table(table1)
    lines = [
        "# Table 1",
        "",
        *table(table1).markdown(),
        "",
        *bullets(table1.notes),
        "",
        f"## {accuracy.title}",
        "",
    ]
    return "\n".join([*lines, *accuracy.markdown()]) + "\n"


def as_latex(table1: Table1) -> str:
    r"""A LaTeX ``tabular`` and its notes."""
    lines = [r"% needs \usepackage{amssymb}", *table(table1).latex(), "", r"\begin{itemize}\footnotesize"]
    lines += [rf"\item {latex(note)}" for note in table1.notes]
    return "\n".join([*lines, r"\end{itemize}"]) + "\n"


def write_table1(table1: Table1, folder: Path) -> list[Path]:
    """``table1.md``, ``.csv`` and ``.tex``, and ``table1-accuracy.csv``; PfaError if that is not possible."""
    return [
        save(folder / "table1.md", as_markdown(table1)),
        save(folder / "table1.csv", csv(table1.frame())),
        save(folder / "table1.tex", as_latex(table1)),
        save(folder / "table1-accuracy.csv", csv(table1.accuracy)),
    ]


def terminal(table1: Table1) -> Group:
    """What ``rich`` prints: verdicts in the paper's layout, the numbers behind them, the notes."""
    labels = tuple(described(name).label for name in table1.columns)
    signs = tuple((row.title, *map(_verdicts, row.cells.values())) for row in table1.rows)
    judged = [row for row in table1.rows if any(cell.findings for cell in row.cells.values())]
    said = {
        name: ["\n".join(map(_said, row.cells[name].findings)) for row in judged] for name in table1.columns
    }
    evidence = tuple((described(name).label, *texts) for name, texts in said.items() if any(texts))
    parts: list[RenderableType] = [
        Text("Table 1: ours, and the paper's where it was judged", style="table.title"),
        Blocks(Table("", ("", *labels), signs), narrow=True),
    ]
    if judged:
        head = ("", *(row.title for row in judged))
        parts += [Text("What the database says", style="table.title"), Blocks(Table("", head, evidence))]
    return Group(*parts, *(Text(note, style="dim") for note in (f"{UNKNOWN}: not run.", *table1.notes)))


def _verdicts(cell: Cell) -> str:
    ours = UNKNOWN if cell.verdict == NOT_RUN else cell.verdict
    return ours if cell.papers == ours and not cell.findings else f"{ours} {cell.papers}".rstrip()


def _lines(cell: Cell) -> str:
    if cell.papers == cell.verdict and not cell.findings:
        return cell.verdict
    papers = [f"paper {cell.papers}"] if cell.papers else []
    return "\n".join([cell.verdict, *papers, *map(_said, cell.findings)])


def _said(finding: Finding) -> str:
    text = f"{finding.recipe}: {finding.text}"
    return text if finding.decides else f"({text})"
