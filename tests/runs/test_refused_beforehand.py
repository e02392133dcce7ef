"""Settings that can never be trained are wrong usage, told once and before anything is stored."""

from pathlib import Path

import pytest
import run_cases
import torch
from command_line import Call

from pfa_cli.data.mnist import FOLDER, SHA256
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


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    run_cases.resnet_plan(tmp_path / "photographs", ["bp"])
    return tmp_path / "photographs"


def tree(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        (["mnist", "--precision=tf32"], 2, "precision tf32 needs a GPU"),
        (["mnist", "--set=train_images=10"], 2, "batch_size (=64) must be at most"),
        (["mnist", "--device=tpu"], 2, "unknown device 'tpu'"),
        (["mnist", "--device=cuda:99"], 2, "--device cuda:99"),
        (["mnist", "--db={tmp}/file/pfa.db"], 1, "cannot write the database"),
        (["mnist", "--db={tmp}/file"], 1, "is not an SQLite database"),
        (["mnist", "--data-dir={tmp}/file"], 1, "{tmp}/file"),
        (["mnist", "--data-dir={tmp}/mnist"], 1, "is damaged"),
        (["{tmp}/photographs/resnet20.toml", "--data-dir={tmp}/mnist"], 1, "no photographs in"),
    ],
)
def test_what_cannot_run_is_refused_once_and_changes_nothing(
    tmp_path: Path, photographs: Path, call: Call, wrong: list[str], code: int, said: str
) -> None:
    """By a dry run whatever is wrong; wrong usage by the run, too, before it stores anything."""
    (tmp_path / "file").write_text("a file")
    for name in SHA256:
        (tmp_path / "mnist" / FOLDER).mkdir(parents=True, exist_ok=True)
        (tmp_path / "mnist" / FOLDER / name).write_bytes(b"not these")
    before = tree(tmp_path)
    arguments = [f"--db={tmp_path}/pfa.db", "--device=cpu", "--algos=bp,fa"]
    arguments += [argument.format(tmp=tmp_path) for argument in wrong]
    for dry in (True, False) if code == 2 else (True,):
        refused = call("run", *arguments, *(["--dry-run"] if dry else []))
        assert refused.code == code and not (dry and refused.out)
        assert len(refused.err.splitlines()) == 1 and said.format(tmp=tmp_path) in refused.err
        assert tree(tmp_path) == before


def test_a_dry_run_of_what_can_run_fetches_and_changes_nothing(
    tmp_path: Path, photographs: Path, call: Call
) -> None:
    before = tree(tmp_path)
    db = f"--db={tmp_path}/new/folder/pfa.db"
    empty = f"--data-dir={tmp_path}/new/data"
    for arguments in (
        ["mnist", empty],
        [str(photographs / "resnet20.toml"), f"--data-dir={photographs}"],
    ):
        done = call("run", *arguments, db, "--device=cpu", "--algos=bp", "--dry-run")
        assert done.code == 0 and "no epoch of bp is stored" in done.err and len(done.err.splitlines()) == 1
        assert "1 cell, 1 to train" in done.out and "without an estimate" not in done.out
    assert tree(tmp_path) == before
