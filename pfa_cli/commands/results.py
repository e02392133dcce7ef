"""Commands that show results and bring them together."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pfa_cli import completion
from pfa_cli.errors import UsageError, names_in, unknown
from pfa_cli.options import (
    AsJson,
    Db,
    DbsToLook,
    OfAlgorithms,
    Out,
    RecipeDir,
    Where,
    choosing_runs,
)
from pfa_cli.paths import expanded, expanded_database, expanded_recipe
from pfa_cli.terminal import messages, output
from pfa_cli.wording import count

if TYPE_CHECKING:
    from pfa_cli.runs.selection import Selection


@choosing_runs
def status(
    db: DbsToLook = None,
    *,
    chosen: "Selection",
    sort: Annotated[
        str | None, typer.Option(help="By a column or a setting: test, validation, seed, learning_rate, …")
    ] = None,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between looks with --watch.")] = 2.0,
) -> None:
    """Show the runs: state, epochs, accuracy so far and the time they still need; by groups where they are many."""
    from pfa_cli.runs import status as view
    from pfa_cli.runs.selection import in_order
    from pfa_cli.store.merge import open_to_look

    if watch and as_json:
        raise UsageError(
            "--watch shows tables; leave --json out, or ask for it again and again without --watch"
        )

    def choose(rows: list[view.StatusRow]) -> list[view.StatusRow]:
        found = chosen.of(rows)
        return found if sort is None else in_order(found, sort)

    if watch:
        view.watch(lambda: open_to_look(*db or ()), output, interval, choose)
        return
    with open_to_look(*db or ()) as store:
        rows = choose(view.rows(store))
    if as_json:
        output.say(view.as_json(rows))
    else:
        output.print(view.StatusTable(rows, filtered=bool(chosen)))


def best(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe of which there are runs.",
            autocompletion=completion.of_one(completion.recipe_names),
        ),
    ],
    by: Annotated[str, typer.Option(help="Whose accuracy ranks: validation or train.")] = "validation",
    algos: OfAlgorithms = None,
    where: Where = None,
    as_json: AsJson = False,
    db: DbsToLook = None,
) -> None:
    """Rank the configurations of a recipe: mean accuracy ± standard deviation over seeds. The test set never ranks."""
    from pfa_cli.runs import best as view
    from pfa_cli.runs import status
    from pfa_cli.runs.selection import Selection
    from pfa_cli.store.merge import open_to_look

    if by == "test":
        raise UsageError("--by test: the test set chooses nothing; rank by validation")
    if by not in view.BY:
        raise unknown("accuracy to rank by", by, view.BY)
    recipe = Path(recipe).stem if recipe.endswith(".toml") else recipe
    with open_to_look(*db or ()) as store:
        rows = Selection.parse(recipe=recipe, algos=algos, where=where or ()).of(status.rows(store))
    found = view.ranking([row for row in rows if row.recipe == recipe], recipe, by)
    if as_json:
        output.say(status.as_json(found))
    else:
        output.print(view.show(found, by, len(rows) - sum(one.n + one.unfinished for one in found)))


def figures(
    out: Out = None,
    only: Annotated[
        str | None,
        typer.Option(
            help="Some of them, with commas between: fig2,fig3,table1",
            autocompletion=completion.of_several(completion.figure_names),
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Draw a figure of this recipe, with all its algorithms.")
    ] = None,
    algos: Annotated[
        str | None, typer.Option(help="Draw these in place of the figure's own: bp,fa,readout")
    ] = None,
    where: Where = None,
    panel: Annotated[str | None, typer.Option(help="Only these panels: a or b,c")] = None,
    width: Annotated[str, typer.Option(help="Of the figure: 89mm, 18.3cm, 3.5in")] = "183mm",
    font_size: Annotated[
        float | None, typer.Option(min=3, max=40, help="In points.", show_default="7.5")
    ] = None,
    dpi: Annotated[float | None, typer.Option(min=20, max=2400, help="Of PNG.", show_default="300")] = None,
    notes: Annotated[bool, typer.Option(help="Write below each figure what it shows.")] = True,
    style: Annotated[
        Path | None,
        typer.Option(parser=expanded, metavar="FILE", help="A matplotlib style file, on top of ours."),
    ] = None,
    formats: Annotated[str, typer.Option("--format", help="pdf, png, svg; several with commas")] = "pdf,png",
    published: Annotated[bool, typer.Option(help="Draw the paper's curves beside ours.")] = True,
    validation: Annotated[
        bool, typer.Option("--validation", help="Draw validation accuracy in place of test.")
    ] = False,
    db: DbsToLook = None,
) -> None:
    """Rebuild the paper's figures and Table 1 from the database, and draw those of your own recipes."""
    from pfa_cli.arguments import parse_choices
    from pfa_cli.figures.drawing import Options, inches
    from pfa_cli.report import build
    from pfa_cli.report.table1 import terminal
    from pfa_cli.store.engine import results_folder
    from pfa_cli.store.merge import open_to_look

    wanted = None if only is None else names_in("--only", only)
    kinds = names_in("--format", formats)
    options = Options(
        published=published,
        validation=validation,
        algorithms=() if algos is None else [name.lower() for name in names_in("--algos", algos)],
        panels=() if panel is None else names_in("--panel", panel),
        notes=notes,
        width=inches(width),
        font_size=font_size,
        dpi=dpi,
        style=style,
    )
    chosen = parse_choices(where or (), "--where")
    with open_to_look(*db or ()) as store:
        _, table = build(
            store,
            out or results_folder(*(db or [])[:1]),
            wanted,
            kinds,
            recipe,
            chosen,
            options,
            messages.say,
            output.say,
        )
    if table is not None:
        output.print(terminal(table))


