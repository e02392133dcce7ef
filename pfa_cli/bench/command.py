"""From the command line's words to finished benchmarks, one recipe after the other."""

import platform
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch

from pfa_cli.bench.budget import affordable_step, judge, time_bp
from pfa_cli.bench.contender import BP, LITERAL, PFA, Setting
from pfa_cli.bench.growth import Growth
from pfa_cli.bench.memory import peak_bytes
from pfa_cli.bench.pixels import which_pixels
from pfa_cli.bench.report import Benchmark
from pfa_cli.bench.steps import Job, Plan, measure, pooled
from pfa_cli.cores import physical_cores, usable_cores
from pfa_cli.data import default_data_dir
from pfa_cli.errors import UsageError
from pfa_cli.recipes import Recipe
from pfa_cli.runs.provenance import device_name
from pfa_cli.training.device import choose_device

_SLOW_STEP = 0.1  # seconds; a sample of such steps needs one only
_GROWTH = 1 / 3  # of the time


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


def bench(
    recipes: list[Recipe],
    algorithms: list[str],
    overrides: Mapping[str, Any],
    options: Options,
    say: Callable[[str], None],
    *,
    named: bool,
) -> Iterator[Benchmark | LeftOut]:
    """Measures each recipe: ``algorithms``, BP always among them, and literal PFA beside the closed form.

    ``named``: the recipes were asked for, so that settings which do not fit one are an error.
    """
    device = choose_device(options.device)
    for recipe in recipes:
        try:
            yield _bench(Setting(recipe, overrides), algorithms, options, device, say)
        except UsageError as error:
            if named:
                raise
            yield LeftOut(recipe.name, str(error))
        except torch.OutOfMemoryError:
            yield LeftOut(recipe.name, f"it does not fit into the memory of {device_name(device)}")
        except BrokenProcessPool:
            yield LeftOut(
                recipe.name, "a process was killed; if memory ran out, fewer --jobs leave more for each"
            )


def _bench(
    setting: Setting,
    algorithms: list[str],
    options: Options,
    device: torch.device,
    say: Callable[[str], None],
) -> Benchmark | LeftOut:
    name, seconds = setting.recipe.name, 60 * options.minutes
    data_dir = options.data_dir or default_data_dir()
    at_a_time = physical_cores() if device.type == "cpu" else 1
    processes = options.processes or at_a_time
    labels = list(dict.fromkeys([BP, *algorithms]))
    if PFA in labels:
        labels.append(LITERAL)
    whole = setting.configuration(BP)
    for label in labels:
        setting.configuration(label)  # a wrong setting is told before anything is measured
    pixels = which_pixels(whole, data_dir)
    # In processes of their own, which give all memory back; equal ones at the same time, as `pfa run --jobs` has them.
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        say(f"{name}: the first step")
        per_image = pool.submit(time_bp, whole, pixels, data_dir, device, options.threads).result()
        verdict = judge(setting, per_image, affordable_step(len(labels), seconds))
        if verdict.changes is None:
            return LeftOut(name, verdict.reason)
        if verdict.reason:
            processes = 1  # what is said of a smaller version are ratios, which take less memory alone
        setting = replace(setting, reduction=verdict.changes)
        configurations = {label: setting.configuration(label) for label in labels}
        slow = per_image * configurations[BP].batch_size > _SLOW_STEP
        plan = Plan(options.repetitions, options.steps or (1 if slow else 4), seconds * (1 - _GROWTH))
        whole_epochs = not verdict.reason
        job = Job(configurations, pixels, data_dir, device, options.threads, plan, whole_epochs)
        say(f"{name}: steps of {', '.join(labels)}")
        samples = pooled(list(pool.map(measure, [job] * processes)))
        about = machine(device, processes, options.threads)
        benchmark = Benchmark(name, about, pixels, verdict.reason, configurations, samples, {}, [])
        if options.growth:
            say(f"{name}: growth")
            times = {label: benchmark.step_seconds(label) for label in (BP, PFA, LITERAL) if label in labels}
            curve_plan = replace(plan, seconds=seconds * _GROWTH / 3)
            growth = Growth(setting, times, pixels, data_dir, device, options.threads, curve_plan)
            benchmark = replace(benchmark, curves=pool.submit(growth.measure).result())
    if options.memory:
        say(f"{name}: peak memory")
        benchmark = replace(benchmark, peak_bytes=peak_bytes(job, at_a_time))
    return benchmark


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
