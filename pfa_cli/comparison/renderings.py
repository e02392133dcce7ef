"""The findings for the terminal and as Markdown; ``Findings.as_json`` is the third form."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pfa_cli.comparison.curves import DIFFERENT, EQUAL, NOT_COMPARED
from pfa_cli.comparison.findings import Findings
from pfa_cli.comparison.intervals import CONTRADICTED, NOT_RUN, RULES, SUPPORTED, UNDECIDED
from pfa_cli.comparison.tabular import Rows, claim_rows, layer_rows, not_run, panel_rows, summary

_STYLES = {
    SUPPORTED: "green", EQUAL: "green", CONTRADICTED: "bold red", DIFFERENT: "bold red", UNDECIDED: "yellow",
    NOT_RUN: "dim", NOT_COMPARED: "dim",
}  # fmt: skip
# A terminal is narrow: there the runs, the margins and the scatter are left to the other forms.
_NARROW = {
    "Claims of the paper": (0, 2, 3, 5),
    "Ours against the published curves": (0, 1, 2, 3, 4, 5, 6, 7, 10, 13),
}


def terminal(findings: Findings) -> Group:
    """What ``rich`` prints: the claims, the panels, what was not run."""
    parts: list[RenderableType] = [Text(f"{recipe}: {note}") for recipe, note in findings.data.items()]
    parts += [_rich(rows) for rows in (claim_rows(findings), panel_rows(findings)) if rows.rows]
    parts += [Text(line, style="dim") for line in not_run(findings)]
    parts.append(Text(f"{summary(findings)}. Rules, layers and runs: --format md, or --json.", style="bold"))
    return Group(*parts)


def markdown(findings: Findings) -> str:
    """A Markdown document: summary, claims, panels, layers, what was not run, rules."""
    lines = ["# Ours against the paper", "", f"{summary(findings)}.", ""]
    lines += [f"* {recipe}: {_escaped(note)}" for recipe, note in findings.data.items()]
    for rows in (claim_rows(findings), panel_rows(findings), layer_rows(findings)):
        if rows.rows:
            lines += ["", f"## {rows.title}", "", _bar(rows.head), _bar(["---"] * len(rows.head))]
            lines += [_bar(row) for row in rows.rows]
    if missing := not_run(findings):
        lines += ["", "## Not run", "", *(f"* {_escaped(line)}" for line in missing)]
    lines += ["", "## Rules", "", *(f"* {_escaped(rule)}" for rule in RULES)]
    return "\n".join(lines) + "\n"


def _rich(rows: Rows) -> Table:
    columns = _NARROW[rows.title]
    table = Table(
        title=rows.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for column in columns:
        table.add_column(rows.head[column], no_wrap=column == rows.verdict, overflow="fold")
    for row in rows.rows:
        style = _STYLES[row[rows.verdict]]
        table.add_row(*(Text(row[c], style=style if c == rows.verdict else "") for c in columns))
    return table


def _bar(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("*", r"\*")
