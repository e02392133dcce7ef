"""Two hosts (`unshare --uts`), one database: who takes over the cell of a process that was killed on the other, and when."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import run_cases
from sqlalchemy import select

from pfa_cli.store import schema
from pfa_cli.store.engine import open_store

EPOCHS = {"epochs": 30, "train_images": 1600}  # long enough that the kill comes before the last


def on(host: str, db: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """`pfa run` of one cell on the host of that name."""
    settings = {"test_images": 200, "hidden_sizes": "[32,32]"} | EPOCHS
    run = [
        sys.executable,
        "-m",
        "pfa_cli",
        "run",
        "mnist",
        "--algos=bp",
        f"--db={db}",
        "--device=cpu",
        "--jobs=1",
    ]
    run += [*(f"--set={key}={value}" for key, value in settings.items()), *arguments]
    named = ["unshare", "--uts", "sh", "-c", f'hostname {host} && exec "$@"', "_"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return subprocess.Popen(
        [*named, *run],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=kept | {"OMP_NUM_THREADS": "1"} | environment,
    )


def killed_on_a(db: Path, **environment: str) -> None:
    """A database whose one cell was in training on host a when its process was killed."""
    if subprocess.run(["unshare", "--uts", "hostname", "a"], capture_output=True).returncode != 0:
        pytest.skip("only root gives a process another host name")
    command = on("a", run_cases.with_simulations(db), **environment)
    (row,) = run_cases.until(lambda: run_cases.running(db, epochs=1), "a running cell")
    command.kill()
    command.communicate()
    assert (row.host, run_cases.states(db)) == ("a", ["running"])


def attempts(db: Path) -> list[tuple[str, str]]:
    with open_store(str(db), write=False) as store:
        query = select(schema.attempts.c.host, schema.attempts.c.outcome).order_by(schema.attempts.c.id)
        return store.read(lambda c: [(row[0], row[1]) for row in c.execute(query)])


def test_a_requeued_job_takes_its_cell_back_at_once_on_another_host(tmp_path: Path) -> None:
    db = tmp_path / "pfa.db"
    job = {"SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "test", "SLURM_JOB_USER": "root"}
    killed_on_a(db, **job)
    command = on("b", db, SLURM_RESTART_COUNT="1", **job)
    out, _ = command.communicate(timeout=run_cases.LIMIT_SECONDS)
    assert (command.returncode, run_cases.states(db)) == (0, ["done"]), out
    assert attempts(db) == [("a", "stale"), ("b", "done")]


def test_without_slurm_another_host_waits_for_the_grace(tmp_path: Path) -> None:
    db = tmp_path / "pfa.db"
    killed_on_a(db)
    (row,) = run_cases.stored(db)
    assert row.heartbeat_at is not None
    command = on("b", db, "--wait", "--grace", "0.1")
    out, _ = command.communicate(timeout=run_cases.LIMIT_SECONDS)
    assert (command.returncode, run_cases.states(db)) == (0, ["done"]), out
    assert attempts(db) == [("a", "stale"), ("b", "done")]
    with open_store(str(db), write=False) as store:
        began = store.read(lambda c: c.execute(select(schema.attempts.c.started_at)).scalars().all())
    assert (began[-1] - row.heartbeat_at).total_seconds() >= 6
