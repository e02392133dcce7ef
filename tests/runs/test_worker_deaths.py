"""A cell that kills its workers must not be tried for ever."""

import os
import signal
import threading
from pathlib import Path

import run_cases

from pfa_cli.data import default_data_dir
from pfa_cli.runs.backend import Setup
from pfa_cli.runs.events import Broken, Ended, Event, Note, Said
from pfa_cli.runs.processes import Pool
from pfa_cli.signals import StopRequest


def test_a_cell_is_given_up_after_two_deaths_without_an_epoch_between(tmp_path: Path) -> None:
    db = tmp_path / "pfa.db"
    # An epoch takes longer than the test.
    tasks = run_cases.tasks(db, run_cases.plan(["bp"], train_images=60_000, hidden_sizes=[2000, 2000]))
    told: list[Event | Said | Broken] = []
    killed: list[int] = []

    def kill_two() -> None:
        for _ in range(2):
            row = run_cases.until(
                lambda: next(
                    (r for r in run_cases.running(db) if r.checkpoint and r.pid not in killed), None
                ),
                "a new worker in training",
            )
            killed.append(row.pid)
            os.kill(row.pid, signal.SIGKILL)

    pool = Pool(Setup(str(db), "cpu", default_data_dir()), 2, told.append, StopRequest())
    killer = threading.Thread(target=kill_two)
    killer.start()
    pool.run(tasks)
    killer.join()
    assert [note.message for note in told if isinstance(note, Note)] == [
        "its worker was killed by SIGKILL; another resumes it from its last checkpoint"
    ]
    ended = told[-1]
    assert isinstance(ended, Ended) and ended.outcome == "failed" and ended.error is not None
    assert ended.error.startswith("its worker was killed by SIGKILL, 2 times without an epoch between")
    (row,) = run_cases.stored(db)
    assert (row.state, row.error) == ("failed", ended.error)
