"""`pfa` and `python -m pfa_cli`: handles signals and guards the output before the slow imports begin."""

import signal
import sys

from pfa_cli.signals import Stopped, guard_output, handle_signals


def main() -> None:
    """Runs `pfa`, and says by which signal it was ended if there was nothing to save."""
    guard_output()
    try:
        handle_signals()
        from pfa_cli.cli import main as run

        run()
    except Stopped as stopped:
        sys.stderr.write(f"pfa: stopped by {signal.Signals(stopped.number).name}\n")
        raise


if __name__ == "__main__":
    main()
