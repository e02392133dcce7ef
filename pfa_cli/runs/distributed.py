"""Several processes, started by torchrun, that train every cell together: the first one leads, the others follow.

The leader alone knows the database: it claims a cell, announces it, and writes what came of it. The others train along and
need nothing but the data and the leader's checkpoints. A failure on any of them ends the whole command, since the others
would wait for it for ever; torchrun sees to that, and the same command then goes on from the last checkpoint.
"""

import os
from collections.abc import Callable
from pathlib import Path

import torch

from pfa_cli.data import load_dataset
from pfa_cli.ranks import Ranks
from pfa_cli.runs.worker import Task
from pfa_cli.training import checkpoint
from pfa_cli.training.device import make_repeatable
from pfa_cli.training.trainer import Trainer


def share_cores(ranks: Ranks) -> None:
    """Lets each rank decode images with its share of the machine's cores, unless PFA_WORKERS says otherwise."""
    if ranks.size > 1:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.size))
        os.environ.setdefault("PFA_WORKERS", str(max(1, (os.cpu_count() or 1) // here)))


def dismiss(ranks: Ranks) -> None:
    """The leader's last word: there are no more cells."""
    ranks.from_first(None)


def follow(ranks: Ranks, device: torch.device, data_dir: Path, should_stop: Callable[[], bool]) -> None:
    """Trains along with every cell that the leader announces, step by step, until it announces none."""
    make_repeatable(device)
    while (announced := ranks.from_first(None)) is not None:
        task, folder = announced
        assert isinstance(task, Task)
        dataset = load_dataset(task.configuration, data_dir, device)
        trainer = Trainer(task.configuration, dataset, task.seed, device, ranks)
        checkpoint.restore(folder, trainer)
        for _ in trainer.epochs(should_stop):
            trainer.state()  # the leader saves, and all add up their sums for it
            if ranks.any(should_stop()):
                break
        if not trainer.finished and trainer.step:
            trainer.state()
