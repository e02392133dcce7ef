"""`torchrun … -m pfa_cli run`: two processes train the cells together, one of them writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = [
    "--epochs",
    "2",
    "--set",
    "train_images=640",
    "--set",
    "test_images=500",
    "--algos",
    "bp,pfa,pal,dfa",
]


def _run(folder: Path, *launcher: str) -> list[dict[str, object]]:
    folder.mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [
        sys.executable,
        *launcher,
        "-m",
        "pfa_cli",
        "run",
        "mnist",
        "--device",
        "cpu",
        "--jobs",
        "1",
        *SETTINGS,
    ]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("4 cells: 4 done") == 1
    status = [sys.executable, "-m", "pfa_cli", "status", "--json"]
    shown = subprocess.run(status, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    rows = json.loads(shown.stdout)
    return rows if isinstance(rows, list) else rows["runs"]


def test_two_ranks_fill_one_database_with_the_same_results(tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    alone, together = _run(tmp_path / "alone"), _run(tmp_path / "together", *launcher)
    assert len(together) == 4
    for one, two in zip(alone, together, strict=True):
        assert (one["algorithm"], two["state"]) == (two["algorithm"], "done")
        # Not to the bit: two ranks sum in another order than one. Of 500 test images a few lie on the boundary.
        assert two["test_accuracy_percent"] == pytest.approx(one["test_accuracy_percent"], abs=1.0)
        assert two["train_accuracy_percent"] == pytest.approx(one["train_accuracy_percent"], abs=0.5)
