"""`pfa run` as a user starts it: real processes, signals and kills. What is resumed equals what was never interrupted."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import run_cases
from sqlalchemy import func, select, update

from pfa_cli.runs import status
from pfa_cli.runs.plan import Plan
from pfa_cli.store import schema
from pfa_cli.store.engine import open_store
from pfa_cli.store.owner import process_started

# Long enough that a test can act in the middle of it.
LONG = {"epochs": 10, "train_images": 3200}
ALGORITHMS = "bp,pfa"

Start = Callable[..., subprocess.Popen[str]]


def cells() -> Plan:
    return run_cases.plan(ALGORITHMS.split(","), **LONG)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cells of LONG, trained without interruption."""
    db = tmp_path_factory.mktemp("whole") / "pfa.db"
    code, said = run_cases.train(db, cells())
    assert code == 0, said
    return db


def test_a_killed_worker_is_replaced_and_workers_outlive_no_parent(
    tmp_path: Path, whole: Path, start: Start
) -> None:
    db = tmp_path / "pfa.db"
    command = start(db, ALGORITHMS, "--jobs", "2", **LONG)
    first = run_cases.until(lambda: run_cases.running(db, epochs=1), "a running cell")[0]
    assert first.pid != command.pid
    os.kill(first.pid, signal.SIGKILL)
    resumed = run_cases.until(
        lambda: [row for row in run_cases.running(db) if row.id == first.id and row.pid != first.pid],
        "another worker on the killed one's cell",
    )
    command.kill()
    out, err = command.communicate(timeout=run_cases.LIMIT_SECONDS)
    assert "was killed by SIGKILL; another resumes it" in out
    assert not err
    run_cases.until(lambda: process_started(resumed[0].pid) is None, "the worker to leave")
    assert not {"running", "failed"} & set(run_cases.states(db))
    assert "interrupted" in run_cases.states(db)

    assert run_cases.train(db, cells())[0] == 0
    assert run_cases.results(db) == run_cases.results(whole)
    with open_store(str(db), write=False) as store:
        outcomes = store.read(lambda c: list(c.execute(select(schema.attempts.c.outcome)).scalars()))
    assert {"stale", "interrupted", "done"} <= set(outcomes) and None not in outcomes


def test_ctrl_c_saves_every_cell(tmp_path: Path, whole: Path, start: Start) -> None:
    db = tmp_path / "pfa.db"
    command = start(db, ALGORITHMS, "--jobs", "2", **LONG)
    run_cases.until(lambda: run_cases.running(db, epochs=1), "a running cell")
    os.killpg(command.pid, signal.SIGINT)  # as a terminal does: to parent and workers
    out, err = command.communicate(timeout=run_cases.LIMIT_SECONDS)
    assert (command.returncode, err) == (130, "")
    assert "the same command goes on" in out
    assert not {"running", "failed"} & set(run_cases.states(db))

    assert run_cases.train(db, cells())[0] == 0
    assert run_cases.results(db) == run_cases.results(whole)


def test_sigterm_saves_in_the_middle_of_an_epoch(tmp_path: Path, whole: Path, start: Start) -> None:
    db = tmp_path / "pfa.db"
    command = start(db, ALGORITHMS, "--jobs", "1", **LONG)
    (row,) = run_cases.until(lambda: run_cases.running(db, epochs=1), "a running cell")
    assert row.pid == command.pid
    command.terminate()
    out, err = command.communicate(timeout=run_cases.LIMIT_SECONDS)
    assert (command.returncode, err) == (143, "")
    assert "interrupted, saved" in out

    assert run_cases.train(db, cells())[0] == 0
    assert run_cases.results(db) == run_cases.results(whole)


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path, start: Start) -> None:
    db = tmp_path / "pfa.db"
    # A step that takes several seconds, and no Python runs in its products: both signals come within it.
    slow = {"epochs": 2, "train_images": 8000, "batch_size": 8000, "hidden_sizes": [2000, 2000]}
    command = start(db, "bp", "--jobs", "1", **slow)
    run_cases.until(lambda: [row for row in run_cases.running(db) if row.checkpoint], "epoch 0")
    time.sleep(0.5)  # else the first signal may come before the step, which then is not begun
    command.send_signal(signal.SIGINT)
    time.sleep(0.05)
    command.send_signal(signal.SIGINT)
    assert command.wait(timeout=run_cases.LIMIT_SECONDS) == 130
    with open_store(str(db), write=False) as store:
        (row,) = status.rows(store)
    assert (row.state, row.epochs_done) == ("stale", 0)


def stop_outside_of_a_write(command: subprocess.Popen[str], db: Path) -> None:
    """By SIGSTOP. A process that is stopped while it writes keeps the database locked."""
    while True:
        command.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, command.pid, os.WSTOPPED | os.WNOWAIT)
        connection = sqlite3.connect(db, timeout=0, isolation_level=None)
        with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(connection):
            connection.execute("BEGIN IMMEDIATE")  # else the database is locked
            return
        command.send_signal(signal.SIGCONT)
        time.sleep(0.01)


def test_two_commands_share_the_cells_and_a_stopped_one_keeps_its_cell(
    tmp_path: Path, whole: Path, start: Start
) -> None:
    db = tmp_path / "pfa.db"
    one = start(db, ALGORITHMS, "--jobs", "1", **LONG)
    run_cases.until(lambda: run_cases.running(db), "the first command's first cell")
    stop_outside_of_a_write(one, db)
    (held,) = run_cases.running(db)
    with open_store(str(db), write=True) as store, store.write() as connection:
        long_ago = datetime.now(UTC) - timedelta(days=1)
        connection.execute(
            update(schema.runs).where(schema.runs.c.id == held.id).values(heartbeat_at=long_ago)
        )

    code, said = run_cases.train(db, cells())
    assert code == 0
    assert "is being trained by another process: left to it" in said
    states = {row.id: row.state for row in run_cases.stored(db)}
    assert states.pop(held.id) == "running" and set(states.values()) == {"done"}

    one.send_signal(signal.SIGCONT)
    _, err = one.communicate(timeout=run_cases.LIMIT_SECONDS)
    assert (one.returncode, err) == (0, "")
    assert run_cases.results(db) == run_cases.results(whole)
    with open_store(str(db), write=False) as store:
        query = select(func.count()).select_from(schema.attempts)
        assert store.read(lambda c: c.execute(query).scalar_one()) == len(states) + 1
