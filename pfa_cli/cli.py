"""The command line: one thin function per command. What a command needs is imported when it runs, so that help is quick."""

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pfa_cli import completion
from pfa_cli.errors import PfaError, UsageError, in_words, unknown
from pfa_cli.files import refuse_special
from pfa_cli.options import (
    AsJson,
    CheckpointDir,
    DataDir,
    Db,
    Device,
    Kept,
    OfAlgorithms,
    OfRecipe,
    OfState,
    Out,
    RecipeDir,
    Settings,
    Where,
)
from pfa_cli.paths import expanded, expanded_database, expanded_recipe
from pfa_cli.terminal import messages, output, prepare_streams, show_error, table
from pfa_cli.upkeep import data_app, db_app, runs_app

if TYPE_CHECKING:
    from pfa_cli.runs.plan import Plan
    from pfa_cli.runs.shards import Shard

# The parser's own exceptions: typer brings them along under names that differ between its versions.
_CommandLineError: Any = typer.BadParameter.__mro__[2]
# Bytes. A socket's path has 107 at most; those of worker processes and of torch add up to 45 to their folder's.
_LONGEST_FOLDER_OF_SOCKETS = 62

app = typer.Typer(
    name="pfa",
    help="Train networks by eight credit-assignment algorithms and rebuild the figures of "
    "'Deep Learning without Weight Symmetry'.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(runs_app, name="runs")
app.add_typer(db_app, name="db")
app.add_typer(data_app, name="data")


def main() -> None:
    """Runs `pfa`: an error that the user can mend is one message and an exit code (2 for wrong usage, 1 otherwise)."""
    _prepare_environment()
    prepare_streams()
    try:
        code = app(prog_name="pfa", standalone_mode=False) or 0
    except PfaError as error:
        show_error(str(error))
        code = error.exit_code
    except _CommandLineError as error:
        code = _wrong_command_line(error)
    except OSError as error:
        show_error(in_words(error))
        code = 1
    sys.exit(code)


def _prepare_environment() -> None:
    """Figures are drawn to files whatever MPLBACKEND says; sockets need a temporary folder with a short name.

    torch's C++ code says on the terminal, past Python's warnings, that memory ran out, which a lane mends by itself.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ["MPLBACKEND"] = "agg"  # a notebook's back end is not there for its child processes
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_FOLDER_OF_SOCKETS and os.access("/tmp", os.W_OK):
        os.environ["TMPDIR"] = "/tmp"
        tempfile.tempdir = None  # to be found anew


def _wrong_command_line(error: Any) -> int:
    """What the parser says of a command line that it cannot read; its exit code."""
    if message := error.format_message():  # empty where typer has shown the help in its place
        command = error.ctx.command_path if error.ctx else "pfa"
        end = "" if message.endswith((".", "?")) else "."
        show_error(f"{message}{end} `{command} --help` says what it takes.")
    return error.exit_code


def _show_version(wanted: bool) -> None:
    if wanted:
        from pfa_cli.source import version

        output.say(version())
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    try:
        Path.cwd()
    except FileNotFoundError:  # torch's libraries would end the process
        raise PfaError("the working directory was deleted: change to one that exists") from None


@app.command()
def run(
    recipes: Annotated[
        list[str],
        typer.Argument(
            parser=expanded_recipe,
            metavar="RECIPE",
            help="Recipes by name (see `pfa recipes`) or .toml file, trained in this order.",
            autocompletion=completion.of_one(completion.recipe_names),
        ),
    ],
    algos: Annotated[
        str | None,
        typer.Option(
            help="all, or names with commas between: pfa,bp. Your own: file.py:Class",
            show_default="all",
            autocompletion=completion.of_several(completion.algorithm_names),
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="How many (5: 0 to 4), or which: 0,3 or 2-4", show_default="1")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Train this many epochs; milestones scale with them.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a setting; repeatable. Several values, with commas between, are a grid.",
        ),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            help="Run the recipe's sweeps of these names, with commas between; --algos: only those."
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, tf32, bf16 or fp16; recorded with the run.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Cells trained at a time.", show_default="by the machine")
    ] = None,
    device: Device = "auto",
    together: Annotated[
        bool,
        typer.Option(
            "--together", help="Cells of one seed train on the same stream of images, decoded once."
        ),
    ] = False,
    eager: Annotated[
        bool, typer.Option("--eager", help="On a GPU: without CUDA graphs, slower but sure.")
    ] = False,
    ranks: Annotated[
        int | None, typer.Option(min=1, help="Processes of this machine that train each cell together.")
    ] = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", help="Stay until cells in other processes' hands are done, or take them over."
        ),
    ] = False,
    grace: Annotated[
        float | None,
        typer.Option(
            help="Minutes without a sign of life after which a process elsewhere counts as gone.",
            show_default="PFA_GRACE, else 5",
        ),
    ] = None,
    kept: Annotated[
        Kept,
        typer.Option("--keep-checkpoints", help="What stays of a done cell: none, its last or its last 2."),
    ] = Kept.last,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Only every Nth cell, the Ith first, in a database of its own beside --db."
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Stop runs whose validation accuracy is below the median of other settings', after a quarter of the epochs.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    db: Db = None,
    data_dir: DataDir = None,
    checkpoint_dir: CheckpointDir = None,
    recipe_dir: RecipeDir = None,
) -> None:
    """Make these cells done: recipes × algorithms × settings × seeds.

    What is done is skipped and what was interrupted is resumed, so the same command may be given twice.
    """
    from pfa_cli.launched import RENDEZVOUS, launched
    from pfa_cli.runs.shards import Shard
    from pfa_cli.runs.start_ranks import end_with_parent, start_ranks

    end_with_parent()
    first = launched().rank == 0
    if grace is not None:
        os.environ["PFA_GRACE"] = str(grace)  # worker processes ask, too
    part = None if shard is None else Shard.parse(shard)
    if part:
        db = part.database(db)
    try:
        names, plan = _planned(
            recipes, algos, seeds, epochs, settings, sweep, precision, db, recipe_dir, part
        )
        if prune:
            plan.check_prunable()
    except PfaError as error:
        if first:
            raise
        raise typer.Exit(error.exit_code) from None  # the same in all ranks, and the first one says it
    if ranks is not None and RENDEZVOUS not in os.environ and not dry_run:
        raise typer.Exit(start_ranks(ranks))
    if dry_run:
        from pfa_cli.runs.launch import dry_run as check

        check(db, plan, device=device, data_dir=data_dir, checkpoint_dir=checkpoint_dir, ranks=ranks)
        if first:
            output.print(plan.table())
        return
    if first:  # torch takes seconds to import
        output.say(f"{names}: {plan.summary()}; starting")
    from pfa_cli.runs.launch import run_cells

    raise typer.Exit(
        run_cells(
            db,
            plan,
            jobs=jobs,
            device=device,
            data_dir=data_dir,
            checkpoint_dir=checkpoint_dir,
            console=output,
            eager=eager,
            together=together,
            wait=wait,
            kept=kept.number,
            prune=prune,
        )
    )


def _planned(
    recipes: list[str],
    algos: str | None,
    seeds: str | None,
    epochs: int | None,
    settings: list[str] | None,
    sweep: str | None,
    precision: str | None,
    db: str | None,
    recipe_dir: Path | None,
    shard: "Shard | None" = None,
) -> "tuple[str, Plan]":
    """The recipes' names and the cells that `pfa run` with these options asks for."""
    from pfa_cli.recipes import load_recipe, parse_algorithms, parse_grid, parse_seeds
    from pfa_cli.runs.plan import make_plan, make_sweep_plan, united
    from pfa_cli.store.engine import open_if_there

    found = [load_recipe(name, recipe_dir) for name in recipes]
    combinations = parse_grid(settings or [])
    for key, value in (("epochs", epochs), ("precision", precision)):
        if value is not None and key in combinations[0]:
            raise UsageError(f"--{key} {value} and --set {key}={combinations[0][key]}: give one of them")
        if value is not None:
            combinations = [{**overrides, key: value} for overrides in combinations]
    numbers = None if seeds is None else parse_seeds(seeds)
    with open_if_there(db) as store:
        plans = []
        for each in found:
            names = None if algos is None else parse_algorithms(algos, each.plugins)
            if sweep is None:
                chosen = names or parse_algorithms("all", each.plugins)
                plans.append(make_plan(store, each, chosen, numbers or [0], *combinations))
                continue
            for one in _names("--sweep", sweep):
                plans.append(make_sweep_plan(store, each, one, numbers, *combinations, algorithms=names))
    plan = united(plans)
    return ", ".join(dict.fromkeys(each.name for each in found)), shard.of(plan) if shard else plan


@app.command()
def reproduce(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(
            parser=expanded_recipe,
            metavar="RECIPE",
            help="Only these.",
            show_default="the paper's",
            autocompletion=completion.of_one(completion.recipe_names),
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="How many (5: 0 to 4), or which: 0,3 or 2-4")] = "5",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Cells trained at a time.", show_default="by the machine")
    ] = None,
    device: Device = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show cells, hours and disk, by a trial of a minute.")
    ] = False,
    out: Out = None,
    db: Db = None,
    checkpoint_dir: CheckpointDir = None,
    data_dir: DataDir = None,
    recipe_dir: RecipeDir = None,
) -> None:
    """Run the whole paper: all nine algorithms and the paper's sweeps, then figures, Table 1, comparison and report.

    Every recipe whose data are here or can be fetched, the shortest first; what is left out is said. Given again, it goes on.
    """
    from pfa_cli import reproduce as whole
    from pfa_cli.analysis.paper import paper
    from pfa_cli.launched import refuse_several
    from pfa_cli.recipes import list_recipes, load_recipe, parse_seeds
    from pfa_cli.store.engine import open_if_there, results_folder

    refuse_several("pfa reproduce")
    if recipes:
        found = [load_recipe(name, recipe_dir) for name in recipes]
    else:
        found = [recipe for recipe in list_recipes(recipe_dir) if recipe.name in paper().experiments]
    folder = whole.data_folder(data_dir)
    with open_if_there(db) as store:
        parts = whole.parts(store, found, parse_seeds(seeds), folder)
    if dry_run:
        parts = [whole.estimated(part, device, folder, messages.say) for part in parts]
        output.print(whole.overview(parts, results_folder(db), device))
        return
    raise typer.Exit(
        whole.reproduce(
            parts,
            db,
            out or results_folder(db),
            jobs=jobs,
            device=device,
            data_dir=folder,
            checkpoint_dir=checkpoint_dir,
            console=output,
        )
    )


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def submit(
    context: typer.Context,
    recipes: Annotated[
        list[str],
        typer.Argument(
            parser=expanded_recipe,
            metavar="RECIPE",
            help="As for `pfa run`, with any of its options: --algos, --seeds, --jobs, --ranks, …",
        ),
    ],
    partition: Annotated[str | None, typer.Option(help="Partition to run in.")] = None,
    time: Annotated[
        str | None, typer.Option(help="Time limit, as sbatch takes it: 4:00:00 is 4 hours.")
    ] = None,
    array: Annotated[
        int | None, typer.Option(min=1, help="Jobs that share the cells, as one job array.")
    ] = None,
    gres: Annotated[str | None, typer.Option(help="GPUs of each job: gpu:1.")] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Any other option of sbatch: cpus-per-task=8; repeatable."),
    ] = None,
    setup: Annotated[
        list[str] | None,
        typer.Option(metavar="LINE", help="A line of the script before pfa: 'module load cuda'; repeatable."),
    ] = None,
    shards: Annotated[
        bool,
        typer.Option(
            "--shards",
            help="Each job of the array has a database of its own: for disks shared over NFS, without a server.",
        ),
    ] = False,
    show: Annotated[bool, typer.Option("--print", help="Only print the script.")] = False,
    db: Db = None,
    recipe_dir: RecipeDir = None,
) -> None:
    """Submit `pfa run` to Slurm: one job, or an array whose jobs share the cells.

    The script lies beside the database. It saves before the time limit or pre-emption ends it, and goes on where it stopped.
    """
    from pfa_cli.runs.submission import Submission, parse_sbatch

    if shards and array is None:
        raise UsageError(
            "--shards deals the cells out to the jobs of an array: say how many, such as --array 8"
        )
    given = [*recipes, *context.args, *([f"--recipe-dir={recipe_dir.absolute()}"] if recipe_dir else [])]
    command: Any = typer.main.get_command(app)
    options = command.get_command(context, "run").make_context("pfa run", [*given]).params
    planning = ("recipes", "algos", "seeds", "epochs", "settings", "sweep", "precision", "recipe_dir")
    names, plan = _planned(**{name: options[name] for name in planning}, db=db)
    asked = {"partition": partition, "time": time, "gres": gres}
    submission = Submission(
        run=given,
        name=names.replace(", ", "-"),
        db=db,
        array=array,
        shards=shards,
        sbatch={key: value for key, value in asked.items() if value} | parse_sbatch(sbatch or []),
        setup=setup or [],
    )
    if show:
        output.say(submission.script(submission.folder / f"{submission.name}.sh").rstrip("\n"))
    else:
        output.say(f"{plan.summary()}. {submission.submit()}")


