"""What goes wrong in one cell stays in it: named, stored, and over; nothing that was stored before is harmed."""

import contextlib
import itertools
import math
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import run_cases
import torch
from command_line import Call
from sqlalchemy import delete, select, update

from pfa_cli.data import default_data_dir
from pfa_cli.errors import PfaError
from pfa_cli.networks import build
from pfa_cli.recipes import load_recipe
from pfa_cli.records import EpochRecord
from pfa_cli.registry import ALGORITHMS
from pfa_cli.runs import launch, worker
from pfa_cli.runs.backend import Setup
from pfa_cli.runs.checkpoints import checkpoint_folder
from pfa_cli.runs.events import Ended, EpochDone, Event
from pfa_cli.runs.plan import Plan, make_plan
from pfa_cli.runs.worker import Worker
from pfa_cli.store import schema, writer
from pfa_cli.store.engine import Store, open_store
from pfa_cli.store.errors import ServerLost
from pfa_cli.store.owner import Owner
from pfa_cli.training import checkpoint

KEEP_NEWEST = checkpoint.keep_newest


def both(*plans: Plan) -> Plan:
    return replace(plans[0], cells=[cell for plan in plans for cell in plan.cells])


def checkpoints(db: Path, cells: Plan) -> Path:
    (cell,) = cells.cells
    with open_store(str(db), write=False) as store:
        return checkpoint_folder(store, cell.configuration, cell.seed)


def test_out_of_memory_fails_its_cell_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_memory", lambda: math.inf)  # else it is refused beforehand
    db = tmp_path / "pfa.db"
    code, said = run_cases.train(
        db, both(run_cases.plan(["bp"], hidden_sizes=[32, 4_000_000_000_000]), run_cases.plan(["fa"]))
    )
    assert code == 1
    failed, done = run_cases.stored(db)
    assert (failed.state, done.state) == ("failed", "done")
    assert failed.error is not None and failed.error.startswith("out of memory on cpu")
    assert f" seed 0 failed: {failed.error}" in said


def test_an_error_that_nobody_foresaw_leaves_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, cells = tmp_path / "pfa.db", run_cases.plan(["bp"])
    facts = worker.attempt_facts
    monkeypatch.setattr(worker, "attempt_facts", lambda *given: monkeypatch.undo() or facts(*given)[0])
    code, _ = run_cases.train(db, both(cells, run_cases.plan(["fa"])))
    assert code == 1
    failed, done = run_cases.stored(db)
    assert (failed.state, done.state) == ("failed", "done")
    log = checkpoints(db, cells) / "traceback.txt"
    assert str(log) in str(failed.error)
    assert log.read_text().startswith("Traceback (most recent call last):")


@pytest.mark.parametrize("back", [True, False], ids=["back at once", "away still"])
def test_a_stop_while_the_server_is_away_with_an_epoch_late_fails_no_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    db, cells, alone = tmp_path / "pfa.db", run_cases.plan(["bp"]), tmp_path / "alone.db"
    record, finish = writer.record_epoch, writer.finish

    def away(store: Store, claim: writer.Claim, epoch: EpochRecord, *given: Any, **named: Any) -> None:
        if epoch.epoch == 2:
            if not named.get("wait", True):
                signal.raise_signal(signal.SIGINT)
            raise ServerLost("the server does not answer")
        record(store, claim, epoch, *given, **named)

    def finish_away(*given: Any, **named: Any) -> None:
        if not back:
            raise ServerLost("the server does not answer")
        finish(*given, **named)

    monkeypatch.setattr(writer, "record_epoch", away)
    monkeypatch.setattr(writer, "finish", finish_away)
    _, said = run_cases.train(db, cells)
    assert "trains on, and stores epoch 2 after the next" in said and "failed" not in said
    assert run_cases.states(db) == ["interrupted" if back else "running"]  # without a process: stale
    monkeypatch.undo()
    assert run_cases.train(db, cells)[0] == 0
    assert run_cases.train(alone, cells)[0] == 0
    assert run_cases.results(db) == run_cases.results(alone)


