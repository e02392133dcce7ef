"""What a shell offers when Tab is pressed: recipes, algorithms, tables and figures (`pfa --install-completion`)."""

from collections.abc import Callable, Iterable


def of_one(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Completes one of ``names``."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def of_several(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Completes the last of several names with commas between."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        there = before.split(",")
        return [before + comma + name for name in names() if name.startswith(last) and name not in there]

    return complete


def recipe_names() -> Iterable[str]:
    from pfa_cli.recipes import list_recipes

    return [recipe.name for recipe in list_recipes()]


def algorithm_names() -> Iterable[str]:
    from pfa_cli.registry import ALGORITHMS

    return ["all", *ALGORITHMS]


def table_names() -> Iterable[str]:
    from pfa_cli.store.tables import TABLES

    return TABLES


def figure_names() -> Iterable[str]:
    from pfa_cli.analysis.paper import paper

    return [*paper().figures, "table1"]


def state_names() -> Iterable[str]:
    from pfa_cli.runs.status import STYLES

    return STYLES
