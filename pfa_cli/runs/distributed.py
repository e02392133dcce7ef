"""Several processes (torchrun, `pfa run --ranks`) that train every cell together: the first one leads, the others follow.

The leader alone knows the database: it claims a cell, announces it, and writes what came of it. The others train along and
need nothing but the data and the leader's checkpoints. If any of them ends, the leader gives its cell back as interrupted
and the whole command ends, since the others cannot go on; the same command resumes from the last checkpoint.
"""

from collections.abc import Sequence
from functools import partial
from itertools import takewhile

import torch

from pfa_cli.cores import share_cores
from pfa_cli.data import load_dataset
from pfa_cli.errors import PfaError
from pfa_cli.launched import launched
from pfa_cli.runs.backend import Backend, Report, Setup, Task
from pfa_cli.runs.events import Broken, Event, Said
from pfa_cli.runs.worker import work
from pfa_cli.signals import StopRequest, stop_signals
from pfa_cli.training import checkpoint
from pfa_cli.training.device import make_repeatable
from pfa_cli.training.trainer import Trainer

_WAIT = "wait"  # what the leader announces where there is no cell at the moment


class Distributed(Backend):
    """One cell at a time, by all ranks; this process is the leader."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._broken = False
        share_cores(launched().local_size)

    @classmethod
    def fits(cls, setup: Setup) -> bool:
        return setup.ranks.size > 1

    def workers(self, tasks: Sequence[Task]) -> int:
        return 1

    def run(self, tasks: Sequence[Task], report: Report, stop: StopRequest) -> None:
        def listen(event: Event | Said | Broken) -> None:
            self._broken |= isinstance(event, Broken)
            report(event)

        try:
            work(self.setup, takewhile(lambda _: not stop, tasks), listen, lambda: bool(stop))
        except BaseException:  # such as `Stopped`, which may come in the middle of an exchange
            self._broken = True
            raise

    def idle(self) -> None:
        """Tells the other ranks to wait on: they would take a leader that is silent for half an hour for lost."""
        self.setup.ranks.from_first(_WAIT)

    def close(self) -> None:
        """Tells the other ranks that no cells are left."""
        if not self._broken:  # else they may wait in the middle of a step; torchrun ends them
            self.setup.ranks.from_first(None)


def follow(setup: Setup) -> int:
    """Trains along with every cell that the leader announces, step by step, until it announces none; the exit code.

    Raises:
        PfaError: this rank restored another checkpoint than the leader.
    """
    device, ranks = torch.device(setup.device), setup.ranks
    make_repeatable(device)
    share_cores(launched().local_size)
    with stop_signals() as stop:

        def should_stop() -> bool:
            return bool(stop)

        try:
            while (announced := ranks.from_first(None)) is not None:
                if announced == _WAIT:
                    continue
                task, folder = announced
                assert isinstance(task, Task)
                dataset = load_dataset(task.configuration, setup.data_dir, device)
                make = partial(
                    Trainer, task.configuration, dataset, task.seed, device, ranks, eager=setup.eager
                )
                trainer, name, _ = checkpoint.restore(folder, make)
                if ranks.from_first(None) != (trainer.epochs_done, trainer.step):
                    raise PfaError(
                        f"rank {ranks.rank} restored {name} from {folder}, which is not what the first rank restored: "
                        "do all machines see the same folder?"
                    )
                for _ in trainer.epochs(should_stop):
                    trainer.state()  # the leader saves, and all add up their sums for it
                    if ranks.any(should_stop()):
                        break
                if not trainer.finished and trainer.step:
                    trainer.state()
        except RuntimeError as error:
            if not ranks.lost_one(error):
                raise
            return 1  # the leader says so, and whoever started the ranks
        return stop.exit_code
