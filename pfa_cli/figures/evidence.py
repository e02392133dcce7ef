"""Which runs a figure may put together: one comparable configuration per algorithm, its finished seeds, and why.

All rows of the database reach the figures through here, so that every figure and the table choose alike:

1. *Setting.* What runs must share to be comparable (``COMPARABLE``, and the data set). Of a recipe's settings the
   figures take one in which something ran as the paper has it (``scale.departures``), then the one with the most
   epochs trained.
2. *Configuration.* Of an algorithm's configurations in that setting, the one that departs from the paper's in the
   fewest settings, then one with the default expansion ratio and form, then the one with the most epochs trained: a
   trial or a sweep must not displace the experiment.
3. *Runs.* Finished runs are pooled; unfinished ones only while none is finished. A diverged run is a result, but no
   part of a mean.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.figures.scale import departures
from pfa_cli.store import queries
from pfa_cli.store.engine import Store

COMPARABLE = (
    "dataset",
    "network",
    "hidden_sizes",
    "epochs",
    "batch_size",
    "train_images",
    "test_images",
    "validation_images",
    "split_seed",
    "image_size",
    "precision",
)
_SWEPT = ("expansion", "form")


@dataclass(frozen=True)
class Cohort:
    """The runs of one algorithm in one configuration.

    ``pooled`` (what means are taken over), ``diverged`` and ``waiting`` (unfinished, left out) are rows of the table of
    runs, by seed. ``departures``: in what they differ from the paper's experiment (``scale.departures``). ``others``
    counts the algorithm's configurations that are not shown.
    """

    algorithm: str
    config_hash: str
    configuration: Mapping[str, Any]
    pooled: pd.DataFrame
    diverged: pd.DataFrame
    waiting: pd.DataFrame
    departures: Mapping[str, str]
    others: int

    @property
    def finished(self) -> bool:
        """Whether the pooled runs trained all their epochs."""
        return bool((self.pooled["state"] == "done").all())

    @property
    def options(self) -> Mapping[str, Any]:
        """The algorithm's own settings, such as its expansion ratio."""
        return self.configuration["options"]


@dataclass(frozen=True)
class Comparison:
    """All that one figure compares: a recipe in one setting, with its cohorts by algorithm, in the registry's order.

    ``by_expansion`` holds PFA's cohorts by expansion ratio; ``elsewhere`` names algorithms that have runs, but in
    another setting only.
    """

    recipe: str
    setting: Mapping[str, Any]
    cohorts: Mapping[str, Cohort]
    by_expansion: Mapping[float, Cohort]
    elsewhere: tuple[str, ...]

    @property
    def dataset(self) -> str:
        """The data set in words."""
        return str(self.setting["description"])

    @property
    def epochs(self) -> int:
        """Epochs of the schedule."""
        return int(self.setting["epochs"])


