"""Being asked to stop: the first signal is a wish that the training loop grants, a second Ctrl-C an order."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

# Slurm announces a pre-emption by SIGUSR1 (`sbatch --signal=USR1@60`); it means what SIGTERM means.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)


class StopRequest:
    """Whether this process was asked to stop, and with which exit code it should then leave."""

    def __init__(self) -> None:
        self._signal: int | None = None

    def __bool__(self) -> bool:
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM or SIGUSR1, as shells number them; 0 if nobody asked."""
        if self._signal is None:
            return 0
        return 128 + (signal.SIGINT if self._signal == signal.SIGINT else signal.SIGTERM)

    def listen(self, pipe: int, leave_at_once: Callable[[], object]) -> None:
        """Reads the signals' numbers from ``pipe`` until it ends.

        A repeated SIGTERM is no order to hurry: batch systems may send several.
        """
        while received := os.read(pipe, 1):
            number = received[0]
            if number not in STOP_SIGNALS:
                continue  # another handler's: torch's data loader has one for SIGCHLD
            if self._signal is None:
                self._signal = number
            elif number == signal.SIGINT:
                leave_at_once()
                os._exit(128 + signal.SIGINT)
        os.close(pipe)


@contextmanager
def stop_signals(leave_at_once: Callable[[], object] = lambda: None) -> Iterator[StopRequest]:
    """Within the block stop signals set the StopRequest; ``leave_at_once`` runs before a second Ctrl-C exits.

    A thread listens, since Python's own handlers wait until the main thread is back from torch or SQLite. Unblocks the
    signals too: a worker starts with them blocked, so that none comes before it can handle it.
    """
    request = StopRequest()
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    listener = Thread(target=request.listen, args=(ours, leave_at_once), name="stop signals", daemon=True)
    listener.start()
    wakeup = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: None) for number in STOP_SIGNALS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(theirs)
        listener.join()


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Hold the stop signals back while processes start that inherit this mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
