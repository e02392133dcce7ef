"""Options and arguments that several commands have, with how their words are read."""

from collections.abc import Callable
from enum import Enum
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from pfa_cli import completion
from pfa_cli.paths import expanded, expanded_database, expanded_recipe

Db = Annotated[
    str | None,
    typer.Option(
        "--db",
        parser=expanded_database,
        metavar="FILE",
        help="Results database: a file, or postgresql://user@host/database.",
        show_default="PFA_DB, else results/pfa.db",
    ),
]
DbsToLook = Annotated[
    list[str] | None,
    typer.Option(
        "--db",
        parser=expanded_database,
        metavar="FILE",
        help="Results database: a file, a folder of files, or postgresql://user@host/database; several are united.",
        show_default="PFA_DB, else results/pfa.db",
    ),
]
RecipeArgument = Annotated[
    str,
    typer.Argument(
        parser=expanded_recipe,
        metavar="RECIPE",
        help="A recipe's name (see `pfa recipes`) or a .toml file.",
        autocompletion=completion.of_one(completion.recipe_names),
    ),
]
RecipeDir = Annotated[
    Path | None, typer.Option(parser=expanded, metavar="FOLDER", help="Folder with recipes of your own.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; repeatable.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        parser=expanded,
        metavar="FOLDER",
        help="Folder with the data sets.",
        show_default="PFA_DATA, else the user's cache",
    ),
]
CheckpointDir = Annotated[
    Path | None,
    typer.Option(
        parser=expanded,
        metavar="FOLDER",
        envvar="PFA_CHECKPOINTS",
        help="Folder for the checkpoints of new cells; a database on a server needs one.",
        show_default="beside the database",
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N; auto takes a GPU if there is one.")]


class Kept(Enum):
    """How many checkpoints stay of a done cell."""

    none = "none"
    last = "last"
    two = "2"

    @property
    def number(self) -> int:
        return {"none": 0, "last": 1, "2": 2}[self.value]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Out = Annotated[
    Path | None,
    typer.Option(
        parser=expanded,
        metavar="FOLDER",
        help="Folder for what is made.",
        show_default="the database's folder",
    ),
]
OfRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        help="Only runs of this recipe; several with commas.",
        autocompletion=completion.of_several(completion.recipe_names),
    ),
]
OfAlgorithms = Annotated[
    str | None,
    typer.Option(
        "--algos",
        help="Only runs of these algorithms, with commas between.",
        autocompletion=completion.of_several(completion.algorithm_names),
    ),
]
OfState = Annotated[
    str | None,
    typer.Option(
        "--state",
        help="Only runs in this state: failed, stale, done, …; several with commas.",
        autocompletion=completion.of_several(completion.state_names),
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="KEY=VALUE",
        help="Only runs with this setting, seed or tag; repeatable. VALUE,VALUE: either.",
    ),
]
_OF_RUNS = {"recipe": OfRecipe, "algos": OfAlgorithms, "state": OfState, "where": Where}


def choosing_runs(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with the options that choose runs in place of its parameter ``chosen``; it gets them as a `Selection`."""

    @wraps(command)
    def parsed(**words: Any) -> None:
        from pfa_cli.runs.selection import Selection

        command(chosen=Selection.parse(**{name: words.pop(name) for name in _OF_RUNS}), **words)

    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=of) for name, of in _OF_RUNS.items()
    ]
    parameters: list[Parameter] = []
    for own in signature(command).parameters.values():
        parameters += options if own.name == "chosen" else [own.replace(kind=Parameter.KEYWORD_ONLY)]
    parsed.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    parsed.__annotations__ = {each.name: each.annotation for each in parameters}
    return parsed