@app.command()
def status(
    db: Db = None,
    recipe: OfRecipe = None,
    algos: OfAlgorithms = None,
    state: OfState = None,
    where: Where = None,
    sort: Annotated[
        str | None, typer.Option(help="By a column or a setting: test, validation, seed, learning_rate, …")
    ] = None,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing it until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between looks with --watch.")] = 2.0,
) -> None:
    """Show the runs: state, epochs, accuracy so far and the time they still need; by groups where they are many."""
    from pfa_cli.runs import status as view
    from pfa_cli.runs.selection import Selection, in_order
    from pfa_cli.store.engine import open_store

    if watch and as_json:
        raise UsageError(
            "--watch shows tables; leave --json out, or ask for it again and again without --watch"
        )
    selection = Selection.parse((), recipe, algos, state, where or [])

    def choose(rows: list[view.StatusRow]) -> list[view.StatusRow]:
        chosen = selection.of(rows)
        return chosen if sort is None else in_order(chosen, sort)

    if watch:
        view.watch(lambda: open_store(db, write=False), output, interval, choose)
        return
    with open_store(db, write=False) as store:
        rows = choose(view.rows(store))
    if as_json:
        output.say(view.as_json(rows))
    else:
        output.print(view.StatusTable(rows, filtered=bool(selection)))