def compare(
    out: Annotated[
        Path | None,
        typer.Option(
            parser=expanded, metavar="FOLDER", help="Write comparison.md and .json into this folder instead."
        ),
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="table, md or json", show_default="table")
    ] = None,
    as_json: AsJson = False,
    db: DbsToLook = None,
) -> None:
    """Hold our runs against the paper's published curves, and judge each of its claims."""
    from pfa_cli.report import FORMATS, rendered, write_comparison
    from pfa_cli.report import compare as against_the_paper
    from pfa_cli.report.comparison import terminal
    from pfa_cli.store.merge import open_to_look

    if out is not None and (as_json or form is not None):
        raise UsageError("--out writes comparison.md and comparison.json; leave --json and --format out")
    if as_json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form}: give one of them")
    form = form or ("json" if as_json else "table")
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    with open_to_look(*db or ()) as store:
        findings = against_the_paper(store)
    if out is not None:
        for path in write_comparison(findings, out):
            output.say(path)
    elif form == "table":
        output.print(terminal(findings))
    else:
        output.say(rendered(findings, form).rstrip("\n"))


def report(out: Out = None, db: DbsToLook = None) -> None:
    """Write report.html: figures, Table 1, the comparison and what was run, on one page."""
    from pfa_cli.report import write_report
    from pfa_cli.store.engine import results_folder
    from pfa_cli.store.merge import open_to_look

    with open_to_look(*db or ()) as store:
        output.say(write_report(store, out or results_folder(*(db or [])[:1])))


def recipes(
    recipe: Annotated[
        str | None,
        typer.Argument(
            parser=expanded_recipe,
            metavar="RECIPE",
            help="Show this one whole.",
            autocompletion=completion.of_one(completion.recipe_names),
        ),
    ] = None,
    recipe_dir: RecipeDir = None,
) -> None:
    """List the recipes, or show one with every setting."""
    from pfa_cli.recipes import list_recipes, listing, load_recipe

    if recipe is None:
        output.print(listing(list_recipes(recipe_dir)))
    else:
        output.print(load_recipe(recipe, recipe_dir).page())


def export(
    place: Annotated[
        Path | None, typer.Argument(parser=expanded, metavar="OUT", help="The same as --out.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=expanded,
            metavar="FILE",
            help="The file to write: .csv or .parquet; - for standard output; for TensorBoard a folder.",
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--to", help="csv, parquet or tensorboard", show_default="by the file's name; csv for -"
        ),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            help="runs, attempts, epochs, layers, simulations or benchmarks",
            show_default="epochs",
            autocompletion=completion.of_one(completion.table_names),
        ),
    ] = None,
    db: DbsToLook = None,
) -> None:
    """Write one table of the database to a file: tidy, one observation per row, settings as columns (docs/tables.md).

    In a CSV, text that begins with = + - or @ has an apostrophe before it, so that a spreadsheet does not compute it.
    TensorBoard gets all runs at once, each with its settings, epochs and layers.
    """
    from pfa_cli.store import tensorboard
    from pfa_cli.store.export import export as write
    from pfa_cli.store.merge import open_to_look

    if (place is None) == (out is None):
        raise UsageError("name the file to write, once: `pfa export epochs.csv`, or --out -")
    target = out or place
    assert target is not None
    to_tensorboard = form == "tensorboard"
    if to_tensorboard and (table is not None or str(target) == "-"):
        raise UsageError(
            "--to tensorboard writes all runs into a folder: leave --table out, and name a folder"
        )
    with open_to_look(*db or ()) as store:
        if to_tensorboard:
            runs = tensorboard.export(store, target)
            output.say(f"{target}: {count(runs, 'run')}; `tensorboard --logdir {target}` shows them")
        elif str(target) == "-":
            write(store, table or "epochs", sys.stdout.buffer, form or "csv")
            sys.stdout.flush()  # at the interpreter's end, a closed pipe would be a traceback
        else:
            rows = write(store, table or "epochs", target, form)
            output.say(f"{target}: {count(rows, 'row')}")


def merge(
    others: Annotated[
        list[str],
        typer.Argument(
            parser=expanded_database,
            metavar="OTHER...",
            help="The databases to bring in, or a folder of them; they are only read.",
        ),
    ],
    db: Db = None,
) -> None:
    """Bring in the results of other machines. Twice is the same as once; conflicts are named and ours is kept.

    Of several databases, those that are damaged or not pfa's are named and left out.
    """
    from pfa_cli.store.merge import merge as bring_in

    report = bring_in(db, *others)
    output.say(str(report))
    if report.left_out:
        raise typer.Exit(1)
