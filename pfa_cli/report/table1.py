"""Table 1 for readers: Markdown, CSV, LaTeX, and the terminal."""

from collections.abc import Iterator
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

_TITLE_CM, _NUMBERS_CM = 3.2, (2.9, 4.2, 5.4)  # widths in LaTeX
LAYOUT = (
    "Each cell: ours / the paper's; one sign where both are declared properties. –: not run, or not declared."
)


def verdicts(table1: Table1) -> Table:
    """The table as the paper has it: in each cell our verdict and the paper's."""
    head = ("", *(described(name).label for name in table1.columns))
    rows = tuple((row.title, *map(_both, row.cells.values())) for row in table1.rows)
    return Table("Table 1", head, rows, kind="table1")


def numbers(table1: Table1) -> Table:
    """What the verdicts of the judged rows rest on: a row per algorithm and recipe."""
    judged = [row for row in table1.rows if any(cell.findings for cell in row.cells.values())]
    rows = []
    for name in table1.columns:
        findings = [{found.recipe: found for found in row.cells[name].findings} for row in judged]
        for recipe in dict.fromkeys(recipe for found in findings for recipe in found):
            decides = any(recipe in found and found[recipe].decides for found in findings)
            texts = [found[recipe].text if recipe in found else "" for found in findings]
            rows.append((described(name).label, recipe if decides else f"({recipe})", *texts))
    head = ("algorithm", "recipe", *(row.title for row in judged))
    return Table("What the verdicts rest on", head, tuple(rows), kind="compact")


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
    """A Markdown document: the verdicts, the numbers, the notes, and the final accuracies."""
    lines = ["# Table 1", "", *verdicts(table1).markdown("c"), "", LAYOUT]
    for part in (numbers(table1), accuracy_table(table1)):
        lines += ["", f"## {part.title}", "", *part.markdown()]
    return "\n".join([*lines, "", "## Notes", "", *bullets(table1.notes)]) + "\n"


def as_latex(table1: Table1) -> str:
    r"""Two LaTeX ``tabular``, verdicts and numbers, each as wide as a page of text (16 cm), and the notes."""
    signs = f"@{{}}p{{{_TITLE_CM}cm}}" + f"*{{{len(table1.columns)}}}{{c}}@{{}}"
    words = "@{}ll" + "".join(rf">{{\raggedright}}p{{{width}cm}}" for width in _NUMBERS_CM) + "@{}"
    lines = [
        r"% needs \usepackage{array,amssymb}",
        r"{\footnotesize\setlength{\tabcolsep}{3pt}",
        *verdicts(table1).latex(signs),
        "",
        rf"{latex(LAYOUT)}",
        "",
        *numbers(table1).latex(words),
        "",
        r"\begin{itemize}",
        *(rf"\item {latex(note)}" for note in table1.notes),
        r"\end{itemize}}",
    ]
    return "\n".join(lines) + "\n"


def write_table1(table1: Table1, folder: Path) -> Iterator[Path]:
    """Writes ``table1.md``, ``.csv`` and ``.tex``, and ``table1-accuracy.csv``; each file, once it is written.

    Raises PfaError if that is not possible.
    """
    yield save(folder / "table1.md", as_markdown(table1))
    yield save(folder / "table1.csv", csv(table1.frame()))
    yield save(folder / "table1.tex", as_latex(table1))
    yield save(folder / "table1-accuracy.csv", csv(table1.accuracy))


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
    return Group(
        *parts,
        *(Text(note, style="dim") for note in (f"{UNKNOWN}: not run, or not declared.", *table1.notes)),
    )


def _both(cell: Cell) -> str:
    return " / ".join(_verdicts(cell).split())


def _verdicts(cell: Cell) -> str:
    ours = UNKNOWN if cell.verdict == NOT_RUN else cell.verdict
    return ours if cell.papers == ours and not cell.findings else f"{ours} {cell.papers}".rstrip()


def _said(finding: Finding) -> str:
    text = f"{finding.recipe}: {finding.text}"
    return text if finding.decides else f"({text})"
