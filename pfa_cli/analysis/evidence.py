"""Which runs may be put together: one comparable configuration per algorithm, its finished seeds, and why.

All rows of the database reach figures, tables and verdicts through here, so that all of them choose alike:

1. *Setting.* What runs must share to be comparable (``COMPARABLE``, and the data set). Of a recipe's settings the
   one in which something ran as the paper has it (``paper.departures``), then the one with the most epochs trained.
2. *Configuration.* Of an algorithm's configurations in that setting, the one that departs from the paper's in the
   fewest settings, then the one with the fewest options away from their defaults, then the one with the most epochs
   trained: a trial or a sweep must not displace the experiment. ``Comparison.variants`` gives the others of a sweep.
3. *Runs.* Finished runs are pooled; unfinished ones only while none is finished. A diverged run is a result, but no
   part of a mean. A cell (recipe, algorithm, seed, configuration) counts once, however often a database holds it.

Of an algorithm, a network or a data set from a file only the version of the file that was run last is chosen: an edited
file is another configuration, and its author asks for what it is now.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any, TypeVar, cast

import pandas as pd

from pfa_cli import registry
from pfa_cli.analysis.paper import departures
from pfa_cli.configuration import DEFAULTS
from pfa_cli.errors import UsageError, unknown
from pfa_cli.registry import described, flat, in_order
from pfa_cli.store import queries
from pfa_cli.store.engine import Store

COMPARABLE = (
    "dataset", "network", "hidden_sizes", "epochs", "batch_size", "train_images", "test_images", "validation_images",
    "split_seed", "image_size", "precision", "draws",
)  # fmt: skip
CELL = ["recipe", "algorithm", "seed", "config_hash"]
LAST = "test_accuracy_last_epoch_percent"
BEST = "test_accuracy_best_validation_epoch_percent"
_HARMLESS = ("form", "least_units")  # options that variants of an algorithm may differ in besides those swept
_PARAMETERS = ["expansion", "units", "draws"]  # of a simulation


_Method = TypeVar("_Method", bound=Callable[..., Any])


def _once(method: _Method) -> _Method:
    """A method that several verdicts and figures ask for the same: computed once for each question.

    Its object keeps the answers in ``known``.
    """

    @wraps(method)
    def remembered(self: "Comparison | Evidence", *question: Any, **more: Any) -> Any:
        parts = [(one.algorithm, *one.run_ids) if isinstance(one, Cohort) else one for one in question]
        key = (method.__name__, *parts, *more.items())
        if key not in self.known:
            self.known[key] = method(self, *question, **more)
        return self.known[key]

    return cast(_Method, remembered)


@dataclass(frozen=True)
class Cohort:
    """The runs of one algorithm in one configuration.

    ``pooled`` (what means are taken over), ``diverged`` and ``waiting`` (unfinished, left out) are rows of the table of
    runs, by seed. ``departures``: in what they differ from the paper's experiment (``paper.departures``). ``others``:
    hashes of the algorithm's configurations that were not chosen.
    """

    algorithm: str
    config_hash: str
    configuration: Mapping[str, Any]
    pooled: pd.DataFrame
    diverged: pd.DataFrame
    waiting: pd.DataFrame
    departures: Mapping[str, str]
    others: frozenset[str]

    @cached_property
    def finished(self) -> bool:
        """Whether the pooled runs trained all their epochs."""
        return bool((self.pooled["state"] == "done").all())

    @property
    def options(self) -> Mapping[str, Any]:
        """The algorithm's own settings, such as its expansion ratio."""
        return self.configuration["options"]

    @cached_property
    def run_ids(self) -> tuple[int, ...]:
        """The pooled runs, in order."""
        return tuple(sorted(int(run) for run in self.pooled["run_id"]))


