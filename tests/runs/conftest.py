"""Trainings that several tests compare theirs with."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import run_cases
import torch


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Runs in this process set the number of threads; other tests have theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of `run_cases.plan()`, trained without interruption."""
    db = tmp_path_factory.mktemp("small") / "pfa.db"
    code, said = run_cases.train(db, run_cases.plan())
    assert code == 0, said
    return db
