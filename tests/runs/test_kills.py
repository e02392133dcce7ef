"""kill -9 at random moments: what is resumed equals, bit for bit, what was never interrupted."""

import subprocess
import sys
from pathlib import Path

import pytest
import run_cases


def killed(what: str, db: Path, kills: int) -> int:
    """Trains in `kill_loop`; how many kills met a running cell."""
    script = Path(__file__).with_name("kill_loop.py")
    arguments = [sys.executable, str(script), what, str(db), str(kills)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("kills", [10, pytest.param(40, marks=pytest.mark.long)])
def test_every_algorithm_survives_kills_at_random_moments(
    kills: int, tmp_path: Path, small_runs: Path
) -> None:
    assert killed("mnist", tmp_path / "killed.db", kills) >= kills // 2
    assert run_cases.results(tmp_path / "killed.db") == run_cases.results(small_runs)


@pytest.mark.parametrize("kills", [3, pytest.param(12, marks=pytest.mark.long)])
def test_resnet_survives_kills_at_random_moments(
    kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PFA_WORKERS", "0")
    assert killed("resnet20", tmp_path / "killed.db", kills) >= kills // 2
    cells = run_cases.resnet_plan(tmp_path / "photographs", ["bp", "pfa"])
    code, said = run_cases.train(tmp_path / "whole.db", cells, tmp_path / "photographs")
    assert code == 0, said
    assert run_cases.results(tmp_path / "killed.db") == run_cases.results(tmp_path / "whole.db")
