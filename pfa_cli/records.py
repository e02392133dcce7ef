"""What one epoch of one run measured: the only thing that passes from training to the database.

A field made by ``metric`` is a column of the database, of the tables that are exported, and of their description. To
add a metric is to add such a field here and to fill it in ``training``; databases that lack its column get it.
"""

from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any


def metric(label: str, unit: str | None = None, *, required: bool = False) -> Any:
    """A field of a record that is stored as a column: a float, or None where the value is not defined.

    ``unit`` is None for a ratio or a loss. ``required``: every record has a value.
    """
    return field(default=MISSING if required else None, metadata={"label": label, "unit": unit})


def metrics(record: type) -> tuple[Field[Any], ...]:
    """The fields of a record type that are stored as columns of numbers; ``metadata`` has their label and unit."""
    return tuple(each for each in fields(record) if "label" in each.metadata)


def is_required(metric_field: Field[Any]) -> bool:
    """Whether the metric has a value in every record."""
    return metric_field.default is MISSING


@dataclass(frozen=True)
class LayerRecord:
    """One weighted layer at the end of one epoch. Angles in degrees; norms are Frobenius norms.

    A value is None where it is not defined (DFA has no weight angle in hidden layers) and NaN where it was computed
    and came out as NaN (a run that diverged). The last three describe a mixture of feedback, of which only a part joins the
    same two neurons as a weight of W: the share of such pairs, and the correlation with W over all pairs and over these.
    """

    index: int
    name: str
    weight_norm: float = metric("norm of the forward weights W", required=True)
    weight_angle_degrees: float | None = metric("angle between W and the feedback weights", "degrees")
    weight_norm_ratio: float | None = metric("norm of the feedback weights over that of W")
    path_angle_degrees: float | None = metric("angle between W and the feedback path", "degrees")
    path_norm_ratio: float | None = metric("norm of the feedback path over that of W")
    error_angle_degrees: float | None = metric("angle between the layer's error and that of BP", "degrees")
    bidirectional_percent: float | None = metric("pairs of neurons joined both ways", "percent")
    weight_correlation: float | None = metric("correlation of W and the direct feedback weights, all pairs")
    bidirectional_correlation: float | None = metric("the same, pairs joined both ways alone")


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of one run; epoch 0 is the network at initialisation, where nothing was trained yet.

    ``learning_rate`` and ``weight_decay`` are those the epoch was trained with. ``seconds`` is the wall-clock time of
    training and evaluation together; ``images_per_second`` counts training alone.
    """

    epoch: int
    learning_rate: float | None = metric("learning rate")
    weight_decay: float | None = metric("weight decay")
    train_loss: float | None = metric("training loss")
    train_accuracy_percent: float | None = metric("top-1 accuracy on the training images", "percent")
    validation_loss: float | None = metric("validation loss")
    validation_accuracy_percent: float | None = metric("top-1 accuracy on the validation images", "percent")
    validation_top5_accuracy_percent: float | None = metric(
        "top-5 accuracy on the validation images", "percent"
    )
    test_loss: float | None = metric("test loss")
    test_accuracy_percent: float | None = metric("top-1 accuracy on the test images", "percent")
    test_top5_accuracy_percent: float | None = metric("top-5 accuracy on the test images", "percent")
    seconds: float | None = metric("time of training and evaluation", "seconds")
    images_per_second: float | None = metric("images trained on per second", "images/s")
    diverged: bool = False
    layers: tuple[LayerRecord, ...] = ()
