"""The benchmark on small networks: that its numbers are the ratios they claim to be. Not how fast this machine is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
import torch.utils.flop_counter
from torch import nn

from pfa_cli.algorithms import convert
from pfa_cli.bench.budget import affordable_step, judge
from pfa_cli.bench.contender import BP, LITERAL, PFA, Setting
from pfa_cli.bench.curves import Candidate, Curve, Point, admit
from pfa_cli.bench.memory import peak, reset_peak
from pfa_cli.bench.pixels import bench_dataset, epoch_images, which_pixels
from pfa_cli.bench.products import matrix_products
from pfa_cli.bench.report import Benchmark, cells_per_hour
from pfa_cli.bench.steps import PLAIN, PRODUCTS, Plan, Runner, Samples, in_turn, pooled
from pfa_cli.bench.tables import spread_percent
from pfa_cli.recipes import load_recipe

CPU = torch.device("cpu")


def setting(recipe: str = "mnist", **overrides: object) -> Setting:
    return Setting(load_recipe(recipe), overrides)


def benchmark(samples: Samples, curves: tuple[Curve, ...] = ()) -> Benchmark:
    """Of MNIST cut to 10 steps of 4 images, on two processes."""
    small = setting(batch_size=4, train_images=43, epochs=5)
    configurations = {label: small.configuration(label) for label in (BP, PFA)}
    return Benchmark("mnist", {"processes": 2}, "random", "", configurations, samples, {}, curves)


STEPS = {
    PRODUCTS: [1.0, 2.0, 4.0],
    PLAIN: [2.0, 4.0, 8.0],
    BP: [2.0, 4.0, 12.0],
    PFA: [3.0, 6.0, 12.0],
}


def test_ratios_are_medians_of_neighbours_and_an_epoch_counts_measuring() -> None:
    result = benchmark(Samples(STEPS, {BP: 40.0, PFA: 50.0}))
    found = result.ratios()
    assert found["bp_step_per_products"] == 2
    assert found["bp_step_per_plain_torch"] == 1
    assert found["pfa_per_bp"] == 1.5
    assert found["bp_epoch_per_products"] == 2 + 40 / (10 * 2)
    assert found["measuring_share_of_bp_epoch"] == pytest.approx(2 / 4)
    assert result.epoch_seconds(PFA) == 10 * 6 + 50
    assert result.images_per_second(PFA) == 4 / 6


def test_cells_per_hour_count_all_processes_epochs_and_measuring() -> None:
    assert cells_per_hour(2, 5, 10, 6.0, 50.0) == pytest.approx(2 * 3600 / (5 * 110))
    assert benchmark(Samples(STEPS, {BP: 40.0, PFA: 50.0})).cells_per_hour(PFA) == cells_per_hour(
        2, 5, 10, 6.0, 50.0
    )


def test_nothing_is_said_of_epochs_that_were_not_measured() -> None:
    result = benchmark(Samples(STEPS, {}))
    assert result.cells_per_hour(BP) is None
    assert "bp_epoch_per_products" not in result.ratios()


def test_spread_is_between_quartiles() -> None:
    assert spread_percent([1.0, 2.0, 3.0, 4.0, 100.0]) == pytest.approx(100 * 2 / 3)
    assert spread_percent([1.0]) == 0


def test_pooling_keeps_every_sample() -> None:
    one, two = Samples({BP: [1.0, 2.0]}, {BP: 3.0}), Samples({BP: [5.0, 6.0, 7.0]}, {BP: 4.0})
    assert pooled([one, two]) == Samples({BP: [1.0, 2.0, 5.0, 6.0, 7.0]}, {BP: 4.0})


def test_a_curve_compares_with_its_base_and_with_bp_at_the_same_value() -> None:
    batch = Curve(
        "batch",
        "",
        64,
        {
            Point(BP, 64): [1.0, 2.0],
            Point(BP, 256): [3.0, 6.0],
            Point(PFA, 64): [2.0, 4.0],
            Point(PFA, 256): [4.0, 8.0],
        },
    )
    assert batch.per_base(Point(PFA, 256)) == 2
    assert batch.per_bp(Point(PFA, 256)) == pytest.approx(4 / 3)
    one_bp = {Point(BP, 10): [1.0], Point(PFA, 1): [2.0], Point(LITERAL, 1): [3.0]}
    expansion = Curve("expansion", "", 10, one_bp)
    assert expansion.per_bp(Point(PFA, 1)) == 2
    assert expansion.per_base(Point(LITERAL, 1)) is None


def test_a_curve_has_the_points_that_there_is_time_for() -> None:
    any_configuration = setting().configuration(BP)
    seconds = {
        Point(BP, 64): 1.0,
        Point(BP, 256): 4.0,
        Point(PFA, 64): 1.0,
        Point(PFA, 256): 4.0,
        Point(LITERAL, 16): 2.0,
        Point(LITERAL, 64): 9.0,
    }
    candidates = [Candidate(point, cost, any_configuration) for point, cost in seconds.items()]
    kept, left_out = admit(candidates, base=64, affordable=12.5)
    assert {candidate.point for candidate in kept} == set(seconds) - {Point(LITERAL, 64)}
    assert left_out == ["pfa literal at 64: a step would take about 9 s"]
    assert len(admit(candidates, 64, affordable=0.0)[0]) == 1


def test_runners_take_turns_and_the_time_given_ends_them_after_three() -> None:
    dataset = bench_dataset(setting(train_images=64).configuration(BP), "random", Path(), CPU)
    taken: list[str] = []
    runners = {
        name: Runner(
            lambda *request, name=name, size=size: taken.append(
                f"{name}{len(dataset.batch(*request)[0]) == size}"
            ),
            size,
        )
        for name, size in (("a", 8), ("b", 16))
    }
    times = in_turn(runners, dataset, Plan(repetitions=40, steps=2, seconds=0.0))
    warm_up, counted = ["aTrue"] * 2 + ["bTrue"] * 2, ["aTrue"] * (1 + 2) + ["bTrue"] * (1 + 2)
    assert taken == warm_up + 3 * counted
    assert {name: len(samples) for name, samples in times.items()} == {"a": 3, "b": 3}


def test_a_heavy_recipe_is_made_smaller_or_left_out_with_the_reason() -> None:
    imagenet = setting("imagenet")
    assert judge(imagenet, seconds_per_image=0.001, affordable=1.0).changes == {}
    smaller = judge(imagenet, seconds_per_image=0.2, affordable=1.0)
    assert smaller.changes == {"batch_size": 32, "accumulation": 1, "image_size": 64}
    assert "batch 32 at 64 px in place of batch 256 at 224 px" in smaller.reason
    assert "51 s" in smaller.reason
    assert imagenet.configuration(PFA, **smaller.changes).image_size == 64
    left_out = judge(imagenet, seconds_per_image=2.0, affordable=0.1)
    assert left_out.changes is None
    assert "--minutes" in left_out.reason
    assert judge(setting("cifar10"), 0.02, affordable=1.0).changes == {"batch_size": 32, "accumulation": 1}
    assert affordable_step(contenders=10, seconds=80) == 1


def test_random_pixels_where_the_images_are_not_at_hand(tmp_path: Path) -> None:
    for recipe, shape in (("mnist", (784,)), ("cifar10", (3, 32, 32)), ("imagenet", (3, 8, 8))):
        small = setting(recipe, batch_size=4, train_images=64)
        configuration = small.configuration(BP, **({"image_size": 8} if recipe == "imagenet" else {}))
        assert which_pixels(configuration, tmp_path) == "random"
        dataset = bench_dataset(configuration, "random", tmp_path, CPU)
        images, labels = next(dataset.train_batches(0, 1, 4))
        assert images.shape == (4, *shape)
        assert dataset.n_classes == (1000 if recipe == "imagenet" else 10)
        assert labels.max() < dataset.n_classes
    assert not list(tmp_path.iterdir())


def test_epochs_are_counted_as_the_recipe_has_them() -> None:
    assert epoch_images(setting("cifar10").configuration(BP)) == (45_000, 15_000)
    assert epoch_images(setting(train_images=100, test_images=7).configuration(BP)) == (100, 7)


def test_matrix_products_are_those_of_a_step() -> None:
    """Forward and weight gradient of every layer, the input's gradient of all but the first: counted by torch."""
    network = convert(nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)), "bp")
    run = matrix_products(network, torch.randn(5, 8))
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        run()
    first, second = 2 * 5 * 8 * 6, 2 * 5 * 6 * 4
    assert counter.get_total_flops() == 2 * first + 3 * second


