"""``report.html``: figures, Table 1, the comparison and what was run, on one page that needs nothing else."""

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from pfa_cli.analysis.evidence import Evidence
from pfa_cli.analysis.findings import Findings, find
from pfa_cli.analysis.statistics import RULES
from pfa_cli.analysis.table1 import judge_table
from pfa_cli.analysis.words import labels
from pfa_cli.errors import PfaError
from pfa_cli.errors import shown as printable
from pfa_cli.figures.catalogue import catalogue
from pfa_cli.figures.drawing import Options
from pfa_cli.figures.page import rendered
from pfa_cli.report import comparison, table1
from pfa_cli.report.ledger import ledger
from pfa_cli.report.tables import look, tight
from pfa_cli.wording import count

TITLE = "Deep Learning without Weight Symmetry: a reproduction"
SECTIONS = {
    "claims": "Claims of the paper",
    "own": "Claims of our own",
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
    findings, ran, table = find(evidence), ledger(evidence), judge_table(evidence)
    passed_over: list[str] = []
    styles: dict[str, str] = {}
    pictures = list(_figures(evidence, passed_over, styles))
    lead = (
        "Eight algorithms that assign credit with and without symmetric weights (Ji-An & Benna): what our runs "
        "show, held against the paper's published curves."
    )
    environment = Environment(
        loader=PackageLoader("pfa_cli.report", ""),
        autoescape=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"shown": printable, "tight": tight, "look": look}
    return environment.get_template("report.html.j2").render(
        title=TITLE,
        lead=f"{lead} Results up to {ran.last} UTC." if ran.last else lead,
        style=(files("pfa_cli.report") / "report.css").read_text(encoding="utf-8"),
        svg_style="".join(f".{name} {{ {css} }}\n" for css, name in styles.items()),
        sections=SECTIONS,
        counts=comparison.counts(findings.claims),
        data=[f"{recipe}: {note}" for recipe, note in findings.data.items()],
        claims=comparison.claims(findings),
        own_claims=comparison.own_claims(findings),
        figures=pictures,
        verdicts=table1.verdicts(table),
        numbers=table1.numbers(table),
        accuracy=table1.accuracy_table(table),
        layout=table1.LAYOUT,
        notes=table.notes,
        curves=list(_curves(findings)),
        replays=comparison.replays(findings),
        ran=ran,
        missing=[*ran.never, *ran.unfinished, *comparison.not_run(findings), *passed_over],
        rules=RULES,
    )


def _figures(evidence: Evidence, passed_over: list[str], styles: dict[str, str]) -> Iterator[dict[str, str]]:
    options = Options()
    for name, entry in catalogue(evidence).items():
        try:
            drawing = entry.draw(evidence, options)
        except PfaError as error:
            passed_over.append(f"{error}.")
            continue
        if drawing is None:
            passed_over.append(entry.missing(name, evidence.name))
        else:
            svg = rendered(drawing.figure, "svg", options).decode()
            yield {
                "name": name,
                "title": entry.title,
                "alt": in_words(drawing.shown),
                "svg": inline(svg, name, styles),
            }


def in_words(shown: pd.DataFrame) -> str:
    """What each panel of a figure shows, for readers who do not see it."""
    if not {"panel", "quantity"} <= set(shown):
        return f"A chart of {count(len(shown), 'point')}."
    parts = []
    for panel, rows in shown.groupby("panel", sort=True):
        quantities = ", ".join(str(one).replace("_", " ") for one in rows["quantity"].dropna().unique())
        names = labels(rows["algorithm"].dropna().unique()) if "algorithm" in rows else ""
        parts.append(f"Panel {panel}: {quantities}{f' of {names}' if names else ''}.")
    return " ".join(parts)


def inline(svg: str, name: str, styles: dict[str, str]) -> str:
    """matplotlib's SVG as a small element of a page: with ids of its own, no size, and coordinates to a tenth of a point.

    ``styles`` collects what its elements look like: CSS → the name of a class that stands for it.
    """
    element = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    needless = r' (?:width|height)="[\d.]+pt"| xmlns(:xlink)?="[^"]*"|(?<=<g) id="[^"]*"| transform="rotate\(-0 [^"]*"'
    element = re.sub(needless, "", element)
    prefix = re.sub(r"\W", "_", name)
    element = re.sub(r'( id="|url\(#|href="#)', rf"\1{prefix}-", element)
    kept: list[str] = []
    groups: list[bool] = []  # the open ones: whether they say anything
    for part in re.split(r"(<[^>]*>)", element):  # what stands between tags is text
        if part.startswith("<g") and not part.endswith("/>"):
            groups.append(part != "<g>")
        if part in ("<g>", "<g/>") or (part == "</g>" and not groups.pop()):
            continue
        kept.append(_smaller(part, styles) if part.startswith("<") else part.strip())
    return "".join(kept)


def _smaller(tag: str, styles: dict[str, str]) -> str:
    tag = re.sub(
        r' style="([^"]*)"', lambda css: f' class="{styles.setdefault(css[1], f"s{len(styles)}")}"', tag
    )
    tag = re.sub(r' d="([^"]*)"', lambda found: f' d="{_path(found[1])}"', tag)
    return re.sub(r"\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), tag)


def _path(data: str) -> str:
    """The path with each point relative to the one before it, in tenths of a point, which takes half of the text.

    >>> _path("M 10.04 20 L 11.5 19.5 L 11.52 19.52 L 12 19.5 C 1 2 3 4 5 6 z")
    'M10 20l1.5-.5 .5 0c-11-17.5-9-15.5-7-13.5z'
    """
    written: list[str] = []
    x = y = start_x = start_y = 0
    before = ""
    for command, numbers in re.findall(r"([MLCQz])([^MLCQz]*)", data):
        places = [round(10 * float(number)) for number in numbers.split()]
        steps = [place - (y if i % 2 else x) for i, place in enumerate(places)]
        if places:
            x, y = places[-2:]
        if command == "M":
            steps, (start_x, start_y) = places, (x, y)
        elif command == "z":
            x, y = start_x, start_y
        elif not any(steps) and before == command == "L":
            continue
        text = re.sub(r"\b0\.", ".", " ".join(f"{step / 10:g}" for step in steps)).replace(" -", "-")
        if command == before != "M":
            written.append(text if text.startswith("-") else f" {text}")
        else:
            written.append((command if command in "Mz" else command.lower()) + text)
        before = command
    return "".join(written)


def _curves(findings: Findings) -> Iterator[dict[str, Any]]:
    """A table per figure, and what a whole figure or one of its panels has to be read with."""
    for own in comparison.by_figure(findings):
        panels = comparison.panels(own)
        if panels.rows:
            yield {
                "title": comparison.figure_title(own.panels[0]),
                "panels": panels.without(""),
                "remarks": comparison.remarks(own),
                "layers": comparison.layers(own),
            }
