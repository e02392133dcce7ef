"""From the command line's words to finished benchmarks, one recipe after the other."""

import math
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch

from pfa_cli.bench.contender import BP, LITERAL, PFA, VARIANTS, Cell, Setting
from pfa_cli.bench.growth import Curve, Growth
from pfa_cli.bench.pixels import epoch_images, which_pixels
from pfa_cli.bench.report import Benchmark
from pfa_cli.bench.storing import StoreBenchmark, measure_store
from pfa_cli.bench.timing import (
    LEAST_REPETITIONS,
    Job,
    Plan,
    measure,
    peak_bytes,
    pooled,
    seconds_per_image,
    seconds_per_step,
)
from pfa_cli.configuration import Configuration
from pfa_cli.cores import physical_cores, usable_cores
from pfa_cli.data import default_data_dir
from pfa_cli.errors import UsageError
from pfa_cli.recipes import Recipe
from pfa_cli.registry import algorithm
from pfa_cli.runs import plan as cells
from pfa_cli.runs.provenance import device_name
from pfa_cli.training.device import choose_device

_SLOW_STEP = 0.1  # seconds; a sample of such steps needs one only
_GROWTH = 1 / 3  # of the time
_TRIAL_STEP = 1.0  # seconds that a step of BP may take where only an estimate is asked for
_BP_STEPS = 2  # what a step of a contender costs, in steps of BP and on average
_SMALLER = ((32, None), (32, 64), (16, 64))  # batch size, side of a photograph in pixels


@dataclass(frozen=True)
class Options:
    """What the command line says of how to measure; ``minutes`` are each recipe's, for steps and growth."""

    processes: int | None
    threads: int
    repetitions: int
    steps: int | None
    minutes: float
    device: str
    data_dir: Path | None
    memory: bool
    growth: bool


@dataclass(frozen=True)
class LeftOut:
    """A recipe that was not measured, and why."""

    recipe: str
    reason: str


class TooSlow(Exception):
    """Nothing of a recipe can be measured in the time given; the message says why."""


def bench(
    recipes: list[Recipe],
    algorithms: list[str],
    overrides: Mapping[str, Any],
    options: Options,
    say: Callable[[str], None],
    *,
    named: bool,
) -> Iterator[Benchmark | LeftOut]:
    """Measures each recipe: ``algorithms``, BP always among them, and the `VARIANTS` of those that have some.

    ``named``: the recipes were asked for, so that settings which do not fit one are an error.
    """
    device = choose_device(options.device)
    references = {algorithm(reference).name: reference for reference in [BP, *algorithms]}
    for recipe in recipes:
        try:
            yield _bench(Setting(recipe, overrides, references), options, device, say)
        except UsageError as error:
            if named:
                raise
            yield LeftOut(recipe.name, str(error))
        except TooSlow as error:
            yield LeftOut(recipe.name, f"{error}; --minutes gives more")
        except torch.OutOfMemoryError:
            yield LeftOut(recipe.name, f"it does not fit into the memory of {device_name(device)}")
        except BrokenProcessPool:
            yield LeftOut(
                recipe.name, "a process was killed; if memory ran out, fewer --jobs leave more for each"
            )


def bench_store(db: str | None, say: Callable[[str], None]) -> Iterator[StoreBenchmark]:
    """Measures what storing and merging results costs (see ``measure_store``)."""
    yield measure_store(db, machine(torch.device("cpu"), 1, torch.get_num_threads()), say)


