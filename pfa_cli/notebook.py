"""Data frames for notebooks: what is in a results database, and what a network of one's own is like now."""

from os import PathLike
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from pfa_cli.errors import PfaError, unknown
from pfa_cli.paths import expanded_database
from pfa_cli.records import LayerRecord, metrics

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pfa_cli.store.engine import Store


class Results(NamedTuple):
    """What a database holds, as tidy frames whose columns docs/tables.md describes.

    All open with the columns that identify a run (run_id, recipe, algorithm, seed, config_hash, expansion), and end with its
    settings, "setting_learning_rate" and so on.
    """

    runs: pd.DataFrame
    """One row per run: state, epochs, when and where."""
    epochs: pd.DataFrame
    """One row per run and epoch: losses, accuracies in percent. Epoch 0 is the network at initialisation."""
    layers: pd.DataFrame
    """One row per run, epoch and layer: angles in degrees, norm ratios."""


def load(db: "str | PathLike[str] | None" = None, recipe: str | None = None) -> Results:
    """The runs of a results database, all or those of one ``recipe``; the file is only read.

    Args:
        db: a file (``~`` is the home folder) or an SQLAlchemy URL; by default PFA_DB, else results/pfa.db.

    Raises:
        PfaError: there is no such database, it has no run of the recipe, or it cannot be read; says what to do.

    >>> import pfa_cli as pfa
    >>> runs, epochs, layers = pfa.load("results/reproduction.db", recipe="cifar10")
    >>> sorted(runs["algorithm"].unique())
    ['bp', 'dfa', 'fa', 'kp', 'pal', 'pfa', 'pfa-o', 'sf', 'wm']
    >>> bool((epochs["setting_batch_size"] == 128).all())
    True
    """
    from pfa_cli.store.engine import open_store
    from pfa_cli.store.queries import epochs_frame, layers_frame, runs_frame

    with open_store(None if db is None else expanded_database(str(db)), write=False) as store:
        columns = _settings(store)
        frames = [frame(store, recipe) for frame in (runs_frame, epochs_frame, layers_frame)]
        if recipe is not None and frames[0].empty:
            raise unknown("recipe in this database", recipe, runs_frame(store)["recipe"].unique())
        return Results(*(frame.join(columns, on="run_id") for frame in frames))


def measure(network: "nn.Module", images: "Tensor", labels: "Tensor") -> pd.DataFrame:
    """What the feedback of a converted network is like now: one row per weighted layer, in network order.

    Leaves no trace in the network: nothing learns from the pass, and running statistics stay.

    Args:
        network: a network that `convert` has converted.
        images, labels: a batch, on which the errors are compared with those of BP (cross-entropy).

    Returns:
        layer_index, layer, and the metrics of docs/tables.md: weight_norm, weight_angle_degrees, weight_norm_ratio,
        path_angle_degrees, path_norm_ratio, error_angle_degrees, …; NaN where one is not defined.

    Raises:
        PfaError: the network is not converted.

    >>> import torch
    >>> import pfa_cli as pfa
    >>> _ = torch.manual_seed(0)
    >>> network = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
    >>> network = pfa.convert(network, "sf")
    >>> frame = pfa.measure(network, torch.randn(32, 8), torch.randint(4, (32,)))
    >>> frame[["layer", "weight_angle_degrees"]].round(-1).values.tolist()
    [['0', 30.0], ['2', 30.0]]
    """
    from pfa_cli.algorithms import Algorithm
    from pfa_cli.training.metrics import layer_records

    algorithm = getattr(network, "algorithm", None)
    if not isinstance(algorithm, Algorithm):
        raise PfaError('this network has no algorithm: `convert(network, "pfa")` comes before `measure`')
    records = layer_records(network, algorithm.declared().measure, images, labels)
    columns = {
        "layer_index": pd.Series([record.index for record in records], dtype="int64"),
        "layer": pd.Series([record.name for record in records], dtype="object"),
    }
    for metric in metrics(LayerRecord):
        columns[metric.name] = pd.Series([getattr(each, metric.name) for each in records], dtype="float64")
    return pd.DataFrame(columns)


def _settings(store: "Store") -> pd.DataFrame:
    """The settings of every run as columns, by run_id."""
    from pfa_cli.store.tables import settings

    found = store.read(settings)
    frame = pd.DataFrame.from_dict(found.values, orient="index", columns=list(found.names), dtype="object")
    return frame.infer_objects()
