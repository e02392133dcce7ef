"""The ends of the published curves, as the claims need them."""

import math
from collections.abc import Sequence

from pfa_cli.comparison.intervals import Sample
from pfa_cli.figures import published

_SEEDS = 5


def last_common_epoch(recipe: str, algorithms: Sequence[str]) -> int:
    """The last epoch of the paper's schedule that all these curves have (ImageNet: PFA-o ends at 66)."""
    frame = published.accuracy()
    ends = [
        frame.loc[(frame["recipe"] == recipe) & (frame["algorithm"] == name), "epochs_trained"].max()
        for name in algorithms
    ]
    return int(min(published.EPOCHS[recipe], *ends))


def final_accuracies(recipe: str, algorithms: Sequence[str]) -> list[Sample]:
    """Published accuracy of each algorithm at their last common epoch, in percent."""
    frame, epoch = published.accuracy(), last_common_epoch(recipe, algorithms)
    rows = frame[(frame["recipe"] == recipe) & (frame["epochs_trained"] == epoch)].set_index("algorithm")
    samples = []
    for row in rows.loc[list(algorithms)].to_dict("records"):
        std = float(row["accuracy_std_percent"])
        samples.append(Sample(float(row["accuracy_mean_percent"]), std, 1 if math.isnan(std) else _SEEDS))
    return samples


def final_layers(recipe: str, algorithm: str, quantity: str) -> dict[str, float]:
    """Each layer's last published angle or norm ratio; empty where none was published."""
    frame = published.alignment()
    if quantity not in frame:
        return {}
    rows = frame[(frame["recipe"] == recipe) & (frame["algorithm"] == algorithm) & frame[quantity].notna()]
    rows = rows[rows["epochs_trained"] <= published.EPOCHS[recipe]].sort_values("epochs_trained")
    last = rows.groupby("layer_index")[["layer", quantity]].last()
    return dict(zip(last["layer"], last[quantity], strict=True))
