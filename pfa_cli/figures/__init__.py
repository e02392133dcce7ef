"""The paper's figures and Table 1: pure functions of the results database. Same database, same bytes.

Importing this package is cheap; matplotlib and pandas come in when something is built.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pfa_cli.errors import unknown

if TYPE_CHECKING:
    from pfa_cli.figures.table1 import Table1
    from pfa_cli.store.engine import Store

NAMES = ("fig2", "fig2-supplement", "fig3", "fig4", "fig4-supplement", "fig5", "table1")


def build(
    store: "Store",
    out: Path,
    only: Sequence[str] | None = None,
    formats: Sequence[str] = ("pdf", "png"),
    published: bool = True,
    validation: bool = False,
    say: Callable[[str], None] | None = None,
) -> list[Path]:
    """Writes the figures and the table, each with the CSV of what it shows, into ``out``; the files written.

    Without ``only``, everything that the database has runs for; ``say`` is told what was passed over and what makes it.

    Args:
        only: some of ``NAMES``.
        formats: pdf, png, svg, for the figures; the table comes as Markdown, CSV and LaTeX.
        published: draw the paper's curves beside ours, thin and grey.
        validation: draw validation accuracy in place of test accuracy, where it was recorded.

    Raises:
        UsageError: an unknown figure or format.
        PfaError: nothing to draw (all else that was asked for is written), or the folder cannot be written to.
    """
    for name in only or ():
        if name not in NAMES:
            raise unknown("figure", name, NAMES)
    from pfa_cli.figures.catalogue import build as build_all

    paths, passed_over = build_all(
        store, Path(out), only, formats, published=published, validation=validation
    )
    for message in passed_over:
        if say is not None:
            say(message)
    return paths


def table_1(store: "Store") -> "Table1":
    """Table 1 as judged from the database; ``table1_files`` renders it (``terminal``, ``markdown``, ``latex``, ``frame``)."""
    from pfa_cli.figures.evidence import Evidence
    from pfa_cli.figures.table1 import judge

    return judge(Evidence(store))