def _bench(setting: Setting, options: Options, device: torch.device, say: Callable[[str], None]) -> Benchmark:
    name, seconds = setting.recipe.name, 60 * options.minutes
    data_dir = options.data_dir or default_data_dir()
    at_a_time = physical_cores() if device.type == "cpu" else 1
    processes = options.processes or at_a_time
    labels = [
        *setting.references,
        *(label for label, (algorithm, _) in VARIANTS.items() if algorithm in setting.references),
    ]
    whole = {label: setting.configuration(label) for label in labels}  # a wrong setting is told at once
    plan = Plan(options.repetitions, options.steps or 4, seconds * (1 - _GROWTH))
    pixels = which_pixels(whole[BP], data_dir)
    job = Job(whole, pixels, data_dir, device, options.threads, plan, measuring=True)
    # In processes of their own, which give all memory back; equal ones at the same time, as `pfa run --jobs` has them.
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        say(f"{name}: the first step")
        per_image = pool.submit(seconds_per_image, job).result()
        changes, reduced = smaller(setting, per_image, affordable_step(len(labels), seconds))
        if reduced:
            processes = 1  # what is said of a smaller version are ratios, which take less memory alone
        setting = replace(setting, reduction=changes)
        configurations = {label: setting.configuration(label) for label in labels}
        if options.steps is None and per_image * configurations[BP].batch_size > _SLOW_STEP:
            plan = replace(plan, steps=1)
        job = replace(job, contenders=configurations, plan=plan, measuring=not reduced)
        say(f"{name}: steps of {', '.join(labels)}")
        samples = pooled(list(pool.map(measure, [job] * processes)))
        curves: list[Curve] = []
        if options.growth:
            say(f"{name}: growth")
            times = {label: median(samples.steps[label]) for label in (BP, PFA, LITERAL) if label in labels}
            of_curve = replace(job, plan=replace(plan, seconds=seconds * _GROWTH / 3))
            curves = pool.submit(Growth(setting, times, of_curve).measure).result()
    peaks: dict[str, int] = {}
    if options.memory:
        say(f"{name}: peak memory")
        peaks = peak_bytes(job, at_a_time)
    about = machine(device, processes, options.threads)
    return Benchmark(name, about, pixels, reduced, configurations, samples, peaks, curves)


def with_times(
    plan: cells.Plan,
    recipes: Iterable[Recipe],
    device: torch.device,
    data_dir: Path,
    say: Callable[[str], None],
) -> cells.Plan:
    """``plan`` with hours also for the cells of which the database has no time: from a trial of each of their algorithms.

    The trial is of an algorithm's first such cell, with its settings. Where it cannot be made, a note says why. Stores nothing.
    """
    notes, seconds = list(plan.notes), dict[tuple[str, str], float]()
    for recipe in recipes:
        first: dict[str, Configuration] = {}
        for cell in plan.without_time:
            if cell.configuration.recipe == recipe.name:
                first.setdefault(cell.algorithm, cell.configuration)
        if not first:
            continue
        say(f"{recipe.name}: no epoch of {', '.join(first)} is stored for this device; trying a few steps")
        overrides = {name: _overrides(recipe, configuration) for name, configuration in first.items()}
        tried: list[str] = []
        for number, own in enumerate(overrides.values()):
            group = [name for name, other in overrides.items() if other == own]
            if own in list(overrides.values())[:number]:
                continue
            references = {name: first[name].algorithm_reference for name in group}
            try:
                found = epoch_seconds(recipe, references, own, device, data_dir)
            # Of a rule or a network of the user's, or out of memory: no reason to end.
            except Exception as error:
                notes.append(f"{recipe.name}: no estimate of the time of {', '.join(group)}: {error}")
                continue
            seconds |= {(recipe.name, name): of_it for name, of_it in found.items()}
            tried += found
        if tried:
            notes.append(
                f"{recipe.name}: the time of {', '.join(tried)} is from a trial of a few steps, as if nothing else ran"
            )
    hours = {key: of_epoch / 3600 for key, of_epoch in seconds.items()}
    timed = [
        replace(cell, expected_hours=hours[key] * cell.epochs_left)
        if cell.expected_hours is None and (key := (cell.configuration.recipe, cell.algorithm)) in hours
        else cell
        for cell in plan.cells
    ]
    return cells.Plan(timed, notes)


