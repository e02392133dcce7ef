"""Trainings that several tests compare theirs with."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`run_cases.start`, whose processes end with the test, whatever its outcome."""
    with contextlib.ExitStack() as started:

        def start(*arguments: Any, **changes: Any) -> subprocess.Popen[str]:
            command = started.enter_context(run_cases.start(*arguments, **changes))
            started.callback(_end_group, command.pid)
            return command

        yield start


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of `run_cases.plan()`, trained without interruption."""
    db = tmp_path_factory.mktemp("small") / "pfa.db"
    code, said = run_cases.train(db, run_cases.plan())
    assert code == 0, said
    return db
