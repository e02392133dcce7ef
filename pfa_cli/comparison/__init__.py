"""Ours against the paper: deviations from its published curves, a verdict on each claim, and the report.

    claims, published curves ─┐
                              ├→ findings → terminal, Markdown, JSON
    database → evidence ──────┘          └→ report.html, with figures, Table 1 and what was run where

Pure functions of the database: same database, same bytes. Importing this package is cheap.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pfa_cli.errors import unknown

if TYPE_CHECKING:
    from pfa_cli.comparison.findings import Findings
    from pfa_cli.store.engine import Store

FORMATS = ("table", "md", "json")


def compare(store: "Store") -> "Findings":
    """Holds all that the database has against the paper; ``renderings`` and ``as_json`` show it.

    Raises NoResults if no epoch is stored.
    """
    from pfa_cli.comparison.findings import find

    return find(store)


def write_comparison(findings: "Findings", out: Path, formats: Sequence[str] = ("md", "json")) -> list[Path]:
    """Writes ``comparison.md`` and ``.json`` into ``out``; PfaError if that is not possible."""
    from pfa_cli.figures.page import write

    return [write(Path(out) / f"comparison.{kind}", rendered(findings, kind).encode()) for kind in formats]


def rendered(findings: "Findings", kind: str) -> str:
    """The findings as text, ``md`` or ``json``; UsageError for another kind."""
    from pfa_cli.comparison.renderings import markdown

    if kind not in ("md", "json"):
        raise unknown("format", kind, FORMATS)
    return markdown(findings) if kind == "md" else findings.as_json() + "\n"


def write_report(store: "Store", out: Path) -> Path:
    """Writes ``report.html`` into ``out``: one page that needs nothing else.

    Raises NoResults if no epoch is stored, PfaError if the page cannot be written.
    """
    from pfa_cli.comparison.report import page
    from pfa_cli.figures.page import write

    return write(Path(out) / "report.html", page(store).encode())