def _overrides(recipe: Recipe, configuration: Configuration) -> dict[str, Any]:
    """What of the recipe's settings gives ``configuration``; a network or data set in a file by that file."""
    found = recipe.differing(configuration)
    for role, source in configuration.plugins.items():
        found.pop(f"{role}_file", None)
        if role in found:
            found[role] = source.reference
    return found


def epoch_seconds(
    recipe: Recipe,
    algorithms: Mapping[str, str],
    overrides: Mapping[str, Any],
    device: torch.device,
    data_dir: Path,
) -> dict[str, float]:
    """About how many seconds an epoch takes, by algorithm: from one sample of each, taken in this process.

    ``algorithms``: their names → what names them on the command line. ``overrides``: of the recipe's settings.

    A recipe whose BP step takes over a second is tried on a smaller version, and its cost taken as proportional to images
    and pixels. Evaluation is the forward pass, counted as a third of a training step. On a CPU its time alone counts, as if
    nothing else were at work.

    Raises:
        TooSlow: a step of the smallest version takes over a second, too.
    """
    setting = Setting(recipe, overrides, algorithms)
    whole = setting.configuration(BP)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    plan = Plan(1, 1, 0.0, clock)
    job = Job({BP: whole}, which_pixels(whole, data_dir), data_dir, device, 1, plan, measuring=False)
    per_image = seconds_per_image(job)
    changes, _ = smaller(setting, per_image, _TRIAL_STEP)
    small = setting.configuration(BP, **changes)
    pixels = math.prod(whole.input_shape or (1,)) / math.prod(small.input_shape or (1,))
    trained, evaluated = epoch_images(whole)
    if per_image * small.batch_size <= _SLOW_STEP:
        plan = replace(plan, steps=4)
    found = {}
    with job.settled():
        dataset = job.dataset(small)
        for name in setting.references:
            build = partial(Cell, setting.configuration(name, **changes), dataset, device)
            (seconds,) = seconds_per_step({name: build}, dataset, plan)[name]
            found[name] = (trained + evaluated / 3) * seconds / small.batch_size * pixels
    return found


def affordable_step(contenders: int, seconds: float) -> float:
    """Seconds that a step of BP may take so that each contender has the least number of samples, and one to warm up."""
    return seconds / ((LEAST_REPETITIONS + 1) * _BP_STEPS * contenders)


def smaller(setting: Setting, seconds_per_image: float, affordable: float) -> tuple[dict[str, object], str]:
    """The changes that make the recipe small enough for BP's step to take ``affordable`` seconds, and why; {} and "" if none.

    ``seconds_per_image``: a BP step's at the recipe's image size; the cost is taken as proportional to pixels.

    Raises:
        TooSlow: the smallest version takes longer, too.
    """
    whole = setting.configuration(BP)
    full = step = seconds_per_image * whole.batch_size
    if full <= affordable:
        return {}, ""
    for batch, side in _SMALLER:
        changes: dict[str, object] = {}
        if batch < whole.batch_size:
            changes |= {"batch_size": batch, "accumulation": 1}
        if side is not None and whole.image_size is not None and side < whole.image_size:
            changes["image_size"] = side
        reduced = setting.configuration(BP, **changes)
        area = ((reduced.image_size or 1) / (whole.image_size or 1)) ** 2
        step = seconds_per_image * reduced.batch_size * area
        if step <= affordable:
            sizes = [
                f"batch {c.batch_size}" + (f" at {c.image_size} px" if c.image_size else "")
                for c in (reduced, whole)
            ]
            return changes, f"{sizes[0]} in place of {sizes[1]}, whose BP step takes about {full:.2g} s"
    raise TooSlow(
        f"a step of BP takes about {full:.2g} s, and even a small one {step:.2g} s, where {affordable:.2g} s fit into the "
        "time given"
    )


def machine(device: torch.device, processes: int, threads: int) -> dict[str, Any]:
    """The machine's description, and how it was used."""
    return {
        "device": device_name(device),
        "cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "host_system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processes": processes,
        "threads": threads,
    }