@app.command()
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
    db: Db = None,
) -> None:
    """Rank the configurations of a recipe: mean accuracy ± standard deviation over seeds. The test set never ranks."""
    from pfa_cli.runs import best as view
    from pfa_cli.runs import status
    from pfa_cli.runs.selection import Selection
    from pfa_cli.store.engine import open_store

    if by == "test":
        raise UsageError("--by test: the test set chooses nothing; rank by validation")
    if by not in view.BY:
        raise unknown("accuracy to rank by", by, view.BY)
    recipe = Path(recipe).stem if recipe.endswith(".toml") else recipe
    with open_store(db, write=False) as store:
        rows = Selection.parse((), recipe, algos, None, where or []).of(status.rows(store))
    found = view.ranking([row for row in rows if row.recipe == recipe], recipe, by)
    if as_json:
        output.say(view.as_json(found))
    else:
        output.print(view.show(found, by, len(rows) - sum(one.n + one.unfinished for one in found)))


@app.command()
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
    db: Db = None,
) -> None:
    """Rebuild the paper's figures and Table 1 from the database, and draw those of your own recipes."""
    from pfa_cli.arguments import parse_choices
    from pfa_cli.figures.drawing import Options, inches
    from pfa_cli.report import build
    from pfa_cli.report.table1 import terminal
    from pfa_cli.store.engine import open_store, results_folder

    wanted = None if only is None else _names("--only", only)
    kinds = _names("--format", formats)
    options = Options(
        published=published,
        validation=validation,
        algorithms=() if algos is None else [name.lower() for name in _names("--algos", algos)],
        panels=() if panel is None else _names("--panel", panel),
        notes=notes,
        width=inches(width),
        font_size=font_size,
        dpi=dpi,
        style=style,
    )
    chosen = parse_choices(where or (), "--where")
    with open_store(db, write=False) as store:
        paths, table = build(
            store, out or results_folder(db), wanted, kinds, recipe, chosen, options, messages.say
        )
    for path in paths:
        output.say(path)
    if table is not None:
        output.print(terminal(table))