@dataclass(frozen=True)
class Comparison:
    """All that may be compared of a recipe: one setting, with its cohorts by algorithm, in the registry's order.

    ``elsewhere`` names algorithms that have runs, but in another setting only. ``runs`` are all of the recipe; those
    of this setting are marked as ``comparable``. ``known`` keeps what was computed of it (``_once``).
    """

    evidence: "Evidence"
    recipe: str
    setting: Mapping[str, Any]
    cohorts: Mapping[str, Cohort]
    elsewhere: tuple[str, ...]
    runs: pd.DataFrame
    known: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    @property
    def dataset(self) -> str:
        """The data set in words."""
        return str(self.setting["description"])

    @property
    def epochs(self) -> int:
        """Epochs of the schedule."""
        return int(self.setting["epochs"])

    @_once
    def variants(self, algorithm: str, *keys: str, anywhere: bool = False) -> dict[tuple[Any, ...], Cohort]:
        """The algorithm's configurations that differ in these options only, by their values, in order.

        "Only": from the configuration that is shown for the algorithm. ``anywhere``: also runs of other settings.
        """
        if algorithm not in self.cohorts:
            return {}
        usual = _options(algorithm, self.cohorts[algorithm].configuration)
        rest = usual.keys() - {*keys, *_HARMLESS}
        found: dict[tuple[Any, ...], list[Any]] = {}
        runs = self.runs[(self.runs["algorithm"] == algorithm) & (self.runs["comparable"] | anywhere)]
        for place, configuration in runs["configuration"].items():
            options = _options(algorithm, configuration)
            if all(options[name] == usual[name] for name in rest) and all(name in options for name in keys):
                found.setdefault(tuple(options[name] for name in keys), []).append(place)
        return {values: _cohort(runs.loc[found[values]], algorithm, keys) for values in sorted(found)}

    def telling(self, cohort: Cohort, others: Collection[str]) -> dict[str, Any]:
        """The cohort's settings that one of these configurations, given by their hashes, has otherwise."""
        runs = self.runs[self.runs["config_hash"].isin(others)].drop_duplicates("config_hash")
        others_settings = [_flat(one) for one in runs["configuration"]]
        ours = _flat(cohort.configuration).items()
        return {name: value for name, value in ours if any(one.get(name) != value for one in others_settings)}

    @_once
    def curve(self, cohort: Cohort, value: str) -> pd.DataFrame:
        """``value`` of the table of epochs: its mean, std (ddof = 1) and n over the pooled runs, and their ids, by epoch."""
        return _pooled(self._epochs(cohort), value)

    @_once
    def layer_curves(self, cohort: Cohort, value: str) -> pd.DataFrame:
        """``value`` of the table of layers: the same by epoch and layer."""
        return _pooled(self._layers(cohort), value, "layer_index", "layer")

    @_once
    def last_layers(self, cohort: Cohort, at: float = 1.0) -> pd.DataFrame:
        """Every layer of every pooled run, ``at`` this fraction of the epochs that it has trained."""
        layers = self._layers(cohort)
        end = (layers.groupby("run_id")["epoch"].transform("max") * at).astype(int)
        return layers[layers["epoch"] == end]

    @_once
    def final_accuracy(self, cohort: Cohort) -> pd.DataFrame:
        """Test accuracy of each pooled run, by seed: ``LAST``, ``BEST``, ``run_id``.

        ``LAST`` is after the last epoch, ``BEST`` at the epoch that was best on the validation images (NaN without such).
        """
        epochs = self._epochs(cohort)
        epochs = epochs[epochs["epoch"] > 0]
        by_validation = epochs.dropna(subset="validation_accuracy_percent").groupby("run_id")
        best = epochs.loc[by_validation["validation_accuracy_percent"].idxmax()].set_index("run_id")
        found = cohort.pooled[["seed", "run_id"]].set_index("run_id")
        found[LAST] = epochs.groupby("run_id")["test_accuracy_percent"].last()
        found[BEST] = best["test_accuracy_percent"]
        return found.reset_index().set_index("seed")

    @_once
    def pairs(self, ours: Cohort, other: Cohort) -> pd.DataFrame:
        """Final accuracies of two algorithms with the same seed: ours, other, and the ids of the two runs."""
        mine, theirs = (self.final_accuracy(cohort)[[LAST, "run_id"]].dropna() for cohort in (ours, other))
        found = mine.merge(theirs, left_index=True, right_index=True, suffixes=("_ours", "_other"))
        return found.rename(columns={f"{LAST}_ours": "ours", f"{LAST}_other": "other"})

    @_once
    def _epochs(self, cohort: Cohort) -> pd.DataFrame:
        return _of_runs(self.evidence.epochs(self.recipe), cohort)

    @_once
    def _layers(self, cohort: Cohort) -> pd.DataFrame:
        return _of_runs(self.evidence.layers(self.recipe), cohort)


