"""Grids, the state of their cells, and the hours that they need."""

import io
from pathlib import Path

import pytest
import run_cases
from command_line import Call
from rich.console import Console

from pfa_cli.arguments import parse_grid
from pfa_cli.bench import command
from pfa_cli.errors import UsageError
from pfa_cli.recipes import load_recipe
from pfa_cli.records import EpochRecord
from pfa_cli.runs import launch
from pfa_cli.runs.checkpoints import disk_needed
from pfa_cli.runs.plan import Plan, make_plan, make_sweep_plan, refreshed, united
from pfa_cli.store import writer
from pfa_cli.store.engine import open_store
from pfa_cli.store.owner import Owner

HERE, DEAD = Owner.current(), Owner(Owner.current().host, 2**22 + 1, 1.0)


def shown(plan: Plan, width: int = 100) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(plan.table())
    return [line.rstrip() for line in out.getvalue().splitlines() if line.strip()]


def test_seeds_come_one_after_the_other() -> None:
    plan = make_plan(None, load_recipe("mnist"), ["bp", "pfa"], [0, 3], {"epochs": 2})
    assert [cell.label for cell in plan.cells] == [
        "mnist bp seed 0",
        "mnist pfa seed 0",
        "mnist bp seed 3",
        "mnist pfa seed 3",
    ]
    assert {(cell.state, cell.epochs_left, cell.expected_hours) for cell in plan.cells} == {("new", 2, None)}
    assert plan.notes == ["epochs 40 → 2: milestones 20, 30 → 1, 2"]


def test_options_that_are_not_the_recipes_are_in_the_name() -> None:
    plan = make_plan(None, load_recipe("mnist"), ["bp", "pfa"], [0], {"expansion": 20})
    assert [cell.name for cell in plan.cells] == ["bp seed 0", "pfa expansion=20 seed 0"]


def test_no_two_cells_have_the_same_name() -> None:
    recipe = load_recipe("mnist")
    grid = parse_grid(
        ["pal.learning_rate=1e-3,5e-3", "pal.weight_decay=0,1e-4", "epochs=2", "hidden_sizes=[8],[8,8]"]
    )
    plan = make_plan(None, recipe, ["bp", "pal"], [0, 1], *grid)
    names = [cell.name for cell in plan.cells]
    assert len(set(names)) == len(names) == 2 * (2 + 2 * 2 * 2)
    assert names[:3] == [
        "bp hidden_sizes=[8] seed 0",
        "pal hidden_sizes=[8] learning_rate=0.001 weight_decay=0 seed 0",
        "bp hidden_sizes=[8,8] seed 0",
    ]
    lengths = make_plan(None, recipe, ["bp"], [0], *parse_grid(["epochs=2,40", "train_images=640"]))
    assert [cell.name for cell in lengths.cells] == ["bp epochs=2 seed 0", "bp seed 0"]
    (own,) = make_plan(None, recipe, ["bp"], [0], {"epochs": 10, "milestones": [3]}).cells
    assert own.name == "bp milestones=[3] seed 0"
    (back,) = make_plan(None, recipe, ["pfa"], [0], {"first_epoch_weight_decay": 1e-4}).cells
    assert back.name == "pfa first_epoch_weight_decay=0.0001 seed 0"


def test_several_recipes_are_one_plan() -> None:
    plans = [make_plan(None, load_recipe(name), ["bp"], [0, 1]) for name in ("mnist", "cifar10", "mnist")]
    assert [cell.label for cell in united(plans).cells] == [
        f"{recipe} bp seed {seed}" for recipe in ("mnist", "cifar10") for seed in (0, 1)
    ]


def test_some_algorithms_of_a_sweep() -> None:
    plan = make_sweep_plan(None, load_recipe("mnist"), "beyond-rank", [0], algorithms=["pfa-o"])
    assert {cell.algorithm for cell in plan.cells} == {"pfa-o"} and len(plan.cells) == 5
    with pytest.raises(UsageError, match="--algos bp: the sweep beyond-rank has pfa, pfa-o, pfa-l"):
        make_sweep_plan(None, load_recipe("mnist"), "beyond-rank", algorithms=["bp"])


def test_a_sweep_is_its_values_and_seeds() -> None:
    plan = make_sweep_plan(None, load_recipe("mnist"), "expansion", None, {"epochs": 3})
    assert len(plan.cells) == 21
    assert len({(cell.configuration.hash, cell.seed) for cell in plan.cells}) == 21
    assert [cell.name for cell in plan.cells[:2]] == ["pfa expansion=1 seed 0", "pfa expansion=2 seed 0"]
    assert len(plan.notes) == 1
    for key in ("expansion", "pfa.expansion"):
        with pytest.raises(UsageError, match=f"--set {key}: the sweep expansion sets it"):
            make_sweep_plan(None, load_recipe("mnist"), "expansion", None, {key: 3})


