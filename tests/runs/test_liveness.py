"""Who is alive: real processes, stopped, killed and unreaped."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from pfa_cli.runs.liveness import GRACE, is_alive, shown_state
from pfa_cli.store.owner import Owner, process_started

LONG_AGO = datetime.now(UTC) - timedelta(days=30)


@dataclass
class Row:
    host: str | None
    pid: int | None
    process_started: float | None
    heartbeat_at: datetime | None = LONG_AGO
    state: str = "running"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def row_of(pid: int) -> Row:
    return Row(Owner.current().host, pid, process_started(pid))


def test_a_process_of_this_host_is_alive_however_old_its_heartbeat(process: subprocess.Popen[bytes]) -> None:
    assert is_alive(row_of(process.pid))


def test_a_stopped_process_is_alive(process: subprocess.Popen[bytes]) -> None:
    row = row_of(process.pid)
    process.send_signal(signal.SIGSTOP)
    assert is_alive(row) and shown_state(row) == "running"


def test_a_killed_process_is_gone_at_once_even_before_its_parent_knows(
    process: subprocess.Popen[bytes],
) -> None:
    row = row_of(process.pid)
    row.heartbeat_at = datetime.now(UTC)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still a zombie
    assert not is_alive(row) and shown_state(row) == "stale"
    process.wait()
    assert not is_alive(row)


def test_another_process_with_the_same_number_is_another(process: subprocess.Popen[bytes]) -> None:
    row = row_of(process.pid)
    assert row.process_started is not None
    row.process_started -= 1000
    assert not is_alive(row)


@pytest.mark.parametrize(
    ("age", "alive"),
    [
        (timedelta(0), True),
        (GRACE - timedelta(minutes=1), True),
        (GRACE + timedelta(minutes=1), False),
        (-timedelta(days=1), True),  # a clock was set back
    ],
)
def test_another_host_is_known_by_its_heartbeat(age: timedelta, alive: bool) -> None:
    row = Row("another", 1, 1.0, datetime.now(UTC) - age)
    assert is_alive(row) is alive
    assert shown_state(row) == ("running" if alive else "stale")


@pytest.mark.parametrize("state", ["queued", "done", "failed", "interrupted"])
def test_only_a_running_cell_can_be_stale(state: str) -> None:
    assert shown_state(Row(None, None, None, None, state)) == state