def test_the_peak_is_that_since_the_reset() -> None:
    reset_peak(CPU)
    before = peak(CPU)
    held = torch.ones(50_000_000)  # 200 MB
    assert peak(CPU) - before > 190e6
    del held
    reset_peak(CPU)
    assert peak(CPU) - before < 100e6


def test_the_command_needs_no_data_and_no_network(tmp_path: Path) -> None:
    found = _json(tmp_path, "mnist", "--jobs", "2", "--no-growth", "--algos", "pfa", "--store")
    (result,) = found["benchmarks"]
    assert result["pixels"] == "random"
    assert list(result["seconds_per_step"]) == [PRODUCTS, PLAIN, BP, PFA, LITERAL]
    assert all(len(samples) == 4 and median(samples) > 0 for samples in result["seconds_per_step"].values())
    assert result["ratios"]["pfa_memory_per_bp"] > 0.5
    assert result["cells_per_hour"][BP] > 0
    assert "torch" in result["machine"]
    export = [sys.executable, "-m", "pfa_cli", "export", "--table", "benchmarks", "--out", "bench.csv"]
    assert subprocess.run(export, cwd=tmp_path, capture_output=True, timeout=60).returncode == 0
    stored = (tmp_path / "bench.csv").read_text()
    assert "pfa_per_bp" in stored
    assert "cells/hour" in stored
    assert not list((tmp_path / "no data").iterdir())


