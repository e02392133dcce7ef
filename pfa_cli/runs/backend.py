"""The interface of a back end: how the cells of a command are trained, and by which processes.

A back end is one class. To add one, derive it from `Backend` and put it into ``BACKENDS`` in `pfa_cli.runs.launch`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pfa_cli.configuration import Configuration
from pfa_cli.ranks import Ranks
from pfa_cli.runs.events import Broken, Event, Said
from pfa_cli.signals import StopRequest

Report = Callable[[Event | Said | Broken], None]


@dataclass(frozen=True)
class Task:
    """A cell to train: its number in the plan, its run in the database."""

    cell: int
    run_id: int
    configuration: Configuration
    seed: int


@dataclass(frozen=True)
class Setup:
    """What a back end and its workers need to begin; can be sent to another process."""

    db: str | None
    device: str
    data_dir: Path
    jobs: int | None = None  # cells trained at a time; None: as the back end thinks best
    ranks: Ranks = field(default_factory=Ranks)
    eager: bool = False  # on a GPU: without CUDA graphs
    kept: int = 1  # checkpoints that stay of a done cell
    together: bool = False  # cells of one seed read one stream of images
    prune: bool = False  # stop cells that are clearly behind (pruning.py)


class Backend(ABC):
    """Trains cells. It knows nothing of the terminal, and the caller nothing of its processes."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.notes: list[str] = []  # what `workers` found that the user should know

    @classmethod
    @abstractmethod
    def fits(cls, setup: Setup) -> bool:
        """Whether this back end is the one to use."""

    @abstractmethod
    def workers(self, tasks: Sequence[Task]) -> int:
        """How many of the tasks `run` will train at a time."""

    @abstractmethod
    def run(self, tasks: Sequence[Task], report: Report, stop: StopRequest) -> None:
        """Tries every task once; returns when each has ended, or, once ``stop`` is set, when all workers have saved.

        ``report`` hears of progress, from the thread that called `run`: for every task an ``Ended`` (none if it was not
        begun before a stop), or a ``Broken`` if no more can be done. A task in another command's hands ends "busy".
        """

    def idle(self) -> None:  # noqa: B027
        """Called every few seconds while the command waits for cells in other commands' hands."""

    def close(self) -> None:  # noqa: B027 (most have nothing to do)
        """Called once, when no more is to be run."""
