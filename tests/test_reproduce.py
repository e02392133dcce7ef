"""`pfa reproduce`: what it would run, what it leaves out, and that it ends in figures and the report."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from command_line import Call

from pfa_cli import reproduce
from pfa_cli.bench import command
from pfa_cli.recipes import list_recipes
from pfa_cli.runs.plan import Plan

SMALL = """
title = "a small MNIST"
[base]
dataset = "mnist"
network = "mlp"
hidden_sizes = [8, 8]
epochs = 2
batch_size = 32
learning_rate = 0.01
milestones = [1]
learning_rate_factor = 0.5
momentum = 0.9
weight_decay = 1e-4
train_images = 128
test_images = 32
probe_images = 32
[sweeps.expansion]
algorithm = "pfa"
key = "expansion"
values = [1, 10]
seeds = 1
paper = true
[sweeps.other]
algorithm = "pfa"
key = "expansion"
values = [3]
seeds = 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Recipes: a small mnist; and two algorithms in place of nine."""
    monkeypatch.setattr(reproduce, "TABLE_1", ("bp", "pfa"))
    # PDFs take as long again.
    monkeypatch.setattr(reproduce, "build", partial(reproduce.build, formats=("png",)))
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mnist.toml").write_text(SMALL)
    return "recipes"


def test_the_papers_cells_with_the_shortest_recipe_first(tmp_path: Path) -> None:
    shipped = list_recipes()
    found = reproduce.parts(None, reversed(shipped), range(5), tmp_path)
    names = [part.recipe.name for part in found]
    assert names.index("mnist") < names.index("cifar10") < names.index("imagenet")
    mnist = found[names.index("mnist")]
    # Figure 3's sweep: one of its seven values is the recipe's own.
    assert len(mnist.plan.cells) == 9 * 5 + 6 * 3
    assert mnist.to_fetch and not mnist.left_out
    imagenet = found[names.index("imagenet")]
    assert "no photographs in" in imagenet.left_out


def test_a_dry_run_shows_hours_and_disk_and_trains_nothing(
    call: Call, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command_line = ("reproduce", "mnist", "imagenet", "--seeds=2", "--dry-run", f"--recipe-dir={folder}")
    done = call(*command_line)
    assert done.code == 0, done.err
    assert "mnist: no epoch of bp, pfa is stored for this device; trying a few steps" in done.err
    row = next(line.split() for line in done.out.splitlines() if line.startswith(" mnist"))
    assert row[:4] == ["mnist", "5", "0", "10"] and "unknown" not in row
    told = " ".join(done.out.split())
    assert "mnist: the time of bp, pfa is from a trial of a few steps" in told
    assert "imagenet: left out: no photographs in" in told and "at least" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["recipes"]

    monkeypatch.setattr(command, "_TRIAL_STEP", 0.0)
    done = call(*command_line)
    assert done.code == 0
    told = " ".join(done.out.split())
    assert "mnist: no estimate of the time of bp, pfa: a step of BP takes about" in told
    assert "at least 0 s with" in told
    row = next(line.split() for line in done.out.splitlines() if line.startswith(" mnist"))
    assert row[:5] == ["mnist", "5", "0", "10", "unknown"] and row[6] == "MB"


def test_only_algorithms_without_a_stored_epoch_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def trial(recipe: object, names: dict[str, str], *_: object) -> dict[str, float]:
        tried.append(list(names))
        return dict.fromkeys(names, 7.0)

    monkeypatch.setattr(command, "epoch_seconds", trial)
    (mnist,) = (recipe for recipe in list_recipes() if recipe.name == "mnist")
    (part,) = reproduce.parts(None, [mnist], [0], tmp_path)
    cells = [
        replace(cell, expected_hours=None if cell.algorithm == "pal" else 1.0) for cell in part.plan.cells
    ]
    part = replace(part, plan=Plan(cells))
    found = reproduce.estimated(part, "cpu", tmp_path, print)
    assert tried == [["pal"]]
    assert found.hours() == pytest.approx(len(cells) - 1 + 40 * 7 / 3600)
    reproduce.estimated(
        replace(part, plan=Plan([replace(cell, expected_hours=1.0) for cell in cells])),
        "cpu",
        tmp_path,
        print,
    )
    assert len(tried) == 1, "all of it was stored"


def test_it_trains_and_ends_in_figures_and_the_report_and_goes_on(
    call: Call, folder: str, tmp_path: Path
) -> None:
    command = ("reproduce", "mnist", "imagenet", "--seeds=1", f"--recipe-dir={folder}")
    done = call(*command, "--jobs=1")
    assert done.code == 0, done
    assert "imagenet: left out: no photographs in" in done.out
    made = {path.name for path in (tmp_path / "results").iterdir()}
    assert {"fig2.png", "fig3.png", "table1.md", "comparison.md", "report.html"} <= made
    runs = json.loads(call("status", "--json").out)
    assert sorted((run["algorithm"], run["settings"].get("expansion")) for run in runs) == [
        ("bp", None),
        ("pfa", 1),
        ("pfa", 10),
    ]
    again = call(*command, "--dry-run").out
    assert next(line.split() for line in again.splitlines() if line.startswith(" mnist"))[1:4] == [
        "3",
        "3",
        "0",
    ]


def test_data_that_cannot_be_fetched_leave_their_recipe_out(
    call: Call, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise reproduce.PfaError("no source can be reached")

    monkeypatch.setattr(reproduce, "prepare_data", refuse)
    done = call("reproduce", "mnist", "--seeds=1", f"--recipe-dir={folder}")
    assert done.code == 0 and "mnist: left out: no source can be reached" in done.out
    assert not (tmp_path / "results").exists()
