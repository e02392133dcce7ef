"""Commands that compute or measure without training for a result."""

from pathlib import Path
from typing import Annotated

import typer

from pfa_cli import completion, files
from pfa_cli.errors import PfaError
from pfa_cli.options import AsJson, DataDir, Db, Device, RecipeDir, Settings
from pfa_cli.paths import expanded, expanded_recipe
from pfa_cli.terminal import messages, output, table
from pfa_cli.wording import count


def simulate(db: Db = None) -> None:
    """Compute and store the simulations of Figures 3 and 6 (`pfa run` does so too)."""
    from pfa_cli.store.engine import open_store
    from pfa_cli.theory.simulate import ensure

    with open_store(db, write=True) as store:
        stored = ensure(store)
    output.say(f"{count(stored, 'simulation')} stored" if stored else "all simulations are stored already")


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


def bench(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(
            parser=expanded_recipe,
            metavar="RECIPE",
            help="Recipes by name or .toml file; store: what storing and merging results costs.",
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
    `pfa bench store` times the database: rows per second into a file, and on the server that --db names, and merging 100 files.
    """
    from contextlib import nullcontext
    from itertools import chain

    from pfa_cli.arguments import parse_algorithms, parse_overrides
    from pfa_cli.bench import command, report
    from pfa_cli.recipes import list_recipes, load_recipe
    from pfa_cli.store.engine import open_store

    named = [name for name in recipes or () if name != "store"]
    found = [load_recipe(name, recipe_dir) for name in named] if recipes else list_recipes(recipe_dir)
    options = command.Options(
        jobs, threads, repetitions, steps, minutes, device, data_dir, memory=memory, growth=growth
    )
    chosen, overrides = parse_algorithms(algos), parse_overrides(settings or [])
    if out is not None:
        try:
            files.check_could_write(out)
        except OSError as error:
            raise PfaError(f"cannot write {out} ({error.strerror}); name another file with --out") from None
    results = chain(
        command.bench_store(db, messages.say) if "store" in (recipes or ()) else (),
        command.bench(found, chosen, overrides, options, messages.say, named=bool(recipes)),
    )
    done: list[report.Benchmark | report.StoreBenchmark] = []
    left_out = {}
    with open_store(db, write=True) if store_it else nullcontext() as store:
        for result in results:
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
        files.save(out, report.as_json(done, left_out) + "\n")


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

    from pfa_cli.doctor import examine, try_graphs
    from pfa_cli.recipes import list_recipes, load_recipe

    recipes = [load_recipe(recipe, recipe_dir)] if recipe else list_recipes(recipe_dir)
    findings = [*examine(recipes, device, precision, db, data_dir, named=bool(recipe))]
    findings += try_graphs(device, precision) if gpu else []
    if as_json:
        output.say(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        rows = [(f.what, f.found, "cannot run so" if f.in_the_way else "") for f in findings]
        output.print(table(("", "here", ""), rows, wraps=("here",)))
    raise typer.Exit(1 if any(finding.in_the_way for finding in findings) else 0)
