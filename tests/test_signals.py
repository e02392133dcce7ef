"""Signals and exit codes, in processes that do nothing else."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pfa_cli.signals import STOP_SIGNALS, Stopped, interruptible, signals_blocked, stop_signals

WAITS = """
import signal, sys, time
from pfa_cli.signals import signals_blocked, stop_signals
with stop_signals(lambda: print("at once", flush=True)) as stop:
    print("ready", flush=True)
    if "and signal itself" in sys.argv:
        with signals_blocked():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
    while not stop:
        time.sleep(0.01)
    print("asked", flush=True)
    if "and stay" in sys.argv:
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
def test_a_second_ctrl_c_exits_without_saving(first: signal.Signals) -> None:
    with started("and stay") as process:
        process.send_signal(first)
        assert process.stdout is not None and process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGTERM)  # once more, which changes nothing
        process.send_signal(signal.SIGINT)
        if first != signal.SIGINT:  # that was the first Ctrl-C
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.2)
            for _ in range(400):  # two that come while it waits for a core are one
                if process.poll() is not None:
                    break
                process.send_signal(signal.SIGINT)
                time.sleep(0.05)
        assert process.communicate(timeout=20)[0] == "at once\n"
    assert process.returncode == 130


def test_ctrl_c_and_sigterm_that_waited_for_the_process_together_let_it_finish() -> None:
    """As `pfa run` sends SIGTERM to its processes after a terminal sent Ctrl-C to all: the later one is handled first."""
    with started("and signal itself") as process:
        # Not by `communicate`, which passes over what was read together with the first line.
        assert process.stdout is not None and process.stdout.read() == "asked\n"
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


PRINTS = """
import sys, time
from pfa_cli.signals import guard_output, stop_signals
guard_output()
with stop_signals() as stop:
    for number in range(2000):
        print("line", number, flush=True)
        print("message", number, file=sys.stderr, flush=True)
        if stop:
            sys.exit(stop.exit_code)
        time.sleep(0.001)
"""


@pytest.mark.parametrize(
    ("redirection", "code"),
    [
        ("| head -2", 143),
        ("2>&1 >/dev/null | head -2", 143),
        ("> /dev/full", 0),
        ("2> /dev/full > /dev/full", 0),
        (">&-", 0),
        ("2>&- >&-", 0),
    ],
)
def test_output_that_cannot_be_written_is_no_error(redirection: str, code: int) -> None:
    """A closed pipe stops the process as SIGTERM does; what a full device does not take is dropped."""
    command = ["bash", "-c", f'"$0" -c "$1" {redirection}; exit ${{PIPESTATUS[0]}}', sys.executable, PRINTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert "Error" not in done.stderr
    if redirection == "| head -2":
        assert done.stdout == "line 0\nline 1\n"
        assert "pfa: nobody reads the output any more: stops as after SIGTERM\n" in done.stderr


def test_a_file_opened_later_is_never_written_to_as_output(tmp_path: Path) -> None:
    """Where standard output is closed, the next file that is opened would get its number."""
    code = "from pfa_cli.signals import guard_output; guard_output(); open(sys.argv[1], 'w').fileno() > 2 or 1 / 0; print(1)"
    command = [
        "bash",
        "-c",
        '"$0" -c "$1" "$2" >&- <&-',
        sys.executable,
        f"import sys; {code}",
        str(tmp_path / "f"),
    ]
    subprocess.run(command, check=True, timeout=60)
    assert (tmp_path / "f").read_text() == ""


STARTS = """
import sys, time
from pfa_cli import __main__
class Slow:  # in the place of the imports
    def find_spec(self, name, *_):
        if name == sys.argv[1]:
            print("ready", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
__main__.main()
"""


@pytest.mark.parametrize(
    ("module", "number"),
    [("pfa_cli.signals", signal.SIGINT), *(("pfa_cli.cli", number) for number in STOP_SIGNALS)],
)
def test_a_signal_during_the_imports_ends_the_process_with_a_sentence(
    module: str, number: signal.Signals
) -> None:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", STARTS, module], **streams) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert process.returncode == (130 if number == signal.SIGINT else 143)
    assert said == f"pfa: stopped by {number.name}\n"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_was_ignored_at_the_start_stays_so(number: signal.Signals) -> None:
    """`nohup` ignores SIGHUP, a shell without job control SIGINT for what it starts in the background."""
    ignoring = f'trap \'\' {number.name.removeprefix("SIG")}; exec "$0" -c "$1"'
    command = ["bash", "-c", ignoring, sys.executable, WAITS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.terminate()
        assert process.communicate(timeout=20)[0] == "asked\n"
    assert process.returncode == 143


def test_what_has_nothing_to_save_is_interrupted() -> None:
    with stop_signals() as stop:
        with pytest.raises(Stopped), interruptible():
            signal.raise_signal(signal.SIGTERM)
        assert stop.exit_code == 143
        with pytest.raises(Stopped), interruptible():  # asked before: it does not even begin
            raise AssertionError


NOWHERE_TO_RAISE = """
import atexit, os, signal, weakref
from pfa_cli.signals import handle_signals, stop_signals

class Thing: pass

def asked(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    sum(range(1000))  # the handler runs here

handle_signals()
atexit.register(asked)
thing = Thing()
reference = weakref.ref(thing, asked)
del thing
with stop_signals() as request:
    print(bool(request))
"""


def test_a_signal_where_nothing_can_be_raised_is_not_lost_and_prints_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", NOWHERE_TO_RAISE], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


ENDS = """
import os, signal, sys
from pfa_cli.signals import handle_signals, stop_signals

handle_signals()
with stop_signals() as request:
    os.kill(os.getpid(), signal.SIGTERM)
    while not request:
        pass
os.kill(os.getpid(), getattr(signal, sys.argv[1]))
print("saved", flush=True)
sys.exit(request.exit_code)
"""


@pytest.mark.parametrize(("second", "said", "code"), [("SIGTERM", "saved\n", 143), ("SIGINT", "", 130)])
def test_a_second_signal_while_the_process_ends(second: str, said: str, code: int) -> None:
    """Batch systems may send several SIGTERM; Ctrl-C is a person who does not want to wait."""
    done = subprocess.run([sys.executable, "-c", ENDS, second], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == (said, "", code)


GIVES_BACK = """
import os, signal, sys
from sqlalchemy import event
from pfa_cli.signals import handle_signals
from pfa_cli.store.engine import open_store

handle_signals()
with open_store(sys.argv[1], write=True) as store:
    @event.listens_for(store.engine, "reset")
    def asked(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        sum(range(1000))  # the handler runs here

    store.read(lambda connection: None)
"""


def test_a_signal_is_no_error_that_a_library_logs(tmp_path: Path) -> None:
    """SQLAlchemy logs with a traceback what ends the giving back of a connection."""
    done = subprocess.run(
        [sys.executable, "-c", GIVES_BACK, str(tmp_path / "pfa.db")], capture_output=True, text=True
    )
    assert (done.stderr, done.returncode) == ("", 143)
