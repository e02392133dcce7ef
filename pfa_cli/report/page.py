"""``report.html``: figures, Table 1, the comparison and what was run, on one page that needs nothing else."""

from collections.abc import Iterator

from pfa_cli.analysis.evidence import Evidence
from pfa_cli.analysis.findings import Findings, find
from pfa_cli.analysis.statistics import CONTRADICTED, NOT_RUN, RULES, SUPPORTED, UNDECIDED
from pfa_cli.analysis.table1 import Table1, judge_table
from pfa_cli.errors import PfaError
from pfa_cli.figures.catalogue import catalogue
from pfa_cli.figures.drawing import Options
from pfa_cli.figures.page import rendered
from pfa_cli.report import comparison, html, table1
from pfa_cli.report.ledger import Ledger, ledger

TITLE = "Deep Learning without Weight Symmetry: a reproduction"
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


def page(evidence: Evidence) -> str:
    """The whole page. NoResults if no epoch is stored."""
    findings, ran = find(evidence), ledger(evidence)
    passed_over: list[str] = []
    pictures = list(_figures(evidence, passed_over))
    missing = [*ran.never, *ran.unfinished, *comparison.not_run(findings), *passed_over]
    return html.document(
        TITLE,
        _top(findings, ran),
        _section("claims", comparison.claims(findings).html()),
        _section("figures", *pictures),
        _section("table1", *_table1(judge_table(evidence))),
        _section("curves", *_curves(findings)),
        _section("runs", *_runs(ran)),
        _section("failures", html.bullets(ran.failures)),
        _section("missing", html.bullets(missing)),
        _section("rules", html.bullets(RULES)),
    )


def _section(anchor: str, *parts: str) -> str:
    return html.section(anchor, _SECTIONS[anchor], *(parts if any(parts) else [html.paragraph("Nothing.")]))


def _top(findings: Findings, ran: Ledger) -> str:
    verdicts = [one.verdict for one in findings.claims]
    boxes = "".join(
        f"<div><b>{verdicts.count(word)}</b><span>claims {html.escape(word)}</span></div>"
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
        f"<header>\n<h1>{html.escape(TITLE)}</h1>\n{html.paragraph(lead, 'lead')}{html.contents(_SECTIONS)}"
        f'<div class="tally">{boxes}</div>\n{data}</header>\n'
    )


def _figures(evidence: Evidence, passed_over: list[str]) -> Iterator[str]:
    for name, entry in catalogue(evidence).items():
        try:
            drawing = entry.draw(evidence, Options())
        except PfaError as error:
            passed_over.append(f"{error}.")
            continue
        if drawing is None:
            passed_over.append(entry.missing(name, evidence.name))
        else:
            yield html.picture(rendered(drawing.figure, "png"), entry.title, entry.title)


def _table1(table: Table1) -> Iterator[str]:
    accuracy = table1.accuracy_table(table)
    yield table1.table(table).html()
    yield html.folded("How it is judged", html.bullets(table.notes))
    yield f"<h3>{html.escape(accuracy.title)}</h3>\n{accuracy.html()}" if accuracy.rows else ""


def _curves(findings: Findings) -> Iterator[str]:
    """A table per figure, and below it what a whole figure or one of its panels has to be read with."""
    for own in comparison.by_figure(findings):
        panels = comparison.panels(own)
        if panels.rows:
            yield f"<h3>{html.escape(comparison.figure_title(own.panels[0]))}</h3>\n"
            yield panels.without("").html()
            yield html.bullets(comparison.remarks(own))
            yield html.folded("Layer by layer", comparison.layers(own).html())


def _runs(ran: Ledger) -> Iterator[str]:
    yield ran.runs.html()
    yield f"<h3>{html.escape(ran.machines.title)}</h3>\n{ran.machines.html()}"
    yield html.folded(ran.attempts.title, ran.attempts.html())
