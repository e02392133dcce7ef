"""Recipes as tables for the terminal."""

from collections.abc import Iterable

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.recipes import Recipe


def recipe_list(recipes: Iterable[Recipe]) -> Table:
    """One line per recipe."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("recipe", "what it is", "epochs", "network"):
        table.add_column(heading, no_wrap=heading == "recipe")
    for recipe in recipes:
        table.add_row(recipe.name, recipe.title, *(_values(recipe, key) for key in ("epochs", "network")))
    return table


def _values(recipe: Recipe, key: str) -> str:
    """Every value that the setting has; mostly one."""
    values = (getattr(recipe.configuration(name), key) for name in ALGORITHMS)
    return ", ".join(dict.fromkeys(map(str, values)))


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
    title = Text(f"{recipe.name}: {recipe.title}\n", style="bold") + Text(
        " ".join(recipe.description.split())
    )
    return Group(title, Text(f"{recipe.path}\n", style="dim"), shared, own, *sweeps)
