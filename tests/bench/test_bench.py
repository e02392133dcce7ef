"""The benchmark on small networks: that its numbers are the ratios they claim to be. Not how fast this machine is."""

import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from types import MappingProxyType, SimpleNamespace
from typing import Any
from weakref import WeakSet

import pytest
import torch
import torch.utils.flop_counter
from command_line import Call
from rich.console import Console
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from pfa_cli.algorithms import convert
from pfa_cli.bench import command, contender, timing
from pfa_cli.bench.command import TooSlow, affordable_step, smaller
from pfa_cli.bench.contender import BP, LITERAL, PFA, PLAIN, PRODUCTS, Contender, Setting, matrix_products
from pfa_cli.bench.growth import Curve, Growth, Point, admit
from pfa_cli.bench.pixels import bench_dataset, epoch_images, which_pixels
from pfa_cli.bench.report import QUANTITIES, Benchmark, as_json, show, spread_percent
from pfa_cli.bench.storing import measure_store
from pfa_cli.bench.timing import Job, Plan, Samples, peak, pooled, reset_peak, seconds_per_step
from pfa_cli.errors import UsageError
from pfa_cli.recipes import load_recipe
from pfa_cli.store.engine import open_store
from pfa_cli.store.queries import runs
from pfa_cli.store.tables import table
from pfa_cli.training.cuda_graph import EAGER_STEPS

CPU = torch.device("cpu")


def setting(recipe: str = "mnist", **overrides: object) -> Setting:
    return Setting(load_recipe(recipe), overrides)


def row_of(result: Benchmark, label: str) -> Mapping[str, Any]:
    return next(row for row in result.rows() if row["contender"] == label)


def benchmark(
    samples: Samples, curves: tuple[Curve, ...] = (), peaks: Mapping[str, int] = MappingProxyType({})
) -> Benchmark:
    """Of MNIST cut to 10 steps of 4 images, on two processes."""
    small = setting(batch_size=4, train_images=43, epochs=5)
    configurations = {label: small.configuration(label) for label in (BP, PFA)}
    machine = {"processes": 2, "threads": 1, "device": "a CPU", "cores": 2, "torch": "2"}
    return Benchmark("mnist", machine, "random", "", configurations, samples, peaks, curves)


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
    row = row_of(result, PFA)
    assert row["seconds_per_epoch"] == 10 * 6 + 50
    assert row["images_per_second"] == 4 / 6
    assert row["per_bp"] == 1.5
    assert row["cells_per_hour"] == pytest.approx(2 * 3600 / (5 * (10 * 6 + 50)))


def test_json_database_and_screen_hold_the_same_measurements() -> None:
    """Whatever is measured, also by a quantity or a curve added later, is in all three."""
    points = {Point(BP, 4): [1.0], Point(BP, 8): [2.0], Point(PFA, 8): [3.0]}
    result = benchmark(
        Samples(STEPS, {BP: 40.0, PFA: 50.0}), (Curve("batch", "", 4, points),), {BP: 10**9, PFA: 2 * 10**9}
    )
    stored = {(m.measure, m.algorithm): m for m in result.measurements()}
    (facts,) = json.loads(as_json([result], {}))["benchmarks"]
    file = io.StringIO()
    Console(file=file, width=200).print(show(result))
    screen = file.getvalue()
    for name, quantity in QUANTITIES.items():
        for row in result.rows():
            if name in row:
                measurement = stored[name, row["contender"]]
                assert (measurement.value, measurement.unit) == (row[name], quantity.unit)
                told = facts[name][row["contender"]]
                assert row[name] == (median(told) if name == "seconds_per_step" else told)
        assert quantity.heading in screen
    for name, value in facts["ratios"].items():
        assert stored[name, None].value == value
    assert facts["ratios"]["pfa_memory_per_bp"] == 2
    (curve,) = facts["growth"]
    assert [point["per_bp"] for point in curve["points"]] == [1, 1, 1.5]
    assert stored["batch=8_per_bp", PFA].value == 1.5 and stored["batch=8_seconds_per_step", PFA].value == 3
    assert "growth with batch" in screen


