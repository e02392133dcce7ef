"""What a worker reports to the process that started it: plain values that are sent through a pipe."""

from dataclasses import dataclass
from typing import Literal

from pfa_cli.records import EpochRecord

# "busy": another live process trains the cell. "lost": another process took it over while we trained it.
Outcome = Literal["done", "failed", "interrupted", "busy", "lost"]


@dataclass(frozen=True)
class Started:
    """Training of a cell begins; ``epochs_done`` of its epochs are already in the database."""

    cell: int
    epochs_done: int


@dataclass(frozen=True)
class Step:
    """Inside an epoch: ``fraction`` of it is trained, at this training accuracy and speed so far."""

    cell: int
    fraction: float
    accuracy_percent: float | None
    images_per_second: float | None


@dataclass(frozen=True)
class EpochDone:
    """An epoch is in the database."""

    cell: int
    record: EpochRecord


@dataclass(frozen=True)
class Note:
    """A message about a cell that goes on, such as that a damaged checkpoint was passed over."""

    cell: int
    message: str


@dataclass(frozen=True)
class Said:
    """What a person should know about the whole command."""

    message: str


@dataclass(frozen=True)
class Ended:
    """This process has finished with the cell; ``error`` says why if it failed."""

    cell: int
    outcome: Outcome
    error: str | None = None
    diverged_epoch: int | None = None


@dataclass(frozen=True)
class Broken:
    """The worker cannot train any more cells, for instance because the database was deleted."""

    message: str


Event = Started | Step | EpochDone | Note | Ended
