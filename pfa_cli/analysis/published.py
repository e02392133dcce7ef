"""The published curves, as shipped in ``published/`` (its README says where they come from)."""

import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import pandas as pd

from pfa_cli.analysis.paper import paper
from pfa_cli.analysis.statistics import Sample

ANGLE, RATIO = "angle_degrees", "norm_ratio"
_SEEDS = 5


@cache
def accuracy() -> pd.DataFrame:
    """Accuracy by recipe, algorithm and epochs_trained: mean and standard deviation over 5 seeds, in percent."""
    return _read("accuracy.csv")


@cache
def alignment() -> pd.DataFrame:
    """Angle in degrees and norm ratio by recipe, algorithm, layer and epochs_trained, of seed 0."""
    return _read("alignment.csv")


@cache
def accuracy_curve(recipe: str, algorithm: str) -> pd.DataFrame:
    """One accuracy curve under the paper's schedule: epoch, mean, std, n."""
    rows = _of(accuracy(), recipe, algorithm)
    rows = rows.rename(columns={"accuracy_mean_percent": "mean", "accuracy_std_percent": "std"})
    return rows.assign(n=rows["std"].notna().map({True: _SEEDS, False: 1}))


@cache
def alignment_curves(recipe: str, algorithm: str, quantity: str) -> pd.DataFrame:
    """The curves of ``ANGLE`` or ``RATIO`` under the paper's schedule: layer_index, layer, epoch, mean, std (NaN), n."""
    rows = _of(alignment(), recipe, algorithm)
    rows = rows[rows[quantity].notna()] if quantity in rows else rows.assign(**{quantity: math.nan})[:0]
    return rows.rename(columns={quantity: "mean"}).assign(std=math.nan, n=1)


def last_common_epoch(recipe: str, algorithms: Sequence[str]) -> int:
    """The last epoch of the paper's schedule that all these accuracy curves have (ImageNet: PFA-o ends at 66); 0: none."""
    return min(max(accuracy_curve(recipe, name)["epoch"], default=0) for name in algorithms)


def final_accuracies(recipe: str, algorithms: Sequence[str]) -> list[Sample]:
    """Published accuracy of each algorithm at their last common epoch, in percent; unknown (NaN) where there is none."""
    epoch, samples = last_common_epoch(recipe, algorithms), []
    if not epoch:
        return [Sample(math.nan, math.nan, 0)] * len(algorithms)
    for name in algorithms:
        curve = accuracy_curve(recipe, name)
        (row,) = curve[curve["epoch"] == epoch].to_dict("records")
        samples.append(Sample(float(row["mean"]), float(row["std"]), int(row["n"])))
    return samples


def final_layers(recipe: str, algorithm: str, quantity: str) -> dict[str, float]:
    """Each layer's last published angle or norm ratio; empty where none was published."""
    rows = alignment_curves(recipe, algorithm, quantity).sort_values("epoch")
    last = rows.groupby("layer_index")[["layer", "mean"]].last()
    return dict(zip(last["layer"], last["mean"], strict=True))


def our_order(published_layers: Sequence[str]) -> list[int]:
    """Our index of each published layer: there, a block's shortcut (``0_0``) precedes its two convolutions.

    >>> our_order(["conv1_0", "0_0", "conv1_1", "conv2_0", "fc_0"])
    [0, 3, 1, 2, 4]
    """
    order = list(range(len(published_layers)))
    for i, name in enumerate(published_layers):
        if name.startswith("0_"):
            order[i], order[i + 1], order[i + 2] = i + 2, i, i + 1
    return order


def _of(frame: pd.DataFrame, recipe: str, algorithm: str) -> pd.DataFrame:
    experiment = paper().experiments.get(recipe)
    until = experiment.epochs if experiment else 0
    rows = frame[
        (frame["recipe"] == recipe) & (frame["algorithm"] == algorithm) & (frame["epochs_trained"] <= until)
    ]
    return rows.rename(columns={"epochs_trained": "epoch"})


def _read(name: str) -> pd.DataFrame:
    with (files("pfa_cli.analysis") / "published" / name).open(encoding="utf-8") as file:
        return pd.read_csv(file)
