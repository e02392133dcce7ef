"""What one epoch of one run measured: the only thing that passes from training to the database."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerRecord:
    """One weighted layer at the end of one epoch. Angles in degrees; norms are Frobenius norms.

    A value is None where it is not defined (DFA has no weight angle in hidden layers) and NaN where it was computed
    and came out as NaN (a run that diverged).
    """

    index: int
    name: str
    weight_norm: float
    weight_angle_degrees: float | None = None
    weight_norm_ratio: float | None = None
    path_angle_degrees: float | None = None
    path_norm_ratio: float | None = None
    error_angle_degrees: float | None = None


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of one run; epoch 0 is the network at initialisation, where nothing was trained yet.

    ``learning_rate`` and ``weight_decay`` are those the epoch was trained with. ``seconds`` is the wall-clock time of
    training and evaluation together; ``images_per_second`` counts training alone.
    """

    epoch: int
    learning_rate: float | None = None
    weight_decay: float | None = None
    train_loss: float | None = None
    train_accuracy_percent: float | None = None
    validation_loss: float | None = None
    validation_accuracy_percent: float | None = None
    validation_top5_accuracy_percent: float | None = None
    test_loss: float | None = None
    test_accuracy_percent: float | None = None
    test_top5_accuracy_percent: float | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    diverged: bool = False
    layers: tuple[LayerRecord, ...] = ()
