"""Results in words: Table 1, the comparison with the paper, and the report with figures and what was run where.

Pure functions of the database: same database, same bytes. Importing this package is cheap; pandas comes in when something
is read, matplotlib when something is drawn.
"""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfa_cli.errors import PfaError, UsageError, unknown
from pfa_cli.files import save

if TYPE_CHECKING:
    from pfa_cli.analysis.findings import Findings
    from pfa_cli.analysis.table1 import Table1
    from pfa_cli.figures.drawing import Options
    from pfa_cli.store.engine import Store

FORMATS = ("table", "md", "json")  # of the comparison


@contextmanager
def _less_overhead() -> Iterator[None]:
    """For thousands of small objects, figures and frames; together a fifth of the time.

    Unreachable objects are searched for seldom: all are looked through after about 15 figures, of 10 MB each. Columns of
    text are Python's objects: pyarrow's are made for long ones.
    """
    import pandas as pd

    usual = gc.get_threshold()
    gc.set_threshold(50_000, 5, 5)
    try:
        with pd.option_context("mode.string_storage", "python"):
            yield
    finally:
        gc.set_threshold(*usual)


@_less_overhead()
def build(
    store: "Store",
    out: Path,
    only: Sequence[str] | None = None,
    formats: Sequence[str] = ("pdf", "png"),
    recipe: str | None = None,
    where: Mapping[str, Sequence[Any]] | None = None,
    options: "Options | None" = None,
    say: Callable[[str], None] = lambda message: None,
    written: Callable[[Path], None] = lambda path: None,
) -> "tuple[list[Path], Table1 | None]":
    """Writes the figures, each with the CSV of what it shows, and Table 1 into ``out``; the files, and the table.

    Without ``only`` and ``recipe``, everything that the database has runs for. ``say`` is told what was passed over and
    what makes it; what was asked for by name must be there. ``written`` is told each file once it is whole, so that
    those before an error are known, too.

    Args:
        only: some of the names in ``figures.catalogue``, and "table1".
        formats: pdf, png, svg, for the figures; the table comes as Markdown, CSV and LaTeX.
        recipe: draw the training figure of this recipe, with all algorithms that it was run with.
        where: take only runs whose setting, seed or tag has one of these values.
        options: how the figures are drawn.

    Raises:
        UsageError: an unknown figure, panel, recipe, format or setting, or a style file that cannot be read.
        PfaError: nothing to draw (all else that was asked for is written), or the folder cannot be written to.
    """
    from pfa_cli.analysis.curves import csv
    from pfa_cli.analysis.evidence import Evidence
    from pfa_cli.analysis.table1 import judge_table
    from pfa_cli.figures.catalogue import Entry, catalogue, of_recipe
    from pfa_cli.figures.drawing import Options
    from pfa_cli.figures.page import check_formats, save_figure
    from pfa_cli.figures.style import house_style
    from pfa_cli.registry import ALGORITHMS
    from pfa_cli.report.table1 import write_table1

    check_formats(formats)
    options = replace(options or Options(), runs_note=_narrowed(where))
    with house_style(options):  # a style file that cannot be read is no fault of a figure
        pass
    evidence = Evidence(store, where)
    for name in options.algorithms:
        if name not in (names := {*ALGORITHMS, *evidence.all_runs["algorithm"]}):
            raise unknown("algorithm", name, names)
    known: dict[str, Entry | None] = {**catalogue(evidence), "table1": None}
    for name in only or ():
        if name not in known:
            raise unknown("figure", name, known)
    wanted = list(only if only is not None else () if recipe is not None else known)
    if recipe is not None:
        if evidence.comparison(recipe) is None:
            if where and recipe in set(evidence.all_runs["recipe"]):
                raise UsageError(f"no run of {recipe} in {store.name} fits --where.")
            raise unknown("recipe with results", recipe, evidence.recipes)
        known |= (own := of_recipe(evidence, recipe))
        wanted += [name for name in own if name not in wanted]
    paths: list[Path] = []
    missing: list[str] = []
    fault = PfaError
    table = None

    def keep(files: Iterable[Path]) -> None:
        for path in files:
            paths.append(path)
            written(path)

    for name in wanted:
        entry = known[name]
        if entry is None:
            if evidence.runs.empty:
                missing.append(f"table1: nothing of it is in {store.name}; `pfa run mnist` makes it.")
            else:
                table = judge_table(evidence)
                table = replace(table, notes=tuple(filter(None, (*table.notes, options.runs_note))))
                keep(write_table1(table, out))
            continue
        try:
            drawing = entry.draw(evidence, options)
        except PfaError as error:
            missing.append(f"{error}.")
            fault = UsageError if isinstance(error, UsageError) else fault
            continue
        if drawing is None:
            missing.append(entry.missing(name, store.name, narrowed=bool(where) and len(evidence.runs) > 0))
        else:
            keep(save_figure(drawing.figure, out, name, formats, options))
            keep([save(out / f"{name}.csv", csv(drawing.shown))])
    if missing and (only is not None or not paths):
        raise fault(" ".join(missing))
    for message in missing:
        say(message)
    return paths, table


@_less_overhead()
def compare(store: "Store") -> "Findings":
    """Holds all that the database has against the paper; ``rendered`` and ``comparison.terminal`` show it.

    Raises NoResults if no epoch is stored.
    """
    from pfa_cli.analysis.evidence import Evidence
    from pfa_cli.analysis.findings import find

    return find(Evidence(store))


def _narrowed(where: Mapping[str, Sequence[Any]] | None) -> str:
    """A note that not all runs are shown; empty where they are."""
    chosen = " and ".join(f"{name}={','.join(map(str, values))}" for name, values in (where or {}).items())
    return f"Only runs with {chosen}." if chosen else ""


def rendered(findings: "Findings", kind: str) -> str:
    """The findings as text, ``md`` or ``json``."""
    from pfa_cli.report.comparison import as_markdown

    return as_markdown(findings) if kind == "md" else findings.as_json() + "\n"


def write_comparison(findings: "Findings", out: Path) -> Iterator[Path]:
    """Writes ``comparison.md`` and ``.json`` into ``out``; each file, once it is written. PfaError if it cannot be."""
    for kind in ("md", "json"):
        yield save(out / f"comparison.{kind}", rendered(findings, kind))


@_less_overhead()
def write_report(store: "Store", out: Path) -> Path:
    """Writes ``report.html`` into ``out``: one page that needs nothing else.

    Raises NoResults if no epoch is stored, PfaError if the page cannot be written.
    """
    from pfa_cli.analysis.evidence import Evidence
    from pfa_cli.report.page import page

    return save(out / "report.html", page(Evidence(store)))
