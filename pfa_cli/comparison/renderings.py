"""The findings for the terminal and as Markdown; ``Findings.as_json`` is the third form."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from rich.console import Group, RenderableType
from rich.text import Text

from pfa_cli.comparison.curves import DIFFERENT, EQUAL, NOT_COMPARED
from pfa_cli.comparison.findings import Findings
from pfa_cli.comparison.intervals import CONTRADICTED, NOT_RUN, RULES, SUPPORTED, UNDECIDED
from pfa_cli.comparison.tabular import (
    Rows,
    claim_rows,
    figure_title,
    layer_rows,
    not_run,
    panel_rows,
    remarks,
    summary,
)
from pfa_cli.terminal import Column, FittingTable

_STYLES = {
    SUPPORTED: "green", EQUAL: "green", CONTRADICTED: "bold red", DIFFERENT: "bold red", UNDECIDED: "yellow",
    NOT_RUN: "dim", NOT_COMPARED: "dim",
}  # fmt: skip
_SHORT = {
    "test accuracy, %": "test %",
    "validation accuracy, %": "valid. %",
    "epochs equal / undecided / different": "epochs equal /\nundecided /\ndifferent",
}


def terminal(findings: Findings) -> Group:
    """What ``rich`` prints, by the width at hand: the claims, the panels, what to read them with, what was not run."""
    parts: list[RenderableType] = [Text(f"{recipe}: {note}") for recipe, note in findings.data.items()]
    claims, panels = claim_rows(findings), panel_rows(findings)
    parts += [_claims(claims)] if claims.rows else []
    parts += [_panels(panels)] if panels.rows else []
    parts += [Text(line, style="dim") for line in (*_remarks_by_figure(findings), *not_run(findings))]
    parts.append(
        Text(f"{summary(findings)}. Rules, layers, runs, every column: --format md, or --json.", style="bold")
    )
    return Group(*parts)


def _claims(rows: Rows) -> FittingTable:
    columns = _columns(rows, {"claim": 18, "verdict": None, "ours": 20, "the paper's own numbers": 20})
    return FittingTable(columns, ["the paper's own numbers"], rows.title)


def _panels(rows: Rows) -> FittingTable:
    """Margins, scatter and seeds are left to the other forms, on a narrow terminal also what is not a row's result."""
    wraps_to = {
        "panel": None, "algorithm": None, "quantity": None, "verdict": None, "epoch": None, "ours": 14,
        "published": 14, "deviation": 22, "epochs equal / undecided / different": None,
    }  # fmt: skip
    spared = [_SHORT["epochs equal / undecided / different"], "epoch", "deviation", "published", "ours"]
    return FittingTable(_columns(rows, wraps_to), spared, rows.title)


def _columns(rows: Rows, wraps_to: Mapping[str, int | None]) -> list[Column]:
    """The columns that ``wraps_to`` names; None where no line may be broken."""
    columns = []
    for heading, characters in wraps_to.items():
        place = rows.head.index(heading)
        texts = [row[place] for row in rows.rows]
        cells = [
            Text(
                _SHORT.get(text, text.removeprefix("Fig. ")),
                style=_STYLES[text] if place == rows.verdict else "",
            )
            for text in texts
        ]
        columns.append(Column(_SHORT.get(heading, heading), cells, wraps_to=characters))
    return columns


def _remarks_by_figure(findings: Findings) -> Iterator[str]:
    for figure in dict.fromkeys(panel.figure for panel in findings.panels):
        own = [panel for panel in findings.panels if panel.figure == figure]
        for remark in remarks(replace(findings, panels=tuple(own))):
            yield f"{figure_title(own[0])}: {remark}"


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


def _bar(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("*", r"\*")
