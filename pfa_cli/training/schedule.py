"""Learning rate and weight decay by epoch (paper, Appendix 1.1)."""

from typing import Protocol


class Schedule(Protocol):
    """The settings of a configuration that say how an epoch is trained."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def milestones(self) -> tuple[int, ...]: ...
    @property
    def learning_rate_factor(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def first_epoch_weight_decay(self) -> float | None: ...


def learning_rate(schedule: Schedule, epoch: int) -> float:
    """The learning rate of ``epoch`` (1 is the first): multiplied by the factor once per milestone already completed."""
    passed = sum(epoch > milestone for milestone in schedule.milestones)
    return schedule.learning_rate * schedule.learning_rate_factor**passed


def weight_decay(schedule: Schedule, epoch: int) -> float:
    """The weight decay of ``epoch``: the first epoch may have one of its own, which aligns W and R quickly."""
    if epoch == 1 and schedule.first_epoch_weight_decay is not None:
        return schedule.first_epoch_weight_decay
    return schedule.weight_decay
