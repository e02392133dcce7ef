"""Signals and exit codes, in processes that do nothing else."""

import signal
import subprocess
import sys

import pytest

from pfa_cli.signals import STOP_SIGNALS, signals_blocked, stop_signals

WAITS = """
import sys, time
from pfa_cli.signals import stop_signals
with stop_signals(lambda: print("at once", flush=True)) as stop:
    print("ready", flush=True)
    while not stop:
        time.sleep(0.01)
    print("asked", flush=True)
    if len(sys.argv) > 1:
        time.sleep(60)
sys.exit(stop.exit_code)
"""


def started(*arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WAITS, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_lets_the_process_finish_and_sets_its_exit_code(number: signal.Signals) -> None:
    with started() as process:
        process.send_signal(number)
        assert process.communicate(timeout=20)[0] == "asked\n"
    assert process.returncode == (130 if number == signal.SIGINT else 143)


@pytest.mark.parametrize("first", STOP_SIGNALS)
def test_ctrl_c_after_it_exits_without_saving(first: signal.Signals) -> None:
    with started("and stay") as process:
        process.send_signal(first)
        assert process.stdout is not None and process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGTERM)  # once more, which changes nothing
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[0] == "at once\n"
    assert process.returncode == 130


def test_a_signal_that_comes_while_blocked_is_not_lost() -> None:
    with signals_blocked():
        signal.raise_signal(signal.SIGTERM)
        with stop_signals() as stop:
            for _ in range(1000):
                if stop:
                    break
                signal.sigtimedwait([], 0.01)
            assert stop.exit_code == 143


def test_what_handled_signals_before_does_so_again() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with stop_signals() as stop:
        assert not stop and stop.exit_code == 0
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_a_signal_of_another_handler_is_no_request_to_stop() -> None:
    """torch's data loader handles SIGCHLD, and every handled signal wakes the listener."""
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        with stop_signals() as stop:
            subprocess.run(["true"], check=True)
            signal.raise_signal(signal.SIGCHLD)
            signal.sigtimedwait([], 0.2)
            assert not stop
            signal.raise_signal(signal.SIGUSR1)
            for _ in range(1000):
                if stop:
                    break
                signal.sigtimedwait([], 0.01)
            assert stop.exit_code == 143
    finally:
        signal.signal(signal.SIGCHLD, before)