def test_a_checkpoint_that_is_no_file_fails_no_cell(tmp_path: Path) -> None:
    db, cells = tmp_path / "pfa.db", run_cases.plan(["bp"])
    open_store(str(db), write=True).close()
    folder = checkpoints(db, cells)
    (folder / "epoch-0000-step-0000000.json").mkdir(parents=True)  # where a file should go
    os.mkfifo(folder / "epoch-0001-step-0000000.safetensors")
    (folder / "epoch-x.json").write_text("[]")
    assert run_cases.train(db, cells)[0] == 0
    assert run_cases.states(db) == ["done"]


def test_a_done_cell_keeps_its_last_checkpoint_only_and_prune_removes_the_rest(
    tmp_path: Path, call: Call
) -> None:
    db, cells = tmp_path / "pfa.db", run_cases.plan(["bp"])
    assert run_cases.train(db, cells)[0] == 0
    done = checkpoints(db, cells)
    kept = {path.name: path.read_bytes() for path in done.iterdir()}
    assert kept.keys() == {"epoch-0004-step-0000000.json", "epoch-0004-step-0000000.safetensors"}
    assert b"momentum." not in kept["epoch-0004-step-0000000.safetensors"]

    stranger = done.with_name("mnist-bp-seed9-0123456789abcdef")
    shutil.copytree(done, stranger)
    shutil.copytree(done, done.with_name("mine"))
    (done / "epoch-0003-step-0000000.json").write_text("old")
    (done / ".epoch-0004-step-0000000.json.12345678.partial").write_text("half")
    (done / "notes.txt").write_text("mine")
    run_cases.train(db, run_cases.plan(["fa"], epochs=1))
    set_back(db, state="interrupted", where="fa")
    others = {path for path in done.parent.rglob("*") if path.is_file()}

    def pruned(*arguments: str) -> str:
        answer = call("db", "prune", f"--db={db}", *arguments)
        assert answer.code == 0, answer.err
        return answer.out

    said = pruned()
    assert str(stranger) in said and str(done) in said and "--delete" in said and "mine" not in said
    assert {path for path in done.parent.rglob("*") if path.is_file()} == others
    pruned("--delete")
    gone = {path for path in others if not path.exists()}
    assert {path.relative_to(done.parent).parts[0] for path in gone} == {stranger.name, done.name}
    assert not stranger.exists()
    assert {path.name: path.read_bytes() for path in done.iterdir()} == kept | {"notes.txt": b"mine"}
    assert "nothing" in pruned("--delete")


def test_a_mistake_that_only_the_data_show_is_the_cells_error(tmp_path: Path) -> None:
    db = tmp_path / "pfa.db"
    run_cases.resnet_plan(tmp_path, ["bp"])  # 18 photographs
    recipe = load_recipe(str(tmp_path / "resnet20.toml"))
    code, _ = run_cases.train(db, make_plan(None, recipe, ["bp"], [0], {"batch_size": 100}), tmp_path)
    (row,) = run_cases.stored(db)
    assert (code, row.state) == (1, "failed")
    assert row.error == "batch_size (=100) must be at most the number of training images (=18)"


def test_a_run_does_not_go_on_with_other_photographs(tmp_path: Path) -> None:
    db, cells = tmp_path / "pfa.db", run_cases.resnet_plan(tmp_path, ["bp"])
    assert run_cases.train(db, cells, tmp_path)[0] == 0
    before = run_cases.results(db)
    set_back(db, state="interrupted")
    added = tmp_path / "train" / "cat" / "more.png"
    shutil.copy(tmp_path / "train" / "cat" / "0.png", added)
    code, said = run_cases.train(db, cells, tmp_path)
    (row,) = run_cases.stored(db)
    assert (code, row.state, row.epochs_done) == (1, "failed", 3)
    for part in ("18 train / 6 test", f"{tmp_path} has", "19 train / 6 test", f"`pfa runs rerun {row.id}`"):
        assert part in said, said
    added.unlink()
    moved = tmp_path / "elsewhere" / "of-another-name"
    for part in ("train", "val"):
        shutil.copytree(tmp_path / part, moved / part)
    assert run_cases.train(db, cells, moved)[0] == 0
    assert run_cases.results(db) == before


