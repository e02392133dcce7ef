"""`pfa` and `python -m pfa_cli`: handles signals and guards the output before the slow imports begin."""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Runs `pfa`, and says by which signal it was ended if there was nothing to save."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it may be ignored
        signal.signal(signal.SIGINT, _interrupted)
    from pfa_cli.signals import Stopped, guard_output, handle_signals

    guard_output()
    try:
        handle_signals()
        from pfa_cli.cli import main as run

        run()
    except Stopped as stopped:
        sys.stderr.write(f"pfa: stopped by {signal.Signals(stopped.number).name}\n")
        raise


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Ctrl-C until `handle_signals`: Python's own handler would show a traceback."""
    try:
        os.write(2, b"pfa: stopped by SIGINT\n")
    finally:
        os._exit(130)


if __name__ == "__main__":
    main()