def test_the_growth_of_the_closed_form_is_measured_to_an_expansion_ratio_of_1000(tmp_path: Path) -> None:
    """No recipe is named: those whose network has no hidden sizes are left out, in words."""
    found = _json(tmp_path, "--jobs", "1", "--no-memory", "--algos", "pfa")
    assert set(found["left_out"]) == {"cifar10", "imagenet"}
    assert "hidden_sizes" in found["left_out"]["cifar10"]
    (result,) = found["benchmarks"]
    curves = {curve["curve"]: curve for curve in result["growth"]}
    assert set(curves) == {"batch", "width", "expansion"}
    points = {(point["contender"], point["value"]): point for point in curves["expansion"]["points"]}
    assert [value for label, value in points if label == PFA] == [1, 10, 100, 1000]
    assert all(points[PFA, value]["per_bp"] > 0 for value in (1, 10, 100, 1000))
    assert points[LITERAL, 1]["per_base"] > 0
    assert (LITERAL, 1000) not in points
    assert any(LITERAL in words for words in curves["expansion"]["left_out"])
    assert {point["value"] for point in curves["batch"]["points"]} == {4, 16, 64}


def _json(folder: Path, *arguments: str) -> dict[str, Any]:
    """What `pfa bench --json` says of a small MNIST network, with an empty data folder and no network to reach."""
    nowhere = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}
    data = folder / "no data"
    data.mkdir()
    small = ["--set", "train_images=1280", "--set", "test_images=100", "--set", "hidden_sizes=[32, 32]"]
    quick = [
        "--set",
        "batch_size=16",
        "--repetitions",
        "2",
        "--steps",
        "2",
        "--data-dir",
        str(data),
        "--json",
    ]
    command = [sys.executable, "-m", "pfa_cli", "bench", *arguments, *small, *quick]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, env={**os.environ, **nowhere}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