class Evidence:
    """The database's tables as frames, read when first needed."""

    def __init__(self, store: Store):
        self._store = store
        self._epochs: dict[str, pd.DataFrame] = {}
        self._layers: dict[str, pd.DataFrame] = {}

    @cached_property
    def runs(self) -> pd.DataFrame:
        """Runs with at least one stored epoch; ``dataset`` is the data set's description where one was recorded."""
        runs = queries.runs_frame(self._store)
        runs = runs[runs["epochs_done"].notna()].reset_index(drop=True)
        attempts = queries.attempts_frame(self._store)
        described = attempts[attempts["dataset"].notna()].groupby("run_id")["dataset"].last()
        return runs.assign(dataset=runs["run_id"].map(described).fillna(runs["dataset"]))

    def epochs(self, recipe: str) -> pd.DataFrame:
        """The epochs of a recipe's runs."""
        if recipe not in self._epochs:
            self._epochs[recipe] = queries.epochs_frame(self._store, recipe)
        return self._epochs[recipe]

    def layers(self, recipe: str) -> pd.DataFrame:
        """The layers of a recipe's runs, by epoch."""
        if recipe not in self._layers:
            self._layers[recipe] = queries.layers_frame(self._store, recipe)
        return self._layers[recipe]

    def simulations(self, kind: str) -> pd.DataFrame:
        """The stored simulations of one kind."""
        return queries.simulations_frame(self._store, kind)

    def comparison(self, recipe: str) -> Comparison | None:
        """The recipe's runs in the setting that is the paper's or was trained most; None if it has none."""
        runs = self.runs[(self.runs["recipe"] == recipe) & self.runs["algorithm"].isin(list(ALGORITHMS))]
        if runs.empty:
            return None
        ran = list(zip(runs["configuration"], runs["dataset"], strict=True))
        runs = runs.assign(departures=pd.Series([departures(*one) for one in ran], runs.index, dtype=object))
        settings = pd.Series([_setting(*one) for one in ran], runs.index)
        chosen = _preferred(runs, settings, lambda own: (not own["departures"].map(bool).all(),))
        inside = runs[settings == chosen]
        own = {name: inside[inside["algorithm"] == name] for name in ALGORITHMS}
        elsewhere = tuple(name for name in ALGORITHMS if own[name].empty and name in set(runs["algorithm"]))
        return Comparison(
            recipe=recipe,
            setting=json.loads(chosen),
            cohorts={name: _cohort(found, name) for name, found in own.items() if len(found)},
            by_expansion=_by_expansion(own["pfa"]),
            elsewhere=elsewhere,
        )


def pool(frame: pd.DataFrame, cohort: Cohort, value: str, by: Iterable[str] = ()) -> pd.DataFrame:
    """Mean, std (ddof = 1) and n of ``value`` over the pooled runs, by epoch (and more); and the ids of the runs."""
    rows = frame[frame["run_id"].isin(cohort.pooled["run_id"]) & frame[value].notna()]
    ids = rows.groupby("epoch")["run_id"].agg(lambda found: " ".join(map(str, sorted(set(found)))))
    pooled = rows.groupby(["epoch", *by])[value].agg(mean="mean", std="std", n="count").reset_index()
    return pooled.assign(run_ids=pooled["epoch"].map(ids))


def _setting(configuration: Mapping[str, Any], dataset: str) -> str:
    shared = {name: configuration.get(name) for name in COMPARABLE}
    return json.dumps(shared | {"description": dataset}, sort_keys=True)


def _preferred(runs: pd.DataFrame, by: pd.Series, rank: Callable[[pd.DataFrame], tuple[int, ...]]) -> str:
    """The group of the highest rank; of equals that with the most epochs over all its runs, then the one begun first."""
    groups = {str(name): own for name, own in runs.groupby(by)}
    return max(
        groups,
        key=lambda name: (
            *rank(groups[name]),
            groups[name]["epochs_done"].sum(),
            -groups[name]["run_id"].min(),
        ),
    )


def _cohort(runs: pd.DataFrame, algorithm: str) -> Cohort:
    def rank(own: pd.DataFrame) -> tuple[int, ...]:
        first = own.iloc[0]
        return -len(first["departures"]), _as_usual(algorithm, first["configuration"]["options"])

    chosen = _preferred(runs, runs["config_hash"], rank)
    own = runs[runs["config_hash"] == chosen].sort_values("seed")
    diverged = own["diverged_epoch"].notna()
    done = (own["state"] == "done") & ~diverged
    pooled = done if done.any() else ~diverged
    return Cohort(
        algorithm=algorithm,
        config_hash=chosen,
        configuration=own["configuration"].iloc[0],
        pooled=own[pooled],
        diverged=own[diverged],
        waiting=own[~pooled & ~diverged],
        departures=own["departures"].iloc[0],
        others=runs["config_hash"].nunique() - 1,
    )


def _by_expansion(runs: pd.DataFrame) -> dict[float, Cohort]:
    ratios = runs["expansion"]
    return {float(ratio): _cohort(runs[ratios == ratio], "pfa") for ratio in sorted(ratios.unique())}


def _as_usual(algorithm: str, options: Mapping[str, Any]) -> bool:
    defaults = ALGORITHMS[algorithm].options
    return all(options[name] == defaults[name].default for name in _SWEPT if name in options)
