"""`pfa run --ranks N`: starts N processes of this command that train every cell together, and passes signals on to them.

As torchrun does, but a stop signal makes all of them save, the exit code is that of the command (torchrun's is always 1),
and no process outlives this one. Imports no torch.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

from pfa_cli.errors import UsageError
from pfa_cli.launched import RENDEZVOUS, VARIABLES
from pfa_cli.signals import StopRequest, stop_signals
from pfa_cli.terminal import show_error

# The variable with the number of a descriptor that ends when the process that started the ranks does.
_PARENT = "PFA_PARENT_PIPE"
_LOOK_SECONDS = 0.1
# Until ranks that go on without one that ended are told to stop, and as long again until they are killed.
_END_SECONDS = 30.0


def start_ranks(size: int) -> int:
    """Runs this very command in ``size`` processes, each a rank; the exit code of the first, which leads.

    130 after Ctrl-C, 143 after another stop signal, unless the leader was through with its cells.

    Raises:
        UsageError: this process is itself one of several.
    """
    if left := [name for name in VARIABLES if name in os.environ]:
        raise UsageError(
            f"--ranks {size} starts the processes itself: leave torchrun out, or `unset {' '.join(left)}`"
        )
    alive, held = os.pipe()
    with tempfile.TemporaryDirectory(prefix="pfa-ranks-") as folder, stop_signals() as stop:
        try:
            ranks = [_start(rank, size, Path(folder, "rendezvous"), alive) for rank in range(size)]
            os.close(alive)
            killed = _wait(ranks, stop)
        finally:
            os.close(held)  # without it, ranks that are left stop
    for number, process in enumerate(ranks):
        if process.returncode < 0 and not stop:
            how = f"was killed by {signal.Signals(-process.returncode).name}"
            if process in killed:
                how = "did not end when it was asked to, and was killed"
            show_error(f"rank {number} {how}; the same command goes on from the last checkpoint")
    code = ranks[0].returncode
    if stop and code != 0:
        return stop.exit_code
    return code if code >= 0 else 1


def end_with_parent() -> None:
    """In a process that `start_ranks` started: asks it to stop once the process that did so is gone."""
    named = os.environ.pop(_PARENT, None)
    if named is None:
        return
    pipe = int(named)
    os.set_inheritable(pipe, False)

    def watch() -> None:
        with suppress(OSError):
            os.read(pipe, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, name="end with parent", daemon=True).start()


def _start(rank: int, size: int, rendezvous: Path, alive: int) -> "subprocess.Popen[bytes]":
    told = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | {name: str(n) for name, n in told.items()}
    environment |= {RENDEZVOUS: str(rendezvous), _PARENT: str(alive)}
    command = [sys.executable, "-m", "pfa_cli", *sys.argv[1:]]
    return subprocess.Popen(command, env=environment, pass_fds=(alive,))


def _wait(ranks: list["subprocess.Popen[bytes]"], stop: StopRequest) -> list["subprocess.Popen[bytes]"]:
    """Returns when all have ended: those that had to be killed, such as one that SIGSTOP holds.

    After a stop signal each is told; after the end of one, those that go on without it. When the others are through, the
    leader may go on for as long as it takes: it alone has work after the last cell.
    """
    killed: list[subprocess.Popen[bytes]] = []
    told, first_end = False, None
    while running := [process for process in ranks if process.poll() is None]:
        now = time.monotonic()
        too_early = any(process.returncode for process in ranks) or ranks[0] not in running
        if too_early and first_end is None:
            first_end = now
        late = first_end is not None and now - first_end > _END_SECONDS
        if (stop or late) and not told:
            told = True
            for process in running:
                process.terminate()  # not SIGINT, which the terminal may have sent them already
        if first_end is not None and now - first_end > 2 * _END_SECONDS:
            killed = killed or running
            for process in running:
                process.kill()
        time.sleep(_LOOK_SECONDS)
    return killed
