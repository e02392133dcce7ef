"""A process is known by its number and its start, whatever the clock says."""

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pfa_cli.store.owner import Owner, process_started


def test_the_current_process() -> None:
    me = Owner.current()
    assert (me.host, me.pid) == (platform.node(), os.getpid())
    assert me.process_started == process_started(os.getpid()) is not None
    assert Owner.current() == me


def test_a_stopped_process_lives_and_a_zombie_does_not() -> None:
    code = "import time; print('up', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    started = process_started(process.pid)
    assert started is not None
    assert started >= (process_started(os.getpid()) or 0)
    os.kill(process.pid, signal.SIGSTOP)
    assert process_started(process.pid) == started
    process.kill()
    os.waitid(
        os.P_PID, process.pid, os.WEXITED | os.WNOWAIT
    )  # it has ended, and nobody has asked for its code
    assert process_started(process.pid) is None
    process.wait()
    process.stdout.close()
    assert process_started(process.pid) is None


def test_a_command_name_with_brackets_and_blanks(tmp_path: Path) -> None:
    name = tmp_path / "a) R 1 (b"
    name.symlink_to("/bin/sleep")
    try:
        process = subprocess.Popen([name, "60"])
    except OSError as error:
        pytest.skip(f"cannot start a program by that name: {error}")
    started = process_started(process.pid)
    process.kill()
    process.wait()
    assert started is not None
    assert started >= (process_started(os.getpid()) or 0)
