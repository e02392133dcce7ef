"""Settings that can never be trained are wrong usage, told once and before anything is stored."""

import subprocess
import sys
from pathlib import Path

import pytest
import run_cases
import torch

from pfa_cli.errors import UsageError
from pfa_cli.recipes import load_recipe
from pfa_cli.runs.launch import check
from pfa_cli.runs.plan import make_plan, refreshed
from pfa_cli.store import writer
from pfa_cli.store.engine import open_store
from pfa_cli.store.owner import Owner

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("settings", "images"),
    [
        ({"train_images": 10}, 10),
        ({"batch_size": 60_001}, 60_000),
        ({"batch_size": 59_000, "validation_images": 1001}, 58_999),
    ],
)
def test_a_batch_takes_no_more_images_than_there_are(settings: dict[str, int], images: int) -> None:
    message = rf"batch_size \(=\d+\) must be at most the number of training images \(={images}\)"
    with pytest.raises(UsageError, match=message):
        make_plan(None, load_recipe("mnist"), ["bp"], [0], settings)


def test_a_batch_may_take_them_all() -> None:
    make_plan(None, load_recipe("mnist"), ["bp"], [0], {"train_images": 64})


def test_a_batch_divides_among_the_ranks() -> None:
    (cell,) = make_plan(None, load_recipe("mnist"), ["bp"], [0], {"accumulation": 2}).cells
    check([cell], CPU, ranks=32)
    with pytest.raises(UsageError, match=r"batch_size \(=64\) must be divisible by .* \(=3 × 2\)"):
        check([cell], CPU, ranks=3)


def test_the_device_must_have_the_precision_of_what_is_to_be_trained_there(tmp_path: Path) -> None:
    db = tmp_path / "pfa.db"
    cells = run_cases.plan(["bp", "fa"], precision="fp16")
    with pytest.raises(UsageError, match="precision fp16 needs a GPU"):
        run_cases.train(db, cells)
    assert not db.exists()

    with open_store(str(db), write=True) as store:  # as if on a GPU
        for cell in cells.cells:
            run_id = writer.ensure_run(store, cell.configuration, cell.seed)
            claim = writer.claim(store, run_id, Owner.current(), is_alive=lambda row: False)
            assert claim is not None
            writer.finish(store, claim, "done")
        done = refreshed(cells, store)
    check(done.cells, CPU)
    code, said = run_cases.train(db, done)
    assert (code, said) == (0, "nothing to do: 2 cells done already\n")


def test_the_command_says_so_once_and_stores_nothing(tmp_path: Path) -> None:
    for wrong in (["--precision=tf32"], ["--set=train_images=10"], ["--set=train_images=10", "--dry-run"]):
        command = [sys.executable, "-m", "pfa_cli", "run", "mnist", "--algos=bp,fa", "--device=cpu", *wrong]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        assert not list(tmp_path.iterdir())
