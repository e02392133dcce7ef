"""The benchmark on a small network: that its numbers are the ratios they claim to be. Not how fast this machine is."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest
import torch
import torch.utils.flop_counter
from torch import nn

from pfa_cli.algorithms import convert
from pfa_cli.bench.memory import peak, reset_peak
from pfa_cli.bench.products import matrix_products
from pfa_cli.bench.report import ratios
from pfa_cli.bench.steps import PLAIN, PRODUCTS, Samples, pooled


def test_ratios_are_medians_of_neighbours_and_an_epoch_counts_measuring() -> None:
    steps = {
        PRODUCTS: [1.0, 2.0, 4.0],
        PLAIN: [2.0, 4.0, 8.0],
        "bp": [2.0, 4.0, 12.0],
        "pfa": [3.0, 6.0, 12.0],
    }
    found = ratios(Samples(steps, {"bp": 40.0, "pfa": 50.0}, steps_per_epoch=10, batch_size=4))
    assert found["bp_step_per_products"] == 2
    assert found["bp_step_per_plain_torch"] == 1
    assert found["pfa_per_bp"] == 1.5
    assert found["bp_epoch_per_products"] == 2 + 40 / (10 * 2)
    assert found["measuring_share_of_bp_epoch"] == pytest.approx(2 / 4)


def test_pooling_keeps_every_sample() -> None:
    one = Samples({"bp": [1.0, 2.0]}, {"bp": 3.0}, 10, 4)
    two = Samples({"bp": [5.0, 6.0]}, {"bp": 4.0}, 10, 4)
    assert pooled([one, two]) == Samples({"bp": [1.0, 2.0, 5.0, 6.0]}, {"bp": 4.0}, 10, 4)


def test_matrix_products_are_those_of_a_step() -> None:
    """Forward and weight gradient of every layer, the input's gradient of all but the first: counted by torch."""
    network = convert(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)), "bp")
    run = matrix_products(network, torch.randn(5, 8))
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        run()
    first, second = 2 * 5 * 8 * 6, 2 * 5 * 6 * 4
    assert counter.get_total_flops() == 2 * first + 3 * second


def test_the_peak_is_that_since_the_reset() -> None:
    cpu = torch.device("cpu")
    reset_peak(cpu)
    before = peak(cpu)
    held = torch.ones(50_000_000)  # 200 MB
    assert peak(cpu) - before > 190e6
    del held
    reset_peak(cpu)
    assert peak(cpu) - before < 100e6


def test_the_command_prints_json(tmp_path: Path) -> None:
    small = ["--set", "train_images=1280", "--set", "test_images=100", "--set", "hidden_sizes=[32, 32]"]
    sizes = ["--repetitions", "2", "--steps", "2", "--jobs", "2", "--memory", "--algos", "pfa,kp", "--store"]
    command = [sys.executable, "-m", "pfa_cli", "bench", "mnist", "--json", *small, *sizes]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["seconds_per_step"]) == ["bp", "pfa", "kp", "pfa literal", PLAIN, PRODUCTS]
    assert all(len(samples) == 4 and median(samples) > 0 for samples in found["seconds_per_step"].values())
    assert found["ratios"]["pfa_memory_per_bp"] > 0.5
    export = [sys.executable, "-m", "pfa_cli", "export", "--table", "benchmarks", "--out", "bench.csv"]
    assert subprocess.run(export, cwd=tmp_path, capture_output=True, timeout=60).returncode == 0
    assert "pfa_per_bp" in (tmp_path / "bench.csv").read_text()