def test_nothing_is_said_of_epochs_that_were_not_measured() -> None:
    result = benchmark(Samples(STEPS, {}))
    assert "cells_per_hour" not in row_of(result, BP)
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
    found = {(row["contender"], row["value"]): row for row in batch.rows()}
    assert found[PFA, 256]["per_base"] == 2
    assert found[PFA, 256]["per_bp"] == pytest.approx(4 / 3)
    one_bp = {Point(BP, 10): [1.0], Point(PFA, 1): [2.0], Point(LITERAL, 1): [3.0]}
    expansion = Curve("expansion", "", 10, one_bp)
    found = {(row["contender"], row["value"]): row for row in expansion.rows()}
    assert found[PFA, 1]["per_bp"] == 2
    assert found[LITERAL, 1]["per_base"] is None


def test_a_curve_has_the_points_that_there_is_time_for() -> None:
    seconds = {
        Point(BP, 64): 1.0,
        Point(BP, 256): 4.0,
        Point(PFA, 64): 1.0,
        Point(PFA, 256): 4.0,
        Point(LITERAL, 16): 2.0,
        Point(LITERAL, 64): 9.0,
    }
    kept, left_out = admit(seconds, base=64, affordable=12.5)
    assert kept == [point for point in seconds if point != Point(LITERAL, 64)]
    assert left_out == ["pfa literal at 64: a step would take about 9 s"]
    assert len(admit(seconds, 64, affordable=0.0)[0]) == 1


def test_a_curve_that_cannot_be_measured_whole_says_of_each_point_why() -> None:
    small = setting(train_images=64, batch_size=16, hidden_sizes=[8, 8])
    times = dict.fromkeys((BP, PFA, LITERAL), 0.0001)
    plan = Plan(repetitions=1, steps=1, seconds=60.0)
    job = Job({}, "random", Path(), CPU, 1, plan, measuring=False)
    batch, width, expansion = Growth(small, times, job).measure()
    assert {point.value for point in batch.steps} == {4, 16, 64} and not batch.left_out
    assert {point.value for point in width.steps} == {0.5, 1, 2}
    assert [value for label, value in expansion.steps if label == BP] == [10]
    assert [value for label, value in expansion.steps if label == PFA] == [1, 10, 100, 1000]
    assert list(expansion.left_out) == ["pfa literal at 1000: it costs about as many steps of BP as that"]
    few = Growth(setting(train_images=32, batch_size=16, hidden_sizes=[8]), {BP: 1e-4}, job).measure()[0]
    assert list(few.left_out) == ["bp at 64: there are fewer images"]


def test_contenders_take_turns_and_the_time_given_ends_them_after_three() -> None:
    dataset = bench_dataset(setting(train_images=64).configuration(BP), "random", Path(), CPU)
    taken: list[str] = []
    builds = {
        name: lambda name=name, size=size, period=period: Contender(
            lambda *request: taken.append(f"{name}{len(dataset.batch(*request)[0]) == size}"), size, period
        )
        for name, size, period in (("a", 8, 1), ("b", 16, 3))
    }
    times = seconds_per_step(builds, dataset, Plan(repetitions=40, steps=2, seconds=0.0))
    # As many steps as there are kinds of them: two, and three.
    warm_up, counted = ["aTrue"] * 2 + ["bTrue"] * 6, ["aTrue"] * (1 + 2) + ["bTrue"] * (1 + 3)
    assert taken == warm_up + 3 * counted
    assert {name: len(samples) for name, samples in times.items()} == {"a": 3, "b": 3}


def test_a_period_too_long_to_be_sampled_is_wrong_usage() -> None:
    configuration = setting(train_images=64, mirror_every=10**9).configuration("wm")
    dataset = bench_dataset(configuration, "random", Path(), CPU)
    with pytest.raises(UsageError, match="after 1000000000 only"):
        contender.Cell(configuration, dataset, CPU)


class OnGpu:
    """Stands for a data set on a GPU, which this test does without."""

    device = torch.device("cuda")

    def requests(self, seed: int, epoch: int, batch_size: int) -> Iterator[tuple[torch.Tensor, ...]]:
        yield from [(torch.zeros(batch_size),)] * 5


