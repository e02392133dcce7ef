"""`pfa db` and `pfa data`: the commands that look after the results database and the data sets."""

from pathlib import Path
from typing import Annotated

import typer

from pfa_cli.options import DataDir, Db, RecipeArgument, RecipeDir
from pfa_cli.paths import expanded
from pfa_cli.terminal import output

db_app = typer.Typer(help="Look after the results database.", no_args_is_help=True)
data_app = typer.Typer(help="Look after the data sets.", no_args_is_help=True)


@data_app.command()
def fetch(recipe: RecipeArgument, data_dir: DataDir = None, recipe_dir: RecipeDir = None) -> None:
    """Fetch and verify the data of a recipe, for runs on machines without a network; says where they lie."""
    from pfa_cli.data import default_data_dir, verify_data
    from pfa_cli.recipes import load_recipe

    folder = (data_dir or default_data_dir()).absolute()
    for description in verify_data(load_recipe(recipe, recipe_dir), folder):
        output.say(f"{description}: in {folder}")


@db_app.command()
def check(db: Db = None) -> None:
    """Look for damage and for half-written runs; says what to do. Changes nothing."""
    from pfa_cli.store.check import check as look

    report = look(db)
    output.say(str(report))
    raise typer.Exit(0 if report.ok else 1)


@db_app.command()
def upgrade(db: Db = None) -> None:
    """Bring a database of an older pfa up to date; everything in it is kept."""
    from pfa_cli.store.engine import open_store

    with open_store(db, write=True, create=False) as store:
        output.say(f"{store.name} is up to date")


@db_app.command()
def prune(
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove them; without it they are only named.")
    ] = False,
    db: Db = None,
) -> None:
    """Remove the checkpoints that no run goes on from: of done cells all but the last, and of cells not in the database."""
    from pfa_cli.runs.checkpoints import unneeded
    from pfa_cli.store.engine import open_store

    with open_store(db, write=False) as store:
        found = list(unneeded(store))
    for item in found:
        output.say(f"{item.folder}: {item.size / 1e6:.1f} MB: {item.reason}")
        if delete:
            item.remove()
    total = f"{sum(item.size for item in found) / 1e6:.1f} MB of checkpoints"
    if not found:
        output.say(
            "nothing to remove: every checkpoint is one that a run goes on from, or a done cell's last"
        )
    elif delete:
        output.say(f"removed {total}")
    else:
        output.say(f"{total} can go: `pfa db prune --delete` removes them")


@db_app.command()
def salvage(
    out: Annotated[
        Path, typer.Argument(parser=expanded, metavar="FILE", help="A new file for what can be read.")
    ],
    db: Db = None,
) -> None:
    """Save what can be read of a damaged database in a new one; the damaged one is left as it is."""
    from pfa_cli.store.salvage import salvage as save

    output.say(str(save(db, out)))
