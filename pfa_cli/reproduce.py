"""`pfa reproduce`: every experiment of the paper whose data can be had, then figures, Table 1, the comparison, the report."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from pfa_cli.bench.command import with_times
from pfa_cli.configuration import Configuration
from pfa_cli.cores import physical_cores
from pfa_cli.data import default_data_dir, prepare_data
from pfa_cli.data.fetch import NotFetched, without_fetching
from pfa_cli.errors import PfaError, UsageError
from pfa_cli.recipes import Recipe
from pfa_cli.registry import TABLE_1
from pfa_cli.report import build, compare, write_comparison, write_report
from pfa_cli.runs.checkpoints import disk_needed, free_bytes
from pfa_cli.runs.launch import run_cells
from pfa_cli.runs.plan import Plan, make_plan, make_sweep_plan, refreshed, united
from pfa_cli.store.engine import Store, open_store
from pfa_cli.store.errors import NoResults
from pfa_cli.terminal import Terminal, table
from pfa_cli.training.device import choose_device
from pfa_cli.wording import count, duration


@dataclass(frozen=True)
class Part:
    """The cells of one recipe; ``left_out`` says why it cannot be run, ``to_fetch`` that its data are fetched first."""

    recipe: Recipe
    plan: Plan
    left_out: str = ""
    to_fetch: bool = False

    def hours(self) -> float | None:
        """On one worker; None if it is not known of some cells."""
        if self.plan.without_time:
            return None
        return sum(cell.expected_hours or 0 for cell in self.plan.cells if cell.epochs_left)


def parts(
    store: Store | None, recipes: Iterable[Recipe], seeds: Sequence[int], data_dir: Path, device: str = "auto"
) -> list[Part]:
    """The paper's algorithms and sweeps of each recipe, the recipe with the least work first. Fetches nothing."""
    kind = choose_device(device).type
    found = []
    for recipe in recipes:
        plans = [make_plan(store, recipe, TABLE_1, seeds)]
        for name, sweep in recipe.sweeps.items():
            if sweep.paper:
                plans.append(make_sweep_plan(store, recipe, name, seeds[: sweep.seeds]))
        part = Part(recipe, refreshed(united(plans), store, kind))
        try:
            with without_fetching():
                for configuration in _data_sets(part.plan):
                    prepare_data(configuration, data_dir)
        except NotFetched:
            part = replace(part, to_fetch=True)
        except PfaError as error:
            part = replace(part, left_out=str(error))
        found.append(part)
    return sorted(found, key=_work)


def estimated(part: Part, device: str, data_dir: Path, say: Callable[[str], None]) -> Part:
    """``part`` with hours also for the algorithms of which the database has no epoch, from a few steps of each."""
    if part.left_out:
        return part
    return replace(part, plan=with_times(part.plan, [part.recipe], choose_device(device), data_dir, say))


def overview(found: Sequence[Part], db_folder: Path, device: str) -> RenderableType:
    """What would be done: cells, hours and disk, and what is left out."""
    workers = physical_cores() if choose_device(device).type == "cpu" else 1
    rows, notes, whole_hours, whole_bytes, at_least = [], [], 0.0, 0.0, ""
    for part in found:
        if part.left_out:
            notes.append(f"{part.recipe.name}: left out: {part.left_out}")
            continue
        cells, hours = part.plan.cells, part.hours()
        if hours is None:
            at_least = "at least "
        else:
            whole_hours += hours / workers
        notes += part.plan.notes
        needed = disk_needed(None, cells, kept=1, at_a_time=workers)
        whole_bytes += needed
        rows.append(
            (
                part.recipe.name,
                str(len(cells)),
                str(sum(cell.state == "done" for cell in cells)),
                str(sum(cell.epochs_left for cell in cells)),
                "unknown" if hours is None else duration(3600 * hours / workers),
                f"{needed / 1e6:,.0f} MB",
                "to be fetched" if part.to_fetch else "here",
            )
        )
    headings = ("recipe", "cells", "done", "epochs left", "time here", "disk", "data")
    free = free_bytes(db_folder)
    told = f"{at_least}{duration(3600 * whole_hours)} with {count(workers, 'cell')} at a time, {whole_bytes / 1e6:,.0f} MB of "
    notes.insert(0, f"{told}{free / 1e6:,.0f} MB that are free; then figures, Table 1, comparison and report")
    if whole_bytes > free:
        notes.insert(1, "the disk is too small: name a database on a larger one with --db")
    right = ("cells", "done", "epochs left", "time here", "disk")
    return Group(table(headings, rows, right=right), *map(Text, notes))


def reproduce(
    found: Sequence[Part],
    db: str | None,
    out: Path,
    *,
    jobs: int | None,
    device: str,
    data_dir: Path,
    checkpoint_dir: Path | None,
    console: Terminal,
) -> int:
    """Trains all cells that are not done, then writes what the paper shows into ``out``; the exit code, as of `pfa run`.

    A recipe whose data cannot be fetched is left out, and said so at the end.
    """
    code, left_out = 0, {part.recipe.name: part.left_out for part in found if part.left_out}
    for part in found:
        if part.left_out:
            continue
        try:
            for configuration in _data_sets(part.plan):
                prepare_data(configuration, data_dir)
        except UsageError:
            raise
        except PfaError as error:
            left_out[part.recipe.name] = str(error)
            continue
        console.say(f"{part.recipe.name}: {part.plan.summary()}")
        ended = run_cells(
            db,
            part.plan,
            jobs=jobs,
            device=device,
            data_dir=data_dir,
            checkpoint_dir=checkpoint_dir,
            console=console,
        )
        if ended > 1:  # told to stop
            return ended
        code = max(code, ended)
    with suppress(NoResults), open_store(db, write=False) as store:
        build(store, out, say=console.say, written=console.say)
        for path in write_comparison(compare(store), out):
            console.say(path)
        console.say(write_report(store, out))
    for name, reason in left_out.items():
        console.say(f"{name}: left out: {reason}")
    return code


def data_folder(data_dir: Path | None) -> Path:
    """The folder with the data sets."""
    return (data_dir or default_data_dir()).absolute()


def _data_sets(plan: Plan) -> Iterable[Configuration]:
    configurations = [cell.configuration for cell in plan.cells]
    return {configuration.dataset_identity: configuration for configuration in configurations}.values()


def _work(part: Part) -> float:
    """A number by which recipes are sorted: pixels that are trained on."""
    configuration = part.plan.cells[0].configuration
    images = configuration.train_images or configuration.dataset_entry.train_images or 0
    return configuration.epochs * images * math.prod(configuration.input_shape or ())
