"""Recipes and small results as tables for the terminal."""

from collections.abc import Iterable

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.recipes import Recipe
from pfa_cli.theory.cortex import CorticalEstimate


def recipe_list(recipes: Iterable[Recipe]) -> Table:
    """One line per recipe."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("recipe", "what it is", "epochs", "network"):
        table.add_column(heading, no_wrap=heading == "recipe")
    for recipe in recipes:
        table.add_row(recipe.name, recipe.title, str(recipe.base["epochs"]), str(recipe.base["network"]))
    return table


def recipe_page(recipe: Recipe) -> Group:
    """A recipe whole: the settings all algorithms share, and what each algorithm has of its own."""
    shared = Table(box=box.SIMPLE_HEAD, title="For every algorithm", title_justify="left")
    own = Table(box=box.SIMPLE_HEAD, title="Of one algorithm", title_justify="left")
    for heading in ("setting", "value", "meaning"):
        shared.add_column(heading, no_wrap=heading == "setting")
    for heading in ("algorithm", "setting", "value", "meaning"):
        own.add_column(heading, no_wrap=heading in ("algorithm", "setting"))
    for row in recipe.settings():
        shared.add_row(*row)
    for name in ALGORITHMS:
        for index, row in enumerate(recipe.algorithm_settings(name)):
            own.add_row(name if index == 0 else "", *row)
    sweeps = [
        Text(f"pfa run {recipe.name} --sweep {name}: {sweep.algorithm}, {sweep.seeds} seeds, ")
        + Text(f"{sweep.key} = {', '.join(map(str, sweep.values))}")
        for name, sweep in recipe.sweeps.items()
    ]
    heading = Text.assemble(
        (f"{recipe.name}: {recipe.title}\n", "bold"), " ".join(recipe.description.split())
    )
    return Group(heading, Text(f"{recipe.path}\n", style="dim"), shared, own, *sweeps)


def cortical_estimate(found: CorticalEstimate) -> Table:
    """The appendix's estimate: exact, simulated, and as the paper states it."""
    table = Table(
        box=box.SIMPLE_HEAD, caption="Over all connected pairs, a missing feedback weight counted as 0."
    )
    for heading in ("", "exact", f"simulated ({found.draws} × {found.pairs} pairs)", "paper"):
        table.add_column(heading, justify="left" if heading == "" else "right")
    table.add_row(
        "weight correlation R",
        f"{found.exact_correlation:.3f}",
        f"{found.correlation_mean:.3f} ± {found.correlation_std:.3f}",
        "≈ 0.2",
    )
    table.add_row(
        "alignment angle",
        f"{found.exact_angle_degrees:.1f}°",
        f"{found.angle_degrees_mean:.1f}° ± {found.angle_degrees_std:.1f}°",
        "78°",
    )
    return table