@app.command()
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
    db: Db = None,
) -> None:
    """Hold our runs against the paper's published curves, and judge each of its claims."""
    from pfa_cli.report import compare as against_the_paper
    from pfa_cli.report import rendered, write_comparison
    from pfa_cli.report.comparison import terminal
    from pfa_cli.store.engine import open_store

    if out is not None and (as_json or form is not None):
        raise UsageError("--out writes comparison.md and comparison.json; leave --json and --format out")
    if as_json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form}: give one of them")
    with open_store(db, write=False) as store:
        findings = against_the_paper(store)
    if out is not None:
        for path in write_comparison(findings, out):
            output.say(path)
    elif as_json or form not in (None, "table"):
        output.say(rendered(findings, form or "json").rstrip("\n"))
    else:
        output.print(terminal(findings))


@app.command()
def report(out: Out = None, db: Db = None) -> None:
    """Write report.html: figures, Table 1, the comparison and what was run, on one page."""
    from pfa_cli.report import write_report
    from pfa_cli.store.engine import open_store, results_folder

    with open_store(db, write=False) as store:
        output.say(write_report(store, out or results_folder(db)))


@app.command()
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


@app.command()
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
        typer.Option(help="runs, attempts, epochs, layers, simulations or benchmarks", show_default="epochs"),
    ] = None,
    db: Db = None,
) -> None:
    """Write one table of the database to a file: tidy, one observation per row, settings as columns (docs/tables.md).

    In a CSV, text that begins with = + - or @ has an apostrophe before it, so that a spreadsheet does not compute it.
    TensorBoard gets all runs at once, each with its settings, epochs and layers.
    """
    from pfa_cli.store import tensorboard
    from pfa_cli.store.engine import open_store
    from pfa_cli.store.export import export as write

    if (place is None) == (out is None):
        raise UsageError("name the file to write, once: `pfa export epochs.csv`, or --out -")
    target = out or place
    assert target is not None
    to_tensorboard = form == "tensorboard"
    if to_tensorboard and (table is not None or str(target) == "-"):
        raise UsageError(
            "--to tensorboard writes all runs into a folder: leave --table out, and name a folder"
        )
    with open_store(db, write=False) as store:
        if to_tensorboard:
            runs = tensorboard.export(store, target)
            output.say(f"{target}: {runs} runs; `tensorboard --logdir {target}` shows them")
        elif str(target) == "-":
            write(store, table or "epochs", sys.stdout.buffer, form or "csv")
        else:
            rows = write(store, table or "epochs", target, form)
            output.say(f"{target}: {rows} rows")


