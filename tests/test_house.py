"""The order of the packages: imports go down, never in a circle and never up; those inside functions count, too."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "pfa_cli"

# From the bottom up. A module may import what stands on its own line or on one before it.
LEVELS = [
    [
        "errors",
        "wording",
        "launched",
        "files",
        "paths",
        "cores",
        "randomness",
        "records",
        "signals",
        "terminal",
        "ranks",
        "plugins",
        "source",
        "kernels",
    ],
    ["registry"],
    ["arguments", "configuration", "recipes"],
    ["store"],
    ["algorithms", "networks", "data", "theory", "published_draws"],
    ["training"],
    ["runs"],
    ["analysis"],
    ["figures"],
    ["report"],
    ["bench"],
    ["completion", "notebook", "reproduce", "options", "doctor", "commands", "cli", "__main__", ""],
]


def modules() -> dict[str, Path]:
    named = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")
    }
    return {name.removesuffix("__init__").rstrip("."): path for name, path in named.items()}


def imported(node: ast.AST) -> Iterator[str]:
    """What a module imports of this package, but for annotations only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.ImportFrom) and (child.module or "").partition(".")[0] == "pfa_cli":
            parent = (child.module or "").removeprefix("pfa_cli").lstrip(".")
            yield from (f"{parent}.{alias.name}".lstrip(".") for alias in child.names)
        yield from imported(child)


def graph() -> dict[str, set[str]]:
    known = modules()
    found = {}
    for name, path in known.items():
        names = imported(ast.parse(path.read_text(encoding="utf-8")))
        found[name] = {one if one in known else one.rpartition(".")[0] for one in names} - {name, ""}
    return found


def test_no_module_imports_itself_in_a_circle() -> None:
    assert len(tuple(TopologicalSorter(graph()).static_order())) > 80  # CycleError names the circle


def test_no_import_goes_up() -> None:
    placed = {name for names in LEVELS for name in names}
    assert placed == {name.partition(".")[0] for name in modules()}, "a new module needs its place in LEVELS"
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    up = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if level[other.partition(".")[0]] > level[name.partition(".")[0]]
    ]
    assert not up
