"""Commands that train: `pfa run`, `pfa reproduce`, `pfa submit`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pfa_cli import completion
from pfa_cli.errors import PfaError, UsageError, names_in
from pfa_cli.options import (
    CheckpointDir,
    DataDir,
    Db,
    Device,
    Kept,
    Out,
    RecipeDir,
)
from pfa_cli.paths import expanded_recipe
from pfa_cli.terminal import messages, output

if TYPE_CHECKING:
    from pfa_cli.recipes import Recipe
    from pfa_cli.runs.plan import Plan


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
        bool | None,
        typer.Option(
            "--together/--apart",
            help="Cells of one seed train on the same stream of images, decoded once; or each reads its own.",
            show_default="together for photographs on a GPU",
        ),
    ] = None,
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show cells, hours and disk; stores nothing.")
    ] = False,
    db: Db = None,
    data_dir: DataDir = None,
    checkpoint_dir: CheckpointDir = None,
    recipe_dir: RecipeDir = None,
) -> None:
    """Make these cells done: recipes × algorithms × settings × seeds.

    What is done is skipped and what was interrupted is resumed, so the same command may be given twice.
    """
    from pfa_cli.launched import RENDEZVOUS, launched
    from pfa_cli.runs.start_ranks import end_with_parent, start_ranks

    end_with_parent()
    first = launched().rank == 0
    if grace is not None:
        os.environ["PFA_GRACE"] = str(grace)  # worker processes ask, too
    with _said_once(PfaError):
        found, db, plan = _planned(
            recipes, algos, seeds, epochs, settings, sweep, precision, prune, db, recipe_dir, shard
        )
    if ranks is not None and RENDEZVOUS not in os.environ and not dry_run:
        raise typer.Exit(start_ranks(ranks))
    if dry_run and not first:
        return
    if dry_run:
        from pfa_cli.runs.launch import dry_run as check

        plan = plan.without_pruned() if prune else plan
        disk = check(
            db,
            plan,
            device=device,
            data_dir=data_dir,
            checkpoint_dir=checkpoint_dir,
            ranks=ranks,
            jobs=jobs,
            kept=kept.number,
        )
        output.print(_timed(plan, found, device, db, data_dir).table())
        output.say(disk)
        return
    if first:  # torch takes seconds to import
        names = ", ".join(dict.fromkeys(recipe.name for recipe in found))
        output.say(f"{names}: {plan.summary()}; starting")
    from pfa_cli.runs.launch import run_cells

    with _said_once(UsageError):
        code = run_cells(
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
    raise typer.Exit(code)


@contextmanager
def _said_once(kind: type[PfaError]) -> Iterator[None]:
    """An error of this kind is the same in all ranks of a machine: the first of them says it, the others only end by it."""
    from pfa_cli.launched import launched

    try:
        yield
    except kind as error:
        if launched().local_rank == 0:
            raise
        raise typer.Exit(error.exit_code) from None


def _planned(
    recipes: list[str],
    algos: str | None,
    seeds: str | None,
    epochs: int | None,
    settings: list[str] | None,
    sweep: str | None,
    precision: str | None,
    prune: bool,
    db: str | None,
    recipe_dir: Path | None,
    shard: str | None,
) -> "tuple[list[Recipe], str | None, Plan]":
    """The recipes, the database and the cells that `pfa run` with these options asks for."""
    from pfa_cli.arguments import parse_algorithms, parse_grid, parse_seeds
    from pfa_cli.recipes import load_recipe
    from pfa_cli.runs.plan import make_plan, make_sweep_plan, united
    from pfa_cli.runs.shards import Shard
    from pfa_cli.store.engine import open_if_there

    part = None if shard is None else Shard.parse(shard)
    if part:
        db = part.database(db)
    found = [load_recipe(name, recipe_dir) for name in dict.fromkeys(recipes)]
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
            for one in names_in("--sweep", sweep):
                plans.append(make_sweep_plan(store, each, one, numbers, *combinations, algorithms=names))
    plan = united(plans)
    if part:
        plan = part.of(plan)
    if prune:
        plan.check_prunable()
    return found, db, plan


def _timed(
    plan: "Plan", recipes: "list[Recipe]", device: str, db: str | None, data_dir: Path | None
) -> "Plan":
    """``plan`` with hours on this kind of device: from stored epochs, else from a few steps of each algorithm."""
    from pfa_cli.runs.plan import refreshed
    from pfa_cli.store.engine import open_if_there
    from pfa_cli.training.device import choose_device

    trained_on = choose_device(device)
    with open_if_there(db) as store:
        plan = refreshed(plan, store, trained_on.type)
    if not plan.without_time:
        return plan
    from pfa_cli.bench.command import with_times
    from pfa_cli.data import default_data_dir

    return with_times(plan, recipes, trained_on, data_dir or default_data_dir(), messages.say)


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
        bool,
        typer.Option(
            "--dry-run",
            help="Only show cells, hours and disk: from stored epochs, else from a few steps of each algorithm.",
        ),
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
    from pfa_cli.arguments import parse_seeds
    from pfa_cli.launched import refuse_several
    from pfa_cli.recipes import list_recipes, load_recipe
    from pfa_cli.store.engine import open_if_there, results_folder

    refuse_several("pfa reproduce")
    if recipes:
        found = [load_recipe(name, recipe_dir) for name in recipes]
    else:
        found = [recipe for recipe in list_recipes(recipe_dir) if recipe.name in paper().experiments]
    folder = whole.data_folder(data_dir)
    with open_if_there(db) as store:
        parts = whole.parts(store, found, parse_seeds(seeds), folder, device)
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
    from pfa_cli.runs.checkpoints import check_checkpoint_dir
    from pfa_cli.runs.submission import Submission, parse_sbatch

    if shards and array is None:
        raise UsageError(
            "--shards deals the cells out to the jobs of an array: say how many, such as --array 8"
        )
    given = [*recipes, *context.args, *([f"--recipe-dir={recipe_dir.absolute()}"] if recipe_dir else [])]
    command: Any = context.find_root().command
    options = command.get_command(context, "run").make_context("pfa run", [*given]).params
    if options["dry_run"]:
        raise UsageError(
            "--dry-run is an option of `pfa run`; `pfa submit --print` shows the script and submits nothing"
        )
    planning = (
        "recipes", "algos", "seeds", "epochs", "settings", "sweep", "precision", "prune", "recipe_dir", "shard",
    )  # fmt: skip
    found, _, plan = _planned(**{name: options[name] for name in planning}, db=db)
    check_checkpoint_dir(db, options["checkpoint_dir"])
    asked = {"partition": partition, "time": time, "gres": gres}
    submission = Submission(
        run=given,
        name="-".join(dict.fromkeys(recipe.name for recipe in found)),
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