class Evidence:
    """The database's tables as frames, read when first needed."""

    def __init__(self, store: Store, where: Mapping[str, Sequence[Any]] | None = None):
        """``where``: only runs whose setting, option, seed or tag has one of these values; UsageError if none has."""
        self._store, self.name, self._where = store, store.name, where or {}
        self.known: dict[tuple[Any, ...], Any] = {}

    @cached_property
    def all_runs(self) -> pd.DataFrame:
        """Every run that is stored; ``dataset`` is the data set's description where one was recorded."""
        registry.remember(queries.plugin_sources(self._store))
        runs = queries.runs_frame(self._store)
        data = self.attempts[self.attempts["dataset"].notna()].groupby("run_id")["dataset"].last()
        of_attempts = runs["run_id"].map(data).astype("object")  # without attempts it would be of floats
        return runs.assign(dataset=of_attempts.fillna(runs["dataset"]))

    @cached_property
    def attempts(self) -> pd.DataFrame:
        """The attempts at all runs."""
        return queries.attempts_frame(self._store)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """Runs with at least one stored epoch, each cell once: the finished one, else the one that came farthest."""
        runs = self.all_runs[self.all_runs["epochs_done"].notna()]
        if self._where and len(runs):
            runs = runs[self._meets_where(runs)]
        ranked = runs.assign(done=runs["state"] == "done").sort_values(
            ["done", "epochs_done", "run_id"], ascending=[False, False, True]
        )
        return runs.loc[ranked.drop_duplicates(CELL).index.sort_values()].reset_index(drop=True)

    def _meets_where(self, runs: pd.DataFrame) -> pd.Series:
        """Of each run, whether it meets every ``where``; UsageError if none has one of the names or values, or all of them."""
        known = [
            _flat(one) | {"seed": seed, "tag": tags or []}
            for one, seed, tags in zip(runs["configuration"], runs["seed"], runs["tags"], strict=True)
        ]
        meets = pd.Series(True, runs.index)
        for name, values in self._where.items():
            key = "tag" if name == "tags" else name
            if not any(key in one for one in known):
                raise unknown("setting", key, {name for one in known for name in one})
            held = [one[key] if key == "tag" else [one.get(key)] for one in known]
            words = {str(value) for value in values}
            kept = [any(one in values or str(one) in words for one in several) for several in held]
            if key == "tag" and not any(held):
                raise UsageError(f"--where {name}: no run has a tag; `pfa runs tag` gives tags")
            if not any(kept):
                raise unknown(
                    f"{key} of a run", ", ".join(sorted(words)), {str(one) for own in held for one in own}
                )
            meets &= pd.Series(kept, runs.index)
        if not meets.any():
            raise UsageError(f"no run meets these at once: --where {', --where '.join(self._where)}")
        return meets

    @cached_property
    def own_runs(self) -> pd.DataFrame:
        """``runs`` without `replays`; with them where they were asked for by their setting."""
        return self.runs if "draws" in self._where else self.runs[~self._published_draws]

    @property
    def replays(self) -> pd.DataFrame:
        """Those of ``runs`` that repeat a published run draw for draw: held against that run, and part of nothing else."""
        return self.runs[self._published_draws]

    @property
    def _published_draws(self) -> pd.Series:
        of_configuration = [one.get("draws") == "published" for one in self.runs["configuration"]]
        return pd.Series(of_configuration, self.runs.index, dtype=bool)

    @property
    def recipes(self) -> list[str]:
        """The recipes that have runs of our own with a stored epoch, by name."""
        return sorted(self.own_runs["recipe"].unique())

    @_once
    def epochs(self, recipe: str) -> pd.DataFrame:
        """The epochs of a recipe's runs."""
        return queries.epochs_frame(self._store, recipe)

    @_once
    def layers(self, recipe: str) -> pd.DataFrame:
        """The layers of a recipe's runs, by epoch."""
        return queries.layers_frame(self._store, recipe)

    @_once
    def simulations(self, kind: str) -> pd.DataFrame:
        """The stored simulations of one kind; those without the parameters that the figures need are left out."""
        frame = queries.simulations_frame(self._store, kind)
        return frame.reindex(columns=frame.columns.union(_PARAMETERS)).dropna(subset=_PARAMETERS)

    @_once
    def comparison(self, recipe: str, algorithms: tuple[str, ...] = ()) -> Comparison | None:
        """The recipe's runs in the setting that is the paper's or was trained most; None if it has none.

        ``algorithms``: the setting is chosen among the runs of these, where there are any.
        """
        runs = self.own_runs[self.own_runs["recipe"] == recipe]
        return None if runs.empty else self._compare(recipe, runs, algorithms)

    def _compare(self, recipe: str, runs: pd.DataFrame, algorithms: tuple[str, ...]) -> Comparison:
        ran = list(zip(runs["configuration"], runs["dataset"], strict=True))
        runs = runs.assign(departures=pd.Series([departures(*one) for one in ran], runs.index, dtype=object))
        settings = pd.Series([_setting(*one) for one in ran], runs.index)
        asked = runs["algorithm"].isin(algorithms or runs["algorithm"])
        asked |= not asked.any()
        current = _of_newest_files(runs[asked], "network", "dataset")
        chosen = _preferred(
            current, settings[current.index], lambda own: (not own["departures"].map(bool).all(),)
        )
        inside = runs[settings == chosen]
        own = {name: inside[inside["algorithm"] == name] for name in in_order(runs["algorithm"])}
        return Comparison(
            evidence=self,
            recipe=recipe,
            setting=json.loads(chosen),
            cohorts={name: _cohort(found, name) for name, found in own.items() if len(found)},
            elsewhere=tuple(name for name, found in own.items() if found.empty),
            runs=runs.assign(comparable=settings == chosen),
        )


