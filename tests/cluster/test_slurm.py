"""`pfa submit` and a real Slurm: whatever ends a job, all cells get done, no epoch is lost, and every job is COMPLETED."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import run_cases
from sqlalchemy import select

from pfa_cli.runs import status
from pfa_cli.store import schema
from pfa_cli.store.engine import open_store
from pfa_cli.store.owner import Job

pytestmark = pytest.mark.usefixtures("slurm")
EPOCHS = 30


@dataclass(frozen=True)
class Submitted:
    """A job with a database of its own."""

    db: Path
    job_id: str

    def state(self, job: str = "") -> str:
        """The state of the job, or of an element, in Slurm's words."""
        said = run("scontrol", "show", "job", job or self.job_id, "--oneliner")
        states = re.findall(r"JobState=(\S+)", said)
        return " ".join(sorted(set(states)))

    def has_begun(self) -> bool:
        """Whether pfa is started. Before, the script has no trap yet, and a signal would end it."""
        commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
        return any("run" in command and f"--db={self.db}" in command for command in commands)

    def trains(self, job: str) -> bool:
        """Whether a cell is in the hands of the job, or the element, with an epoch stored."""
        jobs = [Job.stored(row.job) for row in run_cases.running(self.db, epochs=1)]
        return job in [found.name for found in jobs if found]

    def attempts(self) -> list[dict[str, Any]]:
        with open_store(str(self.db), write=False) as store:
            query = select(schema.attempts).order_by(schema.attempts.c.id)
            return store.read(lambda c: [dict(row) for row in c.execute(query).mappings()])

    def output(self) -> str:
        return "".join(path.read_text() for path in Path(f"{self.db}.slurm").glob("*.out"))


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=run_cases.LIMIT_SECONDS).stdout


def submit(folder: Path, *arguments: str, algorithms: str = "bp", **changes: Any) -> Submitted:
    folder.mkdir()
    run_cases.with_simulations(folder / "pfa.db")
    settings = {
        "epochs": EPOCHS,
        "train_images": 1600,
        "test_images": 200,
        "hidden_sizes": [32, 32],
    } | changes
    said = subprocess.run(
        [
            *(sys.executable, "-m", "pfa_cli", "submit", "mnist", f"--db={folder / 'pfa.db'}"),
            *(f"--algos={algorithms}", "--jobs=1", "--device=cpu", *arguments),
            *(f"--set={key}={json.dumps(value)}" for key, value in settings.items()),
        ],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    found = re.search(r"Submitted batch job (\d+)", said.stdout)
    assert found, said.stdout
    return Submitted(folder / "pfa.db", found[1])


@pytest.fixture(scope="module")
def jobs(slurm: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Submitted]:
    """Jobs that were ended in all ways, at the same time, and have gone on to their end."""
    folder = tmp_path_factory.mktemp("jobs")
    # The first start gets USR1 after 15 to 25 s; afterwards there is time enough.
    longer = '[ -z "$SLURM_RESTART_COUNT" ] || scontrol update JobId=$SLURM_JOB_ID TimeLimit=9'
    limit = ("--time=1", "--sbatch=signal=B:USR1@35", f"--setup={longer}")
    found = {
        "a time limit": submit(folder / "limit", *limit, epochs=8 * EPOCHS),
        "requeue of an element": submit(folder / "array", "--array=2", epochs=4 * EPOCHS, algorithms="bp,fa"),
        "pre-emption": submit(folder / "preempted", epochs=4 * EPOCHS),
        "USR1 during the imports": submit(folder / "imports"),
    }
    array, imports = found["requeue of an element"], found["USR1 during the imports"]
    preempted = found["pre-emption"]
    high = ("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")
    ends: dict[Callable[[], Any], tuple[str, ...]] = {  # each as soon as its job has come so far
        imports.has_begun: ("sh", "-c", f"sleep 0.3; scancel --batch --signal=USR1 {imports.job_id}"),
        lambda: array.trains(f"{array.job_id}_2"): ("scontrol", "requeue", f"{array.job_id}_2"),
        lambda: preempted.trains(preempted.job_id): high,
    }
    while ends:
        run(*ends.pop(run_cases.until(lambda: next((due for due in ends if due()), None), "a job to end")))
    for name, job in found.items():
        run_cases.until(lambda job=job: job.state() == "COMPLETED", f"the end of the job with {name}")
    return found


@pytest.mark.parametrize(
    ("what", "cells"),
    [("a time limit", 1), ("requeue of an element", 2), ("pre-emption", 1), ("USR1 during the imports", 1)],
)
def test_a_job_that_was_ended_goes_on_and_loses_no_epoch(
    what: str, cells: int, jobs: dict[str, Submitted]
) -> None:
    job = jobs[what]
    assert run_cases.states(job.db) == ["done"] * cells
    attempts = job.attempts()
    assert {attempt["outcome"] for attempt in attempts} <= {"interrupted", "done"}
    assert max(attempt["restart_count"] for attempt in attempts) > 0
    assert {(a["job_id"], a["partition"], a["ranks"]) for a in attempts} == {(job.job_id, "low", 1)}
    assert {a["array_task"] for a in attempts} == ({1, 2} if cells == 2 else {None})
    epochs = re.findall(r"mnist (\w+) .* epoch (\d+)/(\d+) ", job.output())
    assert len(epochs) == len(set(epochs)) == cells * (int(epochs[0][2]) + 1), job.output()


def test_a_cancelled_job_is_not_requeued(slurm: None, tmp_path: Path) -> None:
    job = submit(tmp_path / "cancelled", epochs=1000)
    run_cases.until(lambda: run_cases.running(job.db, epochs=1), "a running cell")
    with open_store(str(job.db), write=False) as store:
        (row,) = status.rows(store)
    assert (row.job, row.queue) == (job.job_id, "RUNNING")
    run("scancel", job.job_id)
    run_cases.until(lambda: job.state() == "CANCELLED", "the end of the job")
    assert run_cases.states(job.db) == ["interrupted"]
    assert "requeues" not in job.output()
