"""`pfa db`, `pfa data` and `pfa runs`: the commands that look after the results database, the data sets and the runs."""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pfa_cli.errors import UsageError
from pfa_cli.options import (
    AsJson,
    CheckpointDir,
    DataDir,
    Db,
    DbsToLook,
    Device,
    RecipeArgument,
    RecipeDir,
    choosing_runs,
)
from pfa_cli.paths import expanded
from pfa_cli.terminal import output
from pfa_cli.wording import count

if TYPE_CHECKING:
    from pfa_cli.runs.selection import Selection
    from pfa_cli.runs.status import StatusRow
    from pfa_cli.store.engine import Store

db_app = typer.Typer(help="Look after the results database.", no_args_is_help=True)
runs_app = typer.Typer(
    help="List runs and change what is stored of them; without --yes a command only says what it would do.",
    no_args_is_help=True,
)
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


Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="Numbers of runs, as `pfa runs list` shows them: 3 5-7"),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without it the runs are only named.")]


@runs_app.command("list")
@choosing_runs
def list_runs(
    ids: Ids = None,
    *,
    chosen: "Selection",
    as_json: AsJson = False,
    db: DbsToLook = None,
) -> None:
    """Show runs one by one, with their numbers, tags and notes."""
    from pfa_cli.runs import status
    from pfa_cli.store.merge import open_to_look

    with open_to_look(*db or ()) as store:
        rows = _numbered(chosen, ids).of(status.rows(store))
    if as_json:
        output.say(status.as_json(rows))
    else:
        output.print(status.StatusTable(rows, filtered=True, whole=True))


@runs_app.command()
@choosing_runs
def delete(
    ids: Ids = None,
    *,
    chosen: "Selection",
    yes: Yes = False,
    db: Db = None,
) -> None:
    """Delete runs with their epochs and checkpoints."""
    from pfa_cli.runs import manage

    with _opened(db, ids, chosen, write=yes) as (store, rows):
        manage.at_rest(rows)
        if _confirmed(yes, rows, "be deleted, with their epochs and checkpoints"):
            output.say(manage.delete(store, rows))


@runs_app.command()
@choosing_runs
def rerun(
    ids: Ids = None,
    *,
    chosen: "Selection",
    jobs: Annotated[int | None, typer.Option(min=1, help="Cells trained at a time.")] = None,
    device: Device = "auto",
    yes: Yes = False,
    db: Db = None,
    checkpoint_dir: CheckpointDir = None,
    data_dir: DataDir = None,
) -> None:
    """Train runs again from the start; their epochs are deleted. (`pfa run` goes on with failed and interrupted ones.)"""
    from pfa_cli.launched import refuse_several
    from pfa_cli.runs import manage

    refuse_several("pfa runs rerun")
    with _opened(db, ids, chosen, write=yes) as (store, rows):
        manage.at_rest(rows)
        plan = manage.plan_again(store, rows)
        if not _confirmed(yes, rows, "lose all epochs and checkpoints, and be trained from the start"):
            return
        from pfa_cli.runs.launch import dry_run, run_cells

        # Refuses before anything is deleted.
        dry_run(db, plan, device=device, data_dir=data_dir, checkpoint_dir=checkpoint_dir)
        manage.reset(store, rows)
    code = run_cells(
        db,
        plan,
        jobs=jobs,
        device=device,
        data_dir=data_dir,
        checkpoint_dir=checkpoint_dir,
        console=output,
    )
    raise typer.Exit(code)


@runs_app.command()
@choosing_runs
def tag(
    tags: Annotated[str, typer.Argument(metavar="TAG", help="Words with commas between.")],
    ids: Ids = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the tags away.")] = False,
    *,
    chosen: "Selection",
    yes: Yes = False,
    db: Db = None,
) -> None:
    """Give runs tags, by which --where tag=TAG finds them."""
    from pfa_cli.store.edit import tag_runs

    _check_order("tag", tags, ids or [])
    words = [word.strip() for word in tags.split(",") if word.strip()]
    if not words:
        raise UsageError(f"{tags!r} has no word to tag runs with")
    with _opened(db, ids, chosen, write=yes) as (store, rows):
        what = f"{'lose' if remove else 'get'} the tags {', '.join(words)}"
        if _confirmed(yes, rows, what):
            tag_runs(store, [row.run_id for row in rows], words, remove=remove)
            output.say(f"{count(len(rows), 'run')} {'lost' if remove else 'got'} the tags {', '.join(words)}")


@runs_app.command()
@choosing_runs
def note(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A sentence; empty: no note.")],
    ids: Ids = None,
    *,
    chosen: "Selection",
    yes: Yes = False,
    db: Db = None,
) -> None:
    """Give runs a note, in place of the one they have."""
    from pfa_cli.store.edit import note_runs

    _check_order("note", text, ids or [])
    with _opened(db, ids, chosen, write=yes) as (store, rows):
        if _confirmed(yes, rows, f"get the note {text!r}" if text else "lose the note"):
            note_runs(store, [row.run_id for row in rows], text or None)
            output.say(f"{count(len(rows), 'run')} {'noted' if text else 'lost their notes'}")


def _check_order(command: str, first: str, ids: list[str]) -> None:
    """UsageError with the right command if the numbers of the runs stand before the tag or the note."""
    *numbers, last = [first, *ids]
    if (
        numbers
        and all(re.fullmatch(r"[\d,-]*\d", number) for number in numbers)
        and not re.match(r"\d", last)
    ):
        right = f"pfa runs {command} {shlex.quote(last)} {' '.join(numbers)}"
        raise UsageError(f"the {command} comes first, then the numbers of the runs: `{right}`")


def _numbered(chosen: "Selection", ids: list[str] | None) -> "Selection":
    """``chosen``, of the runs with these numbers; UsageError if one is no number."""
    return replace(chosen, ids=chosen.parse(ids or ()).ids)


@contextmanager
def _opened(
    db: str | None, ids: list[str] | None, chosen: "Selection", *, write: bool
) -> Iterator[tuple["Store", list["StatusRow"]]]:
    """The open database and the runs that a command is about. UsageError if nothing says which."""
    from pfa_cli.runs import status
    from pfa_cli.store.engine import open_store

    chosen = _numbered(chosen, ids)
    if not chosen:
        raise UsageError("name the runs by their numbers, or by --recipe, --algos, --state or --where")
    with open_store(db, write=write, create=False) as store:
        yield store, chosen.of(status.rows(store))


def _confirmed(yes: bool, rows: list["StatusRow"], what: str) -> bool:
    """Whether to do it; else says which runs it would concern."""
    from pfa_cli.runs.status import StatusTable

    if not rows:
        output.say("no such runs")
    elif not yes:
        output.print(StatusTable(rows, whole=True))
        output.say(f"{count(len(rows), 'run')} would {what}: --yes does it")
    return yes and bool(rows)