@app.command()
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


@app.command()
def simulate(db: Db = None) -> None:
    """Compute and store the simulations of Figures 3 and 6 (`pfa run` does so too)."""
    from pfa_cli.store.engine import open_store
    from pfa_cli.theory.simulate import ensure

    with open_store(db, write=True) as store:
        stored = ensure(store)
    output.say(f"{stored} simulations stored" if stored else "all simulations are stored already")


@app.command()
def cortex(
    synapses: Annotated[
        int, typer.Option(min=100, max=100_000_000, help="Synapses in the simulation.")
    ] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Estimate how symmetric cortical weights are (paper, Appendix 1.2: R ≈ 0.2, 78°)."""
    from pfa_cli.theory.cortex import estimate

    found = estimate(synapses, seed)
    output.say(found.as_json() if as_json else found.sentence())


@app.command()
def bench(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(
            parser=expanded_recipe,
            metavar="RECIPE",
            help="Recipes by name or .toml file.",
            autocompletion=completion.of_one(completion.recipe_names),
            show_default="all there are",
        ),
    ] = None,
    algos: Annotated[
        str,
        typer.Option(
            help="all, or names with commas between",
            autocompletion=completion.of_several(completion.algorithm_names),
        ),
    ] = "all",
    settings: Settings = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Equal processes at a time.", show_default="as pfa run does")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each process.")] = 1,
    repetitions: Annotated[int, typer.Option(min=1, help="Samples of each contender, at most.")] = 40,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps in a sample.", show_default="4; 1 if slow")
    ] = None,
    minutes: Annotated[
        float, typer.Option(min=0.01, help="For the steps of each recipe; what is too slow is made smaller.")
    ] = 2.0,
    device: Device = "auto",
    growth: Annotated[bool, typer.Option(help="Vary batch, width and expansion ratio, too.")] = True,
    memory: Annotated[bool, typer.Option(help="Measure the peak memory of each, too.")] = True,
    as_json: AsJson = False,
    out: Annotated[
        Path | None, typer.Option(parser=expanded, metavar="FILE", help="Write the JSON into this file, too.")
    ] = None,
    store_it: Annotated[bool, typer.Option("--store", help="Keep the numbers in the database.")] = False,
    db: Db = None,
    data_dir: DataDir = None,
    recipe_dir: RecipeDir = None,
) -> None:
    """Time a training step of every algorithm against BP, plain torch and the matrix products alone.

    Nothing is downloaded: where a recipe's images are not at hand, random pixels of their shape take their place.
    """
    from contextlib import nullcontext

    from pfa_cli.bench import command, report
    from pfa_cli.recipes import list_recipes, load_recipe, parse_algorithms, parse_overrides
    from pfa_cli.store.engine import open_store

    found = [load_recipe(name, recipe_dir) for name in recipes] if recipes else list_recipes(recipe_dir)
    options = command.Options(
        jobs, threads, repetitions, steps, minutes, device, data_dir, memory=memory, growth=growth
    )
    chosen, overrides = parse_algorithms(algos), parse_overrides(settings or [])
    if out is not None:
        _check_writable(out)
    done, left_out = [], {}
    with open_store(db, write=True) if store_it else nullcontext() as store:
        for result in command.bench(found, chosen, overrides, options, messages.say, named=bool(recipes)):
            if isinstance(result, command.LeftOut):
                left_out[result.recipe] = result.reason
                messages.say(f"{result.recipe}: left out: {result.reason}")
                continue
            done.append(result)
            if not as_json:
                output.print(report.show(result))
            if store is not None:
                report.record(result, store)
    if as_json:
        output.say(report.as_json(done, left_out))
    if out is not None:
        from pfa_cli.files import save

        save(out, report.as_json(done, left_out) + "\n")


@app.command()
def doctor(
    recipe: Annotated[
        str | None,
        typer.Argument(
            parser=expanded_recipe, metavar="RECIPE", help="What is to run.", show_default="anything"
        ),
    ] = None,
    device: Device = "auto",
    precision: Annotated[
        str | None, typer.Option(help="fp32, tf32, bf16 or fp16.", show_default="the recipe's")
    ] = None,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Try every algorithm's CUDA graphs, too; takes a minute.")
    ] = False,
    as_json: AsJson = False,
    db: Db = None,
    data_dir: DataDir = None,
    recipe_dir: RecipeDir = None,
) -> None:
    """Say what a run would get on this machine; exit code 0 only if it could begin. Trains and writes nothing."""
    import json
    from dataclasses import asdict

    from pfa_cli.doctor import Wanted, examine, try_graphs
    from pfa_cli.recipes import load_recipe

    asked = Wanted(load_recipe(recipe, recipe_dir) if recipe else None, device, precision, db, data_dir)
    findings = [*examine(asked), *(try_graphs(asked) if gpu else [])]
    if as_json:
        output.say(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        rows = [(f.what, f.found, "cannot run so" if f.in_the_way else "") for f in findings]
        output.print(table(("", "here", ""), rows, wraps=("here",)))
    raise typer.Exit(1 if any(finding.in_the_way for finding in findings) else 0)


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"{option} {text!r} names nothing; leave {option} out, or name some")
    return names


def _check_writable(path: Path) -> None:
    """PfaError before the work rather than after it."""
    try:
        refuse_special(path)
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise PfaError(f"cannot write {path} ({error.strerror}); name another file with --out") from None
