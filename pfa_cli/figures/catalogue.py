"""All the figures there are: the paper's (``paper.toml``), one for every other recipe that was run, and figures of one's own.

A figure of one's own is a function ``Evidence -> Drawing | None`` that a package names as an entry point of the group
``pfa.figures`` (docs/figures.md). It is drawn in the style of all figures, and its frame becomes a CSV file beside it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint

from pfa_cli.analysis.evidence import Evidence
from pfa_cli.analysis.paper import Figure, paper
from pfa_cli.errors import PfaError
from pfa_cli.figures import beyond, expansion, training
from pfa_cli.figures.drawing import Drawing, Options
from pfa_cli.figures.style import house_style
from pfa_cli.plugins import installed, load_installed

GROUP = "pfa.figures"
_LONGEST = 200  # characters of a recipe's name in that of a file, which may have 255
_KINDS = {"training": training.draw, "expansion": expansion.draw, "beyond": beyond.draw}


@dataclass(frozen=True)
class Entry:
    """A figure that can be drawn: its title, the command that makes what it shows, and the function that draws it."""

    title: str
    command: str
    function: Callable[[Evidence, Options], Drawing | None]

    def draw(self, evidence: Evidence, options: Options) -> Drawing | None:
        """The figure in the common style, or None if nothing of it was run."""
        with house_style(options):
            return self.function(evidence, options)

    def missing(self, name: str, database: str, *, narrowed: bool = False) -> str:
        """What to say where there is nothing to draw. ``narrowed``: only some of the runs were looked at."""
        if narrowed:
            return f"{name}: no run of it in {database} fits --where."
        cure = f"; `{self.command}` makes it" if self.command else ""
        return f"{name}: nothing of it is in {database}{cure}."


def catalogue(evidence: Evidence) -> dict[str, Entry]:
    """The figures by name, in their order."""
    found = {name: _declared(name, figure) for name, figure in paper().figures.items()}
    for recipe in evidence.recipes:
        if recipe not in paper().experiments:
            found |= of_recipe(evidence, recipe)
    found |= {point.name: _own(point) for point in installed(GROUP).values() if point.name not in found}
    return found


def of_recipe(evidence: Evidence, recipe: str) -> dict[str, Entry]:
    """The training figure of all algorithms that ``recipe`` was run with, under its name, as far as a file's can hold it."""
    name = f"training-{re.sub(r'[^A-Za-z0-9._-]', '_', recipe)[:_LONGEST]}"
    return {name: _declared(name, training.declaration(evidence, recipe))}


def _declared(name: str, figure: Figure) -> Entry:
    return Entry(figure.title, figure.command, partial(_KINDS[figure.kind], name, figure))


def _own(point: EntryPoint) -> Entry:
    """A figure of one's own; what goes wrong in it is one sentence, and the other figures are drawn."""
    where = f"the figure {point.name} ({point.value})"

    def draw(evidence: Evidence, options: Options) -> Drawing | None:
        function = load_installed("figure", point).value
        try:
            drawing = function(evidence)
        except Exception as error:
            raise PfaError(f"{where} failed: {type(error).__name__}: {error}") from error
        if drawing is not None and not isinstance(drawing, Drawing):
            raise PfaError(f"{where} returned no Drawing, but {drawing!r:.80}")
        return drawing

    return Entry(f"{point.name}.", "", draw)
