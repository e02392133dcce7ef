"""How a process is asked to stop: by a signal, or because nobody reads its output any more.

Imports nothing slow, so that signals are handled before anything slow is imported.
"""

import io
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from threading import Thread, current_thread, main_thread
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logging import LogRecord

# All but Ctrl-C mean the same. Slurm announces that it will stop a job by a signal of the user's choice
# (`sbatch --signal=USR1@60`), a terminal that closes sends SIGHUP, and SIGXCPU comes shortly before a CPU limit kills.
STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)


class Stopped(SystemExit):
    """Raised in the main thread by a stop signal where nothing has to be saved; ends the process with its exit code."""

    def __init__(self, number: int) -> None:
        super().__init__(_exit_code(number))
        self.number = number


class StopRequest:
    """Whether this process was asked to stop, and with which exit code it should then end."""

    def __init__(self) -> None:
        self._signal: int | None = None

    def __bool__(self) -> bool:
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after any other stop signal; 0 if there was none."""
        return 0 if self._signal is None else _exit_code(self._signal)

    def set(self, number: int = signal.SIGTERM) -> None:
        """As if the signal ``number`` had come; only the first one counts."""
        if self._signal is None:
            self._signal = number

    def listen(self, pipe: int, before_exit: Callable[[], object]) -> None:
        """Reads the signals' numbers from ``pipe`` until it ends.

        A second SIGINT exits without saving. A second SIGTERM does not: batch systems may send several. Nor does the first
        SIGINT after another signal: Ctrl-C reaches the processes of a command, which also get SIGTERM from the first of them,
        and of two signals that wait for a busy process the later one is handled first.
        """
        # Not whether it is set, as Python's handler may have set it for the same signal.
        interrupted = False
        while received := os.read(pipe, 1):
            number = received[0]
            if number not in STOP_SIGNALS:
                continue  # another handler's: torch's data loader has one for SIGCHLD
            if number == signal.SIGINT and interrupted:
                before_exit()
                os._exit(_exit_code(number))
            self.set(number)
            interrupted |= number == signal.SIGINT
        os.close(pipe)


_request: StopRequest | None = None  # within `stop_signals`
_interruptible = False  # within `interruptible`
_raised: int | None = None  # the signal for which `Stopped` was raised
_ending = False  # after `stop_signals` in which this process was asked to stop


def handle_signals() -> None:
    """From now on a stop signal raises `Stopped` in the main thread, unless it comes within `stop_signals`.

    Unblocks the signals, too: a new worker process starts with them blocked.
    """
    for number in _not_ignored():
        signal.signal(number, _raise_stopped)
    sys.unraisablehook = _say_unraisable
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    import logging

    assert logging.lastResort is not None
    logging.lastResort.addFilter(_is_no_stop)


def call_guarded(module: str, function: str, *arguments: object) -> None:
    """Calls a function of a module that is slow to import, in a new process: handles signals before it imports that."""
    guard_output()
    handle_signals()
    getattr(import_module(module), function)(*arguments)


@contextmanager
def stop_signals(before_exit: Callable[[], object] = lambda: None) -> Iterator[StopRequest]:
    """Within the block stop signals set the StopRequest; ``before_exit`` runs before a second Ctrl-C exits.

    A thread listens, since Python runs its own handlers only when the main thread returns from torch or SQLite.
    """
    global _request, _raised, _ending
    outer, request = _request, StopRequest()
    if _raised is not None:  # some library's bare `except` took the exception
        request.set(_raised)
    _request, _ending = request, False
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    listener = Thread(target=request.listen, args=(ours, before_exit), name="stop signals", daemon=True)
    listener.start()
    wakeup = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _raise_stopped) for number in _not_ignored()}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(theirs)
        listener.join()
        _request, _raised, _ending = outer, None, bool(request)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within `stop_signals`: nothing in this block has to be saved, so a stop signal raises `Stopped` in it.

    In the main thread only; anywhere else the block does nothing.
    """
    global _interruptible
    if current_thread() is not main_thread():
        yield
        return
    if _request:
        raise Stopped(_request.exit_code - 128)
    outer, _interruptible = _interruptible, True
    try:
        yield
    finally:
        _interruptible = outer