def test_on_a_gpu_one_contender_is_measured_after_the_other_and_thrown_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The graphs of ten, each with memory of its own, would not fit."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(timing, "release_memory", lambda device: None)
    alive, taken = WeakSet[Any](), dict.fromkeys("abc", 0)

    class Heavy:
        batch_size, period = 4, 1

        def __init__(self, name: str) -> None:
            self.name = name
            alive.add(self)

        def step(self, request: torch.Tensor) -> None:
            assert list(alive) == [self]
            taken[self.name] += 1

    builds = {name: partial(Heavy, name) for name in taken}
    times = seconds_per_step(builds, OnGpu(), Plan(repetitions=40, steps=1, seconds=0.0))  # type: ignore[arg-type]
    assert {name: len(samples) for name, samples in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert set(taken.values()) == {EAGER_STEPS + 1 + 3}  # until it is recorded, and three samples


@pytest.mark.parametrize(("keeps_every_step", "afterwards"), [(True, "replayed"), (False, "done")])
def test_on_a_gpu_plain_torch_and_the_products_are_recorded_where_the_algorithms_are(
    monkeypatch: pytest.MonkeyPatch, keeps_every_step: bool, afterwards: str
) -> None:
    taken: list[str] = []
    monkeypatch.setattr(
        contender, "cuda_graphs", lambda device: lambda work, generators: lambda: taken.append("replayed")
    )
    precision: Any = SimpleNamespace(keeps_every_step=keeps_every_step)  # an fp16 step asks the device
    step = contender.as_in_training(lambda request: taken.append("done"), precision, OnGpu.device)
    for _ in range(EAGER_STEPS + 2):
        step(torch.zeros(4))
    assert taken == ["done"] * EAGER_STEPS + [afterwards] * 2


def test_a_heavy_recipe_is_made_smaller_or_left_out_with_the_reason() -> None:
    imagenet = setting("imagenet")
    assert smaller(imagenet, seconds_per_image=0.001, affordable=1.0) == ({}, "")
    changes, reason = smaller(imagenet, seconds_per_image=0.2, affordable=1.0)
    assert changes == {"batch_size": 32, "accumulation": 1, "image_size": 64}
    assert "batch 32 at 64 px in place of batch 256 at 224 px" in reason
    assert "51 s" in reason
    assert imagenet.configuration(PFA, **changes).image_size == 64
    with pytest.raises(TooSlow, match="fit into the time given"):
        smaller(imagenet, seconds_per_image=2.0, affordable=0.1)
    assert smaller(setting("cifar10"), 0.02, affordable=1.0)[0] == {"batch_size": 32, "accumulation": 1}
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


def test_a_convolutions_products_are_formed_as_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weight gradient by the own kernel where that serves; whatever its padding."""
    first, second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 4, padding="same", padding_mode="reflect")
    network = convert(nn.Sequential(first, nn.ReLU(), second), "bp")
    network[0].own_kernel = network[2].own_kernel = True  # as on a GPU
    formed: list[torch.Size] = []
    kernel = SimpleNamespace(
        serves=lambda x, n_out, groups: x.shape[1] == 2,
        convolve=lambda x, weight, bias, geometry: F.conv2d(x, weight, bias, **geometry),
        weight_gradient=lambda x, delta, shape, geometry: formed.append(shape),
    )
    monkeypatch.setattr("pfa_cli.kernels.convolution", kernel, raising=False)
    matrix_products(network, torch.randn(5, 2, 8, 8))()
    assert formed == [network[0].weight.shape]


def test_the_products_are_of_the_recipes_precision_and_parts(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []
    sizes: set[int] = set()

    class Listen(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.mm.default:
                seen.extend(matrix.dtype for matrix in args)
                sizes.update(size for matrix in args for size in matrix.shape)
            return func(*args, **(kwargs or {}))

    changes = {"hidden_sizes": (8,), "batch_size": 4, "accumulation": 2, "train_images": 8}
    small = setting(**changes, precision="bf16").configuration(BP)
    contender_ = contender.products(small, bench_dataset(small, "random", tmp_path, CPU), CPU)
    with Listen():
        contender_.step()
    # Two parts of two images. Two layers: forward and weight gradient; one error.
    assert seen == [torch.bfloat16] * 2 * 5 * 2 and sizes == {2, 8, 10, 784}


def test_the_peak_is_that_since_the_reset() -> None:
    reset_peak(CPU)
    before = peak(CPU)
    held = torch.ones(50_000_000)  # 200 MB
    assert peak(CPU) - before > 190e6
    del held
    reset_peak(CPU)
    assert peak(CPU) - before < 100e6


def test_the_command_needs_no_data_and_no_network(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a small MNIST. No recipe is named: those whose network has no hidden sizes are left out, in words."""
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
    (tmp_path / "no data").mkdir()
    settings = ("train_images=1280", "test_images=100", "hidden_sizes=[32, 32]", "batch_size=16")
    small = [word for setting in settings for word in ("--set", setting)]
    quick = ["--device=cpu", "--jobs=2", "--algos=pfa", "--repetitions=2", "--steps=2", "--data-dir=no data"]
    done = call("bench", *small, *quick, "--json", "--store", "--db", "b.db", "--out", "b.json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found == json.loads((tmp_path / "b.json").read_text())
    assert set(found["left_out"]) == {"cifar10", "imagenet", "imagenette"}
    assert "hidden_sizes" in found["left_out"]["cifar10"]
    (result,) = found["benchmarks"]
    assert result["pixels"] == "random" and not list((tmp_path / "no data").iterdir())
    assert list(result["seconds_per_step"]) == [PRODUCTS, PLAIN, BP, PFA, LITERAL]
    assert all(len(samples) == 4 and median(samples) > 0 for samples in result["seconds_per_step"].values())
    assert result["ratios"]["pfa_memory_per_bp"] > 0.5 and result["cells_per_hour"][BP] > 0
    assert "torch" in result["machine"]
    curves = {curve["curve"]: curve for curve in result["growth"]}
    assert set(curves) == {"batch", "width", "expansion"}
    assert {point["value"] for point in curves["batch"]["points"]} == {4, 16, 64}
    points = {(point["contender"], point["value"]): point for point in curves["expansion"]["points"]}
    assert all(points[PFA, value]["per_bp"] > 0 for value in (1, 10, 100, 1000))
    assert points[LITERAL, 1]["per_base"] > 0
    call("export", "--table", "benchmarks", "--out", "bench.csv", "--db", "b.db")
    stored = (tmp_path / "bench.csv").read_text()
    assert "pfa_per_bp" in stored and "cells/hour" in stored and "expansion=1000_per_base" in stored


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_storing_and_merging_are_measured_and_nothing_stays(
    engine: str, tmp_path: Path, call: Call, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = str(tmp_path / "b.db") if engine == "sqlite" else request.getfixturevalue("server").new_database()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    small = partial(measure_store, n_shards=3, n_epochs=4, n_layers=2)
    monkeypatch.setattr(command, "measure_store", small)
    monkeypatch.setenv("PFA_DB", db)
    answer = call("bench", "store", "--json", "--store")
    assert answer.code == 0, answer.err
    (result,) = json.loads(answer.out)["benchmarks"]
    names = {name for name in result if name.endswith(("_second", "_seconds"))}
    expected = {"sqlite_rows_per_second", "merge_cpu_seconds", "merge_rows_per_cpu_second"}
    assert names == expected | ({"postgresql_rows_per_second"} if engine == "postgresql" else set())
    assert all(result[name] > 0 for name in names) and result["recipe"] == "store"
    with open_store(db, write=False) as store:
        assert {row.measure for row in store.read(lambda c: c.execute(table("benchmarks")).all())} == names
        assert runs(store) == []
        if engine == "postgresql":
            left = "SELECT count(*) FROM pg_namespace WHERE position('pfa_bench' in nspname) > 0"
            assert store.read(lambda connection: connection.exec_driver_sql(left).scalar()) == 0
    assert not list(tmp_path.glob("pfa-bench-*"))
