"""Being asked to stop: the first signal is a wish that the training loop grants, a second Ctrl-C an order."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Slurm announces a pre-emption by SIGUSR1 (`sbatch --signal=USR1@60`); it means what SIGTERM means.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)


class StopRequest:
    """Whether this process was asked to stop, and with which exit code it should then leave."""

    def __init__(self, leave_at_once: Callable[[], object] | None = None) -> None:
        self._signal: int | None = None
        self._leave_at_once = leave_at_once

    def __bool__(self) -> bool:
        return self._signal is not None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM or SIGUSR1, as shells number them; 0 if nobody asked."""
        if self._signal is None:
            return 0
        return 128 + (signal.SIGINT if self._signal == signal.SIGINT else signal.SIGTERM)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Signal handler. A repeated SIGTERM is no order to hurry: batch systems may send several."""
        if self and number == signal.SIGINT:
            if self._leave_at_once is not None:
                self._leave_at_once()
            os._exit(128 + signal.SIGINT)
        if self._signal is None:
            self._signal = number


@contextmanager
def stop_signals(leave_at_once: Callable[[], object] | None = None) -> Iterator[StopRequest]:
    """Within the block stop signals set the StopRequest; ``leave_at_once`` runs before a second Ctrl-C exits.

    Also unblocks the signals: a worker starts with them blocked, so that none comes before it can handle it.
    """
    request = StopRequest(leave_at_once)
    before = {number: signal.signal(number, request.handle) for number in STOP_SIGNALS}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Hold the stop signals back while processes start that inherit this mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