def stop_requested() -> bool:
    """Whether this process was asked to stop, for code that waits far below what holds the StopRequest."""
    return bool(_request)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Hold the stop signals back while processes start that inherit this mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_resource_tracker() -> None:
    """Starts multiprocessing's helper now, such that no stop signal ends it; it would survive SIGINT and SIGTERM only.

    Otherwise it starts with the first process, and unblocks SIGINT and SIGTERM, which that process should inherit blocked.
    """
    from multiprocessing import resource_tracker

    with signals_blocked():
        resource_tracker.ensure_running()


def guard_output() -> None:
    """From now on no write to standard output or error raises OSError; call it before anything is written."""
    # A closed descriptor would be given to the next file that is opened, such as the database.
    with suppress(OSError):
        while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(free)
    sys.stdout = _guarded(sys.stdout, 1)
    sys.stderr = _guarded(sys.stderr, 2)


class _GuardedFile(io.FileIO):
    """A descriptor that stays open. A closed pipe asks the process to stop, once; what else cannot be written is lost."""

    _closed_pipe = False

    def write(self, data: Any) -> int:
        while not self._closed_pipe:
            try:
                written = super().write(data)
            except BrokenPipeError:
                self._closed_pipe = True
                _output_closed(self.fileno())
            except OSError:  # such as a full disk or a terminal that is gone
                break
            else:
                if written is not None:
                    return written
                select.select([], [self], [])  # non-blocking, and full at the moment
        return memoryview(data).nbytes


def _guarded(stream: Any, descriptor: int) -> io.TextIOWrapper:
    """A text stream on ``descriptor`` like ``stream``, which is None if Python found the descriptor closed."""
    return io.TextIOWrapper(
        io.BufferedWriter(_GuardedFile(descriptor, "w", closefd=False)),
        encoding=getattr(stream, "encoding", None),
        errors=getattr(stream, "errors", None),
        line_buffering=getattr(stream, "line_buffering", False),
        write_through=getattr(stream, "write_through", False),
    )


def _output_closed(descriptor: int) -> None:
    if _request is not None:
        if descriptor == 1 and not _request:
            sys.stderr.write("pfa: nobody reads the output any more: stops as after SIGTERM\n")
        _request.set()
    elif current_thread() is main_thread():
        raise SystemExit(_exit_code(signal.SIGTERM))


def _not_ignored() -> list[int]:
    """`nohup` starts its command with SIGHUP ignored, and a shell those in the background with SIGINT: it stays so."""
    return [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def _raise_stopped(number: int, frame: FrameType | None) -> None:
    """Python's handler of every stop signal."""
    global _raised
    if _request is not None:
        _request.set(number)
        if not _interruptible:
            return
    if _raised is None and (not _ending or number == signal.SIGINT):
        _raised = number
        raise Stopped(number)
    if number == signal.SIGINT:  # once more, while the first one's exception ends the process
        os._exit(_exit_code(number))


def _say_unraisable(unraisable: Any) -> None:
    """What Python says of an exception that it can raise nowhere, unless it is `Stopped`.

    The signal may come while a weak reference's callback or an atexit function runs. It is not lost: see `_raised`.
    """
    if not isinstance(unraisable.exc_value, Stopped):
        sys.__unraisablehook__(unraisable)


def _is_no_stop(record: "LogRecord") -> bool:
    """Whether to show what a library logs: some log with a traceback what ends their cleaning up, such as `Stopped`."""
    return record.exc_info is None or not isinstance(record.exc_info[1], Stopped)


def _exit_code(number: int) -> int:
    """As shells number them, with every stop signal but SIGINT counted as SIGTERM."""
    return 128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
