"""What a worker tells the process that started it; plain values that travel through a pipe."""

from dataclasses import dataclass
from typing import Literal

from pfa_cli.records import EpochRecord

# "busy": another live process trains the cell. "lost": another process took it over while we trained it.
Outcome = Literal["done", "failed", "interrupted", "busy", "lost"]


@dataclass(frozen=True)
class Started:
    """A cell is ours; ``epochs_done`` of it are already in the database."""

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
    """What a person should know though it stops nothing, such as a damaged checkpoint passed over."""

    cell: int
    message: str


@dataclass(frozen=True)
class Said:
    """What a person should know about the whole command."""

    message: str


@dataclass(frozen=True)
class Ended:
    """The cell is no longer ours; ``error`` says why if it failed."""

    cell: int
    outcome: Outcome
    error: str | None = None
    diverged_epoch: int | None = None


@dataclass(frozen=True)
class Broken:
    """The worker can do nothing more, for this cell or any other, such as when the database was deleted."""

    message: str


Event = Started | Step | EpochDone | Note | Ended
