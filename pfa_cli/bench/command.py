"""From the command line's words to a finished benchmark."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Group
from rich.text import Text

from pfa_cli.bench import report
from pfa_cli.bench.steps import Job, Samples, measure, pooled
from pfa_cli.data import default_data_dir
from pfa_cli.recipes import Recipe
from pfa_cli.runs.facts import device_name
from pfa_cli.store.engine import Store
from pfa_cli.store.writer import record_benchmark
from pfa_cli.training.device import choose_device


@dataclass(frozen=True)
class Benchmark:
    """A finished benchmark of one recipe on one machine."""

    recipe: str
    samples: Samples
    processes: int
    threads: int
    machine: Mapping[str, Any]

    def table(self) -> Group:
        lines = [
            f"{name.replace('_', ' ')}: {value:.3f}" for name, value in report.ratios(self.samples).items()
        ]
        return Group(
            report.table(self.recipe, self.samples, self.processes, self.threads), Text("\n".join(lines))
        )

    def as_json(self) -> str:
        return report.as_json(self.recipe, self.samples, self.machine)

    def record(self, store: Store) -> None:
        record_benchmark(store, self.machine, self.recipe, report.measurements(self.samples))


def bench(
    recipe: Recipe,
    algorithms: list[str],
    overrides: Mapping[str, Any],
    processes: int | None,
    threads: int,
    repetitions: int,
    steps: int,
    device: str,
    data_dir: Path | None,
) -> Benchmark:
    """Times ``algorithms``, BP always among them, and literal PFA beside the closed form."""
    where = choose_device(device)
    if processes is None:
        processes = len(os.sched_getaffinity(0)) if where.type == "cpu" else 1
    contenders = {name: recipe.configuration(name, overrides) for name in dict.fromkeys(["bp", *algorithms])}
    if "pfa" in contenders:
        contenders["pfa literal"] = recipe.configuration("pfa", {**overrides, "pfa.form": "literal"})
    job = Job(contenders, data_dir or default_data_dir(), str(where), threads, repetitions, steps)
    samples = pooled(measure(job, processes))
    machine = {
        "device": device_name(where),
        "host_system": platform.platform(),
        "torch": torch.__version__,
        "processes": processes,
        "threads": threads,
    }
    return Benchmark(recipe.name, samples, processes, threads, machine)