def test_of_done_cells_the_photographs_are_said(tmp_path: Path) -> None:
    db, cells = tmp_path / "pfa.db", run_cases.resnet_plan(tmp_path, ["bp"])
    assert run_cases.train(db, cells, tmp_path)[0] == 0
    told = f"1 cell done already, trained on {tmp_path.name} (3 classes), 18 train / 6 test"
    assert told in run_cases.train(db, cells, tmp_path / "elsewhere")[1]
    assert told in run_cases.train(db, run_cases.resnet_plan(tmp_path, ["bp", "fa"]), tmp_path)[1]


def test_a_diverged_run_is_a_result(tmp_path: Path) -> None:
    db = tmp_path / "pfa.db"
    code, said = run_cases.train(db, run_cases.plan(["bp"], learning_rate=1e30))
    assert code == 0
    (row,) = run_cases.stored(db)
    assert (row.state, row.diverged_epoch, row.error) == ("done", 1, None)
    assert "learning_rate=1e+30 seed 0 done, diverged in epoch 1" in said


def train_to_the_last_epoch(db: Path, cells: Plan) -> None:
    """As far as a process gets that is killed before it could say that the cell is done."""
    with patch.object(checkpoint, "keep_newest", lambda folder, kept=1: KEEP_NEWEST(folder, 2)):
        assert run_cases.train(db, cells)[0] == 0


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path: Path, small_runs: Path) -> None:
    db, cells = tmp_path / "pfa.db", run_cases.plan(["pfa"])
    train_to_the_last_epoch(db, cells)
    newest = max(checkpoints(db, cells).glob("*.safetensors"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    set_back(db, state="interrupted")
    code, said = run_cases.train(db, cells)
    assert code == 0
    assert f"damaged checkpoint passed over: {newest.with_suffix('')}" in said
    assert "epoch 4/4" in said and "epoch 3/4" not in said
    assert_like(small_runs, db)


@pytest.mark.parametrize("epochs", [3, 1, None])
def test_checkpoints_ahead_of_the_database_are_not_used(
    tmp_path: Path, small_runs: Path, epochs: int | None
) -> None:
    """Killed between saving and storing (one epoch), or a database from a backup (more)."""
    db, cells = tmp_path / "pfa.db", run_cases.plan(["wm"])
    train_to_the_last_epoch(db, cells)
    with open_store(str(db), write=True) as store, store.write() as connection:
        after = -1 if epochs is None else epochs
        for table in (schema.layers, schema.epochs):
            connection.execute(delete(table).where(table.c.epoch > after))
    set_back(db, state="interrupted", epochs_done=epochs)
    code, said = run_cases.train(db, cells)
    assert code == 0
    assert ("epoch 3/4" in said, "epoch 0/4" in said) == ((False, False) if epochs == 3 else (True, True))
    assert_like(small_runs, db)


def test_a_lost_cell_is_left_quietly(tmp_path: Path) -> None:
    db = tmp_path / "pfa.db"
    (task,) = run_cases.tasks(db, run_cases.plan(["bp"]))
    with open_store(str(db), write=True) as store:
        thief = Owner("elsewhere", 1, 1.0)

        def steal(event: Event) -> None:
            if isinstance(event, EpochDone) and event.record.epoch == 1:
                assert writer.claim(store, task.run_id, thief, is_alive=lambda row: False)

        worker = Worker(store, Setup(str(db), "cpu", default_data_dir()), steal, lambda: False)
        assert worker.run(task) == Ended(0, "lost")
    (row,) = run_cases.stored(db)
    assert (row.state, row.host, row.epochs_done) == ("running", "elsewhere", 1)


@pytest.mark.parametrize("lives", [True, False])
def test_a_cell_is_not_taken_from_a_live_process_whose_clock_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: bool
) -> None:
    db, behind = tmp_path / "pfa.db", datetime.now(UTC) - timedelta(hours=3)
    monkeypatch.setattr(worker, "HEARTBEAT_SECONDS", 0.3)
    (task,) = run_cases.tasks(db, run_cases.plan(["bp"], epochs=1))
    with open_store(str(db), write=True) as store:
        assert writer.claim(store, task.run_id, Owner("elsewhere", 1, 1.0), is_alive=lambda row: False)
        set_back(db, heartbeat_at=behind)

        def asked_to_stop() -> bool:  # while it watches, too
            if lives:
                set_back(db, heartbeat_at=behind + timedelta(seconds=15))
            return False

        ended = Worker(store, Setup(str(db), "cpu", default_data_dir()), print, asked_to_stop).run(task)
    (row,) = run_cases.stored(db)
    assert ended is not None
    assert (ended.outcome, row.host) == (("busy", "elsewhere") if lives else ("done", Owner.current().host))


def test_a_command_that_leaves_cells_to_a_host_whose_clock_is_behind_has_failed_at_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, behind = tmp_path / "pfa.db", datetime.now(UTC) - timedelta(hours=3)
    monkeypatch.setenv("PFA_GRACE", "0.02")
    (task,) = run_cases.tasks(db, run_cases.plan(["bp"], epochs=1))
    with open_store(str(db), write=True) as store:
        assert writer.claim(store, task.run_id, Owner("elsewhere", 1, 1.0), is_alive=lambda row: False)
    ended = threading.Event()

    def live() -> None:
        for n in itertools.count(1):
            set_back(db, heartbeat_at=behind + timedelta(seconds=n))
            if ended.wait(0.05):
                return

    set_back(db, heartbeat_at=behind)
    other = threading.Thread(target=live)
    other.start()
    try:
        code, out = run_cases.train(db, run_cases.plan(["bp"], epochs=1))
    finally:
        ended.set()
        other.join()
    assert (code, run_cases.states(db)) == (0, ["running"])
    assert "1 running; 1 left to another process" in out


def test_a_deleted_database_ends_the_command_with_one_message(tmp_path: Path) -> None:
    db = tmp_path / "pfa.db"

    def delete_it() -> None:
        run_cases.until(lambda: run_cases.running(db, epochs=1), "a running cell")
        db.rename(tmp_path / "moved.db")

    thread = threading.Thread(target=delete_it)
    thread.start()
    with pytest.raises(PfaError, match="was deleted or replaced while it was in use"):
        run_cases.train(db, run_cases.plan(["bp", "fa", "dfa"], epochs=40))
    thread.join()
    assert not db.exists()


@pytest.mark.parametrize(("one", "other"), [("lr-0.1", "lr-0.2"), ("pfa.db", "pfa.sqlite")])
def test_two_databases_never_share_a_folder_of_checkpoints(tmp_path: Path, one: str, other: str) -> None:
    cells = run_cases.plan(["bp"])
    for name in (one, other):
        open_store(str(tmp_path / name), write=True).close()
    folder, another = (checkpoints(tmp_path / name, cells) for name in (one, other))
    assert folder.parent != another.parent
    assert folder.parent.name == f"{one}.checkpoints"


def test_checkpoints_in_a_folder_of_the_former_name_are_found_and_stay(
    tmp_path: Path, small_runs: Path
) -> None:
    db, cells = tmp_path / "pfa.db", run_cases.plan(["pfa"])
    assert run_cases.train(db, cells)[0] == 0
    former = tmp_path / "pfa.checkpoints"
    checkpoints(db, cells).parent.rename(former)
    before = sorted((path, path.read_bytes()) for path in former.rglob("*.*"))
    set_back(db, state="interrupted")
    code, said = run_cases.train(db, cells)
    assert (code, "epoch 0/4" in said) == (0, False)
    assert_like(small_runs, db)
    assert sorted((path, path.read_bytes()) for path in former.rglob("*.*")) == before


def test_checkpoints_of_another_database_are_not_restored_where_this_one_has_no_epoch(
    tmp_path: Path, small_runs: Path
) -> None:
    cells = run_cases.plan(["pfa"])
    assert run_cases.train(tmp_path / "lr-0.1", cells)[0] == 0
    with open_store(str(tmp_path / "lr-0.1"), write=False) as store:
        checkpoints(Path(store.name), cells).parent.rename(tmp_path / "lr-0.checkpoints")
    code, said = run_cases.train(tmp_path / "lr-0.2", cells)
    assert (code, "epoch 0/4" in said) == (0, True)
    assert_like(small_runs, tmp_path / "lr-0.2")
    assert list((tmp_path / "lr-0.checkpoints").glob("*/epoch-*.json"))


def test_a_file_in_the_place_of_a_cells_checkpoints_fails_the_cell_with_the_cure(tmp_path: Path) -> None:
    db = tmp_path / "pfa.db"
    (tmp_path / "pfa.db.checkpoints").write_text("mine")
    code, out = run_cases.train(db, run_cases.plan(["bp"], epochs=1))
    assert code == 1 and "is a file where the folder of a cell's checkpoints belongs: move it away" in out
    assert run_cases.states(db) == ["failed"]


def test_a_folder_moved_away_under_a_run_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    db = tmp_path / "results" / "pfa.db"
    (task,) = run_cases.tasks(db, run_cases.plan(["bp"]))
    with open_store(str(db), write=True) as store:

        def move(event: Event) -> None:
            if isinstance(event, EpochDone) and event.record.epoch == 1:
                (tmp_path / "results").rename(tmp_path / "archive")

        worker = Worker(store, Setup(str(db), "cpu", default_data_dir()), move, lambda: False)
        ended = worker.run(task)
    assert ended.outcome == "failed" and "was moved or deleted under the run: put it back" in str(ended.error)
    assert os.listdir(tmp_path) == ["archive"]  # noqa: PTH208
    (row,) = run_cases.stored(tmp_path / "archive" / "pfa.db")
    assert (row.state, row.epochs_done) == ("running", 1)  # resumes once the folder is back


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("room", [0, 100_000, 500_000])
def test_a_full_disk_harms_nothing_and_the_run_goes_on_when_it_is_mended(
    small_disk: Path, small_runs: Path, room: int
) -> None:
    """Whether the database is what does not fit, or a checkpoint."""
    db, cells = small_disk / "pfa.db", run_cases.plan(["bp", "pfa"])
    assert run_cases.train(db, run_cases.plan(["bp"], epochs=2))[0] == 0
    before = run_cases.results(db)
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while shutil.disk_usage(small_disk).free > room:
            file.write(bytes(4096))
    try:
        code, said = run_cases.train(db, cells)
    except PfaError as error:
        code, said = error.exit_code, str(error)
    assert code == 1
    assert "no space left" in said.lower()
    filler.unlink()
    assert run_cases.train(db, cells)[0] == 0
    after = run_cases.results(db)
    assert before.items() <= after.items()
    assert_like(small_runs, db, but=before)


def set_back(db: Path, *, where: str | None = None, **values: object) -> None:
    """As if the runs (of the algorithm ``where``) had not come to their end."""
    chosen = (
        update(schema.runs) if where is None else update(schema.runs).where(schema.runs.c.algorithm == where)
    )
    with open_store(str(db), write=True) as store, store.write() as connection:
        connection.execute(chosen.values(**values))


def assert_like(whole: Path, db: Path, but: object = ()) -> None:
    expected, found = run_cases.results(whole), run_cases.results(db)
    assert found
    for cell, values in found.items():
        if cell not in but:
            assert values == expected[cell], cell


def test_every_attempt_says_what_it_ran_on(small_runs: Path) -> None:
    with open_store(str(small_runs), write=False) as store:
        attempts = store.read(lambda c: list(c.execute(select(schema.attempts)).mappings()))
    assert len(attempts) == len(ALGORITHMS)
    for attempt in attempts:
        assert attempt["pid"] == os.getpid()
        assert attempt["torch_version"] == torch.__version__
        assert (attempt["threads"], attempt["precision"], attempt["outcome"]) == (1, "fp32", "done")
        assert attempt["device"] and attempt["argv"] and attempt["python_version"] and attempt["pfa_version"]
        assert attempt["dataset"] == "MNIST, 640 train / 200 test"
        assert attempt["started_at"] <= attempt["ended_at"]
        assert attempt["cuda_version"] is None


def test_a_run_whose_code_is_of_no_known_commit_warns_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "commit", lambda: (None, None))
    code, said = run_cases.train(tmp_path / "pfa.db", run_cases.plan(["bp", "fa"], epochs=1))
    assert code == 0
    assert said.count("warning: pfa was built without git") == 1
