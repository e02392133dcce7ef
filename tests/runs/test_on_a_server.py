"""Runs whose database is on a PostgreSQL server: checkpoints in a folder that is stored with them, a restart, a kill."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import run_cases
from command_line import Call
from postgres import Server

from pfa_cli.records import EpochRecord
from pfa_cli.runs.checkpoints import folder_of
from pfa_cli.store import writer
from pfa_cli.store.engine import Store, open_store
from pfa_cli.store.queries import attempts_frame, runs
from pfa_cli.training import checkpoint

EPOCHS = 60  # so many that the kill comes before the last, also on a quick machine


def test_a_run_survives_a_restart_of_its_server_and_goes_on_elsewhere_after_a_kill(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    url = server.new_database()
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    monkeypatch.chdir(here)
    process = start(url, "bp", "--checkpoint-dir=checkpoints", epochs=EPOCHS)
    run_cases.until(lambda: run_cases.running(url, epochs=1), "an epoch")
    server.stop()
    server.start()
    (row,) = run_cases.running(url)
    run_cases.until(
        lambda: run_cases.running(url, epochs=(row.epochs_done or 0) + 2), "epochs after the restart"
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    monkeypatch.chdir(there)
    code, said = run_cases.train(url, run_cases.plan(["bp"], epochs=EPOCHS), checkpoint_dir=Path("others"))
    assert code == 0 and "from the start" not in said
    with open_store(url, write=False) as store:
        (row,) = runs(store)
        assert folder_of(store, row).is_relative_to(here / "checkpoints")
        frame = attempts_frame(store)
    assert frame["outcome"].tolist() == ["stale", "done"]
    assert frame["resumed_epoch"].iloc[1] >= 3
    assert list(there.iterdir()) == []
    alone = tmp_path / "alone.db"
    assert run_cases.train(alone, run_cases.plan(["bp"], epochs=EPOCHS))[0] == 0
    assert run_cases.results(url) == run_cases.results(alone)


def test_while_its_server_is_away_a_cell_trains_on_for_an_epoch_and_loses_none(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server stops when epoch 1 is to be stored, and is back when epoch 2 has been trained."""
    url, saved = server.new_database(), []
    save, record = checkpoint.save, writer.record_epoch

    def save_and_stop(*arguments: Any, **named: Any) -> str:
        name: str = save(*arguments, **named)
        saved.append(name)
        if len(saved) == 2:  # after that of epoch 0
            server.stop("immediate")
        return name

    def start_and_record(
        store: Store, claim: writer.Claim, epoch: EpochRecord, *given: Any, wait: bool = True
    ) -> None:
        if epoch.epoch == 1 and wait:
            server.start()
        record(store, claim, epoch, *given, wait=wait)

    monkeypatch.setattr(checkpoint, "save", save_and_stop)
    monkeypatch.setattr(writer, "record_epoch", start_and_record)
    folder = tmp_path / "all"
    code, said = run_cases.train(url, run_cases.plan(["bp"]), checkpoint_dir=folder)
    assert code == 0 and "trains on, and stores epoch 1 after the next" in said
    alone = tmp_path / "alone.db"
    assert run_cases.train(alone, run_cases.plan(["bp"]))[0] == 0
    assert run_cases.results(url) == run_cases.results(alone)


def test_a_folder_for_checkpoints_is_the_databases_own_and_is_stored(server: Server, tmp_path: Path) -> None:
    folders = []
    for db in (
        server.new_database(),
        server.new_database(),
        tmp_path / "a" / "pfa.db",
        tmp_path / "b" / "pfa.db",
    ):
        code, _ = run_cases.train(db, run_cases.plan(["bp"], epochs=1), checkpoint_dir=tmp_path / "all")
        assert code == 0
        with open_store(str(db), write=False) as store:
            folders.append(folder_of(store, runs(store)[0]))
        assert folders[-1].is_relative_to(tmp_path / "all") and any(folders[-1].iterdir())
    assert len(set(folders)) == 4


@pytest.mark.parametrize("command", ["run", "run --dry-run", "submit --print"])
def test_a_servers_runs_need_a_folder_for_checkpoints(server: Server, call: Call, command: str) -> None:
    url = server.new_database()
    answer = call(*command.split(), "mnist", "--algos", "bp", "--db", url)
    assert answer.code == 2
    assert "--checkpoint-dir FOLDER" in answer.err and "PFA_CHECKPOINTS" in answer.err
    with open_store(url, write=True) as store:
        assert runs(store) == []
