"""``report.html``: figures, Table 1, the comparison and what was run, on one page that needs nothing else."""

from collections.abc import Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.comparison import html
from pfa_cli.comparison.curves import DIFFERENT, EQUAL, NOT_COMPARED
from pfa_cli.comparison.findings import Findings, find
from pfa_cli.comparison.intervals import CONTRADICTED, NOT_RUN, RULES, SUPPORTED, UNDECIDED
from pfa_cli.comparison.ledger import ATTEMPTS, MACHINES, RUNS, Ledger, ledger
from pfa_cli.comparison.tabular import (
    Rows,
    claim_rows,
    figure_title,
    layer_rows,
    not_run,
    panel_rows,
    remarks,
)
from pfa_cli.figures import build, table_1
from pfa_cli.figures.table1 import COLUMNS, Cell, Table1
from pfa_cli.figures.table1_files import ACCURACY_HEAD, accuracy_rows
from pfa_cli.store.engine import Store

TITLE = "Deep Learning without Weight Symmetry: a reproduction"
_BADGES = {
    SUPPORTED: "good", EQUAL: "good", CONTRADICTED: "bad", DIFFERENT: "bad", UNDECIDED: "open", NOT_RUN: "none",
    NOT_COMPARED: "none",
}  # fmt: skip
_SECTIONS = {
    "claims": "Claims of the paper",
    "figures": "Figures",
    "table1": "Table 1",
    "curves": "Ours against the published curves",
    "runs": "What was run, and where",
    "failures": "What diverged or failed",
    "missing": "What was not run",
    "rules": "Rules",
}
_CAPTIONS = {
    "fig2": "Figure 2. MNIST, a two-hidden-layer network.",
    "fig2-supplement": "Supplement to Figure 2: the algorithms that the paper's figure leaves out.",
    "fig3": "Figure 3. PFA approaches BP as the expansion ratio grows.",
    "fig4": "Figure 4. CIFAR-10, ResNet-20.",
    "fig4-supplement": "Supplement to Figure 4: the algorithms that the paper's figure leaves out.",
    "fig5": "Figure 5. The ImageNet recipe, ResNet-18, on the data set that the notes name.",
}


def page(store: Store) -> str:
    """The whole page. NoResults if no epoch is stored."""
    findings, ran = find(store), ledger(store)
    passed_over: list[str] = []
    return html.document(
        TITLE,
        _top(findings, ran),
        _section("claims", _rows(claim_rows(findings), "claims")),
        _section("figures", *_figures(store, passed_over)),
        _section("table1", *_table1(table_1(store))),
        _section("curves", *_curves(findings)),
        _section("runs", *_runs(ran)),
        _section("failures", *_failures(ran)),
        _section("missing", html.bullets([*ran.never, *ran.unfinished, *not_run(findings), *passed_over])),
        _section("rules", html.bullets(RULES)),
    )


def _section(anchor: str, *parts: str) -> str:
    return html.section(anchor, _SECTIONS[anchor], *(parts if any(parts) else [html.paragraph("Nothing.")]))


def _top(findings: Findings, ran: Ledger) -> str:
    verdicts = [one.verdict for one in findings.claims]
    boxes = "".join(
        f"<div><b>{verdicts.count(word)}</b><span>claims {escape(word)}</span></div>"
        for word in (SUPPORTED, CONTRADICTED, UNDECIDED, NOT_RUN)
    )
    lead = (
        "Eight algorithms that assign credit with and without symmetric weights (Ji-An & Benna): what our runs "
        "show, held against the paper's published curves."
    )
    if ran.last:
        lead += f" Results up to {ran.last} UTC."
    data = html.bullets(f"{recipe}: {note}" for recipe, note in findings.data.items())
    return (
        f"<header>\n<h1>{escape(TITLE)}</h1>\n{html.paragraph(lead, 'lead')}{html.contents(_SECTIONS)}"
        f'<div class="tally">{boxes}</div>\n{data}</header>\n'
    )


def _rows(rows: Rows, kind: str = "") -> str:
    return html.table(rows.head, rows.rows, badge=rows.verdict, badges=_BADGES, kind=kind)


def _figures(store: Store, passed_over: list[str]) -> Iterator[str]:
    with TemporaryDirectory() as folder:
        paths = build(store, Path(folder), formats=["png"], say=passed_over.append)
        for path in paths:
            if path.suffix == ".png":
                yield html.picture(path.read_bytes(), _CAPTIONS[path.stem], _CAPTIONS[path.stem])


def _table1(table: Table1) -> Iterator[str]:
    head = "".join(f"<th>{escape(ALGORITHMS[name].label)}</th>" for name in COLUMNS)
    body = "".join(
        f"<tr><td>{escape(row.title)}</td>{''.join(_cell(row.cells[name]) for name in COLUMNS)}</tr>\n"
        for row in table.rows
    )
    yield (
        f'<div class="wide"><table class="table1">\n<thead><tr><th></th>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table></div>\n"
    )
    yield html.folded("How it is judged", html.bullets(table.notes))
    yield "<h3>Final test accuracy, %</h3>\n"
    yield html.table(ACCURACY_HEAD, accuracy_rows(table), kind="compact")


def _cell(cell: Cell) -> str:
    said = "" if cell.papers == cell.verdict and not cell.findings else f"<i>paper {escape(cell.papers)}</i>"
    for finding in cell.findings:
        text = html.tight(f"{finding.recipe}: {finding.text}")
        said += f"<i>{text if finding.decides else f'({text})'}</i>"
    kind = ' class="words"' if cell.verdict == NOT_RUN else ""
    return f"<td><b{kind}>{escape(cell.verdict)}</b>{said}</td>"


def _curves(findings: Findings) -> Iterator[str]:
    """A table per figure, and below it what a whole figure or one of its panels has to be read with."""
    for figure in dict.fromkeys(panel.figure for panel in findings.panels):
        own = replace(findings, panels=tuple(panel for panel in findings.panels if panel.figure == figure))
        rows = panel_rows(own)
        if not rows.rows:
            continue
        yield f"<h3>{escape(figure_title(own.panels[0]))}</h3>\n"
        without_remarks = [row[:-1] for row in rows.rows]
        yield html.table(rows.head[:-1], without_remarks, badge=rows.verdict, badges=_BADGES, kind="curves")
        yield html.bullets(remarks(own))
        yield html.folded("Layer by layer", _rows(layer_rows(own), "curves"))


def _runs(ran: Ledger) -> Iterator[str]:
    yield html.table(RUNS, ran.runs, kind="dense")
    yield "<h3>Machines and versions</h3>\n"
    yield html.table(MACHINES, ran.machines, kind="dense")
    yield html.folded(f"All {len(ran.attempts)} attempts", html.table(ATTEMPTS, ran.attempts, kind="dense"))


def _failures(ran: Ledger) -> Iterator[str]:
    yield html.bullets(
        [f"Diverged: {line}" for line in ran.diverged] + [f"Failed: {line}" for line in ran.failed]
    )
