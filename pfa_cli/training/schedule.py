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
    @property
    def first_epoch_decay(self) -> float | None: ...
    @property
    def momentum(self) -> float: ...


def learning_rate(schedule: Schedule, epoch: int) -> float:
    """The learning rate of ``epoch`` (1 is the first): multiplied by the factor once per milestone already completed."""
    passed = sum(epoch > milestone for milestone in schedule.milestones)
    return schedule.learning_rate * schedule.learning_rate_factor**passed


def weight_decay(schedule: Schedule, epoch: int, steps: int) -> float:
    """The weight decay of ``epoch``: the first epoch may have one of its own, which aligns W and R quickly.

    What is left of the initial weights after T steps, and so of the mismatch between W and R (Proposition 1), is

        α ≈ exp(-D),    D = lr · wd · T / (1 - μ)

    so the same wd does less in an epoch of fewer ``steps``. ``first_epoch_decay`` is D, from which wd follows. ImageNet's
    first epoch has D = 0.1 · 5e-4 · 5004 / (1 - 0.9) = 2.5.
    """
    if epoch == 1 and schedule.first_epoch_weight_decay is not None:
        return schedule.first_epoch_weight_decay
    if epoch == 1 and schedule.first_epoch_decay is not None:
        return schedule.first_epoch_decay * (1 - schedule.momentum) / (schedule.learning_rate * steps)
    return schedule.weight_decay