def test_states_epochs_left_and_hours_come_from_the_database(tmp_path: Path) -> None:
    plan = run_cases.plan(["bp", "fa", "dfa", "sf", "pfa"], epochs=10)
    with open_store(str(tmp_path / "pfa.db"), write=True) as store:
        ids = [writer.ensure_run(store, cell.configuration, cell.seed) for cell in plan.cells]

        def work(run_id: int, owner: Owner, epochs: int, seconds: float) -> writer.Claim:
            claim = writer.claim(store, run_id, owner, is_alive=lambda row: False)
            assert claim is not None
            for epoch in range(epochs + 1):
                writer.record_epoch(store, claim, EpochRecord(epoch, seconds=seconds if epoch else 1e6))
            return claim

        writer.finish(store, work(ids[0], HERE, 10, 3600), "done")
        work(ids[1], DEAD, 4, 360)
        work(ids[2], HERE, 1, 36)
        writer.finish(store, work(ids[3], HERE, 0, 1), "failed", error="no")
        found = refreshed(plan, store)
        others = make_plan(
            store, load_recipe("mnist"), ["bp", "pfa"], [5], {"epochs": 20, "train_images": 100}
        )
    assert [(cell.state, cell.epochs_left) for cell in found.cells] == [
        ("done", 0),
        ("stale", 6),
        ("running", 9),
        ("failed", 10),
        ("queued", 10),
    ]
    assert [cell.expected_hours for cell in found.cells] == pytest.approx([0, 0.6, 0.09, None, None])
    # Not these configurations, but their recipe and algorithm.
    assert [cell.expected_hours for cell in others.cells] == [20.0, None]
    lines = shown(found)
    cell = "hidden_sizes=[32,32] batch_size=32 seed 0"
    assert " ".join(lines[2].split()) == f"mnist bp {cell} done 0"
    assert " ".join(lines[3].split()) == f"mnist fa {cell} stale 6 36 min"
    assert lines[-2] == "5 cells, 4 to train: 35 epochs, 41 min + 2 cells without an estimate on one worker"
    assert lines[-1].startswith("epochs 40 → 10")


def test_only_epochs_of_the_same_kind_of_device_tell_the_time(tmp_path: Path) -> None:
    plan = run_cases.plan(["bp"], epochs=10)
    (cell,) = plan.cells
    with open_store(str(tmp_path / "pfa.db"), write=True) as store:
        for seed, (cuda, seconds) in enumerate((("13.0", 36.0), (None, 360.0)), start=1):
            run_id = writer.ensure_run(store, cell.configuration, seed)
            claim = writer.claim(store, run_id, HERE, is_alive=lambda row: False)
            assert claim is not None
            writer.start_attempt(store, claim, {"cuda_version": cuda})
            for epoch in (0, 1):
                writer.record_epoch(store, claim, EpochRecord(epoch, seconds=seconds if epoch else 1e6))
            found = [refreshed(plan, store, device).cells[0].expected_hours for device in ("cuda", "cpu")]
            assert found == pytest.approx([0.1, 1.0]) if cuda is None else found == [0.1, None]
    assert len(plan.without_time) == 1


def test_a_dry_run_tries_only_what_has_no_epoch_and_stores_nothing(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def trial(recipe: object, algorithms: dict[str, str], overrides: object, *_: object) -> dict[str, float]:
        tried.append((list(algorithms), overrides))
        if "pfa" in algorithms:
            raise MemoryError("it does not fit")
        return dict.fromkeys(algorithms, 90.0)

    monkeypatch.setattr(command, "epoch_seconds", trial)
    monkeypatch.setattr(launch, "check_data", lambda *_: None)
    arguments = ("run", "mnist", "--epochs=40", "--set=expansion=3", "--dry-run", "--db", "none.db")
    done = call(*arguments, "--algos=bp,fa,pfa")
    assert tried == [(["bp", "fa"], {}), (["pfa"], {"expansion": 3})]
    assert "no epoch of bp, fa, pfa is stored for this device; trying a few steps" in done.err
    told = " ".join(done.out.split())
    assert "120 epochs, 2 h 00 min + 1 cell without an estimate on one worker" in told
    assert "mnist: the time of bp, fa is from a trial of a few steps" in told
    assert "mnist: no estimate of the time of pfa: it does not fit" in told
    assert list(tmp_path.iterdir()) == []


def test_a_diverged_run_has_nothing_left(tmp_path: Path) -> None:
    plan = run_cases.plan(["bp"], epochs=10)
    with open_store(str(tmp_path / "pfa.db"), write=True) as store:
        run_id = writer.ensure_run(store, plan.cells[0].configuration, 0)
        claim = writer.claim(store, run_id, HERE, is_alive=lambda row: False)
        assert claim is not None
        writer.record_epoch(store, claim, EpochRecord(0))
        writer.record_epoch(store, claim, EpochRecord(1, seconds=1.0, diverged=True))
        writer.finish(store, claim, "done")
        (cell,) = refreshed(plan, store).cells
    assert (cell.state, cell.epochs_left, cell.expected_hours) == ("done", 0, 0)


@pytest.mark.parametrize(("kept", "n"), [("none", 0), ("last", 1), ("2", 2)])
def test_as_many_checkpoints_stay_as_asked_and_take_the_disk_that_was_foretold(
    kept: str, n: int, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "ensure", lambda store: 0)  # Figure 3's simulations: seconds
    small = ["--epochs=3", "--set=train_images=64", "--set=test_images=64", "--device=cpu", "--jobs=1"]
    command = ["run", "mnist", "--algos=pal", *small, "--db=a.db", f"--keep-checkpoints={kept}"]
    assert "disk: about " in call(*command, "--dry-run").out
    assert call(*command).code == 0
    files = [path for path in (tmp_path / "a.db.checkpoints").rglob("*") if path.is_file()]
    assert len(files) == 2 * n
    recipe, settings = load_recipe("mnist"), {"epochs": 3, "train_images": 64, "test_images": 64}
    with open_store("a.db", write=False) as store:
        for known in [None, store] if n else [None]:  # from the network's size, and from what lies there
            (cell,) = make_plan(known, recipe, ["pal"], [1], settings).cells
            expected = disk_needed(known, [cell], kept=n, at_a_time=0)
            assert expected >= 0.95 * sum(path.stat().st_size for path in files)
            assert expected <= (1.05 if known else 1.6) * sum(path.stat().st_size for path in files) + 10_000
        assert disk_needed(known, [cell], kept=n, at_a_time=1) > expected + 5_000_000
