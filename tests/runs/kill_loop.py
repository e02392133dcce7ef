"""Trains while killing the training process again and again: `python kill_loop.py mnist|resnet20 DATABASE KILLS`.

Every attempt is a fork of this process, which has imported torch and trained nothing, so that a kill costs no import.
After each kill the database is looked at as `pfa status` does. Prints how many kills met a running cell.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import run_cases
import torch

from pfa_cli.runs import status
from pfa_cli.runs.plan import Plan
from pfa_cli.store.engine import open_store
from pfa_cli.store.errors import NoResults


def main(what: str, db: Path, kills: int) -> None:
    folder = db.parent / "photographs"
    cells, data_dir = (
        (run_cases.plan(), None)
        if what == "mnist"
        else (run_cases.resnet_plan(folder, ["bp", "pfa"]), folder)
    )
    torch.optim.SGD([torch.zeros(1)], lr=1.0)  # imports half of torch when it is first made
    moments = random.Random(0)
    met, reached, longest = 0, 0, 0.05
    while met < kills and _killed(db, cells, data_dir, moments, longest):
        stale, epochs = _look(db)
        met += stale
        # Such that about every other attempt gets an epoch further, however fast the machine is.
        longest *= 0.9 if epochs > reached else 1.2
        reached = epochs
    code, said = run_cases.train(db, cells, data_dir)
    assert code == 0, said
    print(met)


def _killed(db: Path, cells: Plan, data_dir: Path | None, moments: random.Random, longest: float) -> bool:
    """Kills an attempt within ``longest`` seconds of its claim, or as it starts; False if it came to its end before."""
    child = os.fork()
    if child == 0:
        os._exit(run_cases.train(db, cells, data_dir)[0])
    in_training = moments.random() < 0.8
    delay = moments.uniform(0.0, longest)
    while in_training and not any(row.pid == child for row in run_cases.running(db)):
        if _ended(child):
            return False
    deadline = time.monotonic() + delay
    while time.monotonic() < deadline:
        if _ended(child):
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _ended(child: int) -> bool:
    ended, code = os.waitpid(child, os.WNOHANG)
    assert code == 0, "an attempt failed"
    return ended != 0


def _look(db: Path) -> tuple[int, int]:
    """How many cells the killed process held, which are seen as stale at once, and how many epochs are stored."""
    try:
        with open_store(str(db), write=False) as store:
            rows = status.rows(store)
    except NoResults:  # killed while it made the database
        return 0, 0
    assert not [row for row in rows if row.state == "running"]
    return sum(row.state == "stale" for row in rows), sum(row.epochs_done for row in rows)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