def _pooled(rows: pd.DataFrame, value: str, *by: str) -> pd.DataFrame:
    """Mean, std (ddof = 1) and n of ``value``, by epoch (and more); and the ids of the runs."""
    rows = rows[["run_id", "epoch", *by, value]].dropna(subset=value)
    ids: dict[int, str] = {}
    for epoch, run in sorted({*zip(rows["epoch"], rows["run_id"], strict=True)}):
        ids[epoch] = f"{ids[epoch]} {run}" if epoch in ids else str(run)
    pooled = rows.groupby(["epoch", *by])[value].agg(mean="mean", std="std", n="count").reset_index()
    return pooled.assign(run_ids=pooled["epoch"].map(ids))


def _of_runs(frame: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """The rows of the pooled runs."""
    return frame[frame["run_id"].isin(cohort.pooled["run_id"])]


def final_accuracies(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Mean and std (ddof = 1) over seeds of both final accuracies, for every recipe and algorithm that was run."""
    rows = []
    for comparison in comparisons:
        for name, cohort in comparison.cohorts.items():
            finals = comparison.final_accuracy(cohort)
            rows.append(
                {
                    "recipe": comparison.recipe,
                    "algorithm": name,
                    "epochs": comparison.epochs,
                    "finished": cohort.finished and len(finals) > 0,
                    "n": len(finals),
                    "diverged": len(cohort.diverged),
                    f"{LAST}_mean": finals[LAST].mean(),
                    f"{LAST}_std": finals[LAST].std(ddof=1),
                    f"{BEST}_mean": finals[BEST].mean(),
                    f"{BEST}_std": finals[BEST].std(ddof=1),
                    "config_hash": cohort.config_hash,
                    "run_ids": " ".join(map(str, cohort.run_ids)),
                }
            )
    return pd.DataFrame(rows)


def _setting(configuration: Mapping[str, Any], dataset: str) -> str:
    shared = {name: configuration.get(name, DEFAULTS.get(name)) for name in COMPARABLE}
    of_plugins = {
        "network_options": configuration.get("network_options"),
        "dataset_options": configuration.get("dataset_options"),
        "sources": {r: s for r, s in (configuration.get("sources") or {}).items() if r != "algorithm"},
    }
    shared |= {name: value for name, value in of_plugins.items() if value}
    return json.dumps(shared | {"description": dataset}, sort_keys=True)


def _of_newest_files(runs: pd.DataFrame, *roles: str) -> pd.DataFrame:
    """The runs with that version of the files of these roles, of each name, with which a run was planned last."""

    def name(configuration: Mapping[str, Any]) -> list[Any]:
        return [configuration.get(role) for role in roles]

    def version(configuration: Mapping[str, Any]) -> list[Any]:
        return [(configuration.get("sources") or {}).get(role) for role in roles]

    newest = {str(name(one)): version(one) for one in runs.sort_values("created_at")["configuration"]}
    kept = [newest[str(name(one))] == version(one) for one in runs["configuration"]]
    return runs[pd.Series(kept, runs.index, dtype=bool)]


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


def _cohort(runs: pd.DataFrame, algorithm: str, swept: Sequence[str] = ()) -> Cohort:
    """``swept``: options whose values do not count in the choice."""

    def rank(own: pd.DataFrame) -> tuple[int, ...]:
        first = own.iloc[0]
        usual = {name: option.default for name, option in described(algorithm).options.items()}
        ours = _options(algorithm, first["configuration"])
        unusual = [name for name in usual.keys() - set(swept) if ours[name] != usual[name]]
        return -len(first["departures"].keys() - set(swept)), -len(unusual)

    current = _of_newest_files(runs, "algorithm")
    chosen = _preferred(current, current["config_hash"], rank)
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
        others=frozenset(runs["config_hash"]) - {chosen},
    )


def _flat(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """All settings and options in one level; what came after the run was stored has its default."""
    return flat({**DEFAULTS, **configuration}) | _options(configuration["algorithm"], configuration)


def _options(algorithm: str, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """An algorithm's options; those that came after the run was stored have their defaults."""
    usual = {name: option.default for name, option in described(algorithm).options.items()}
    return usual | configuration["options"]
