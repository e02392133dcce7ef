"""From the command line's words to a finished benchmark."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pfa_cli.bench.memory import peak_bytes
from pfa_cli.bench.report import Benchmark
from pfa_cli.bench.steps import Job, measure, pooled
from pfa_cli.data import default_data_dir
from pfa_cli.recipes import Recipe
from pfa_cli.runs.facts import device_name
from pfa_cli.training.device import choose_device


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
    memory: bool,
) -> Benchmark:
    """Times ``algorithms``, BP always among them, and literal PFA beside the closed form.

    ``memory``: measures the peak memory too, in a process of its own for each contender.
    """
    where = choose_device(device)
    if processes is None:
        processes = len(os.sched_getaffinity(0)) if where.type == "cpu" else 1
    contenders = {name: recipe.configuration(name, overrides) for name in dict.fromkeys(["bp", *algorithms])}
    if "pfa" in contenders:
        contenders["pfa literal"] = recipe.configuration("pfa", {**overrides, "pfa.form": "literal"})
    job = Job(contenders, data_dir or default_data_dir(), str(where), threads, repetitions, steps)
    samples = pooled(measure(job, processes))
    peaks = peak_bytes(job) if memory else {}
    machine = {
        "device": device_name(where),
        "host_system": platform.platform(),
        "torch": torch.__version__,
        "processes": processes,
        "threads": threads,
    }
    return Benchmark(recipe.name, samples, peaks, machine)
