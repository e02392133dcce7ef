"""What was run: every configuration with its seeds and their states, and on which machines with which versions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pandas as pd

from pfa_cli.analysis.evidence import CELL, Evidence
from pfa_cli.analysis.paper import departures, paper
from pfa_cli.analysis.words import ids, labels
from pfa_cli.configuration import DEFAULTS
from pfa_cli.registry import described, in_order
from pfa_cli.report.tables import Table
from pfa_cli.wording import count

_MACHINE = (
    "host", "device", "threads", "python_version", "torch_version", "cuda_version", "pfa_version", "commit",
)  # fmt: skip
_RUNS = (
    "recipe", "algorithm", "settings", "epochs", "seeds done", "other seeds", "diverged", "runs", "training time", "data",
)  # fmt: skip
_MACHINES = (
    "recipe", "host", "device", "threads", "python", "torch", "CUDA", "pfa", "commit", "attempts", "from (UTC)",
    "to (UTC)", "time",
)  # fmt: skip
_ATTEMPTS = (
    "run", "recipe", "algorithm", "seed", "from epoch", "host", "commit", "started (UTC)", "duration", "outcome",
)  # fmt: skip
_CONFIGURATION = ["recipe", "order", "epochs_total", "config_hash"]


@dataclass(frozen=True)
class Ledger:
    """Three tables, and the sentences about what went wrong and what is missing."""

    runs: Table
    machines: Table
    attempts: Table
    failures: list[str]
    unfinished: list[str]
    never: list[str]
    last: str


def ledger(evidence: Evidence) -> Ledger:
    """Reads the tables of runs, epochs and attempts."""
    runs = evidence.all_runs
    seconds = [
        evidence.epochs(recipe).groupby("run_id")["seconds"].sum() for recipe in runs["recipe"].unique()
    ]
    order = in_order(runs["algorithm"])
    runs = runs.assign(
        seconds=runs["run_id"].map(pd.concat(seconds)).fillna(0.0) if seconds else 0.0,
        order=runs["algorithm"].map(order.index),
    )
    attempts = evidence.attempts
    attempts = attempts.assign(
        commit=[
            _commit(sha, dirty) for sha, dirty in zip(attempts["git_sha"], attempts["git_dirty"], strict=True)
        ],
        duration=attempts["ended_at"] - attempts["started_at"],
    )
    several = {
        key: _differing(own["configuration"].tolist()) for key, own in runs.groupby(["recipe", "algorithm"])
    }
    rows = tuple(
        _run_row(own, several[own["recipe"].iloc[0], own["algorithm"].iloc[0]])
        for _, own in runs.groupby(_CONFIGURATION)
    )
    tries = tuple(_attempt_row(row) for row in attempts.to_dict("records"))
    return Ledger(
        runs=Table("What was run", _RUNS, rows, kind="dense"),
        machines=Table("Machines and versions", _MACHINES, tuple(_machines(attempts)), kind="dense"),
        attempts=Table(count(len(tries), "attempt"), _ATTEMPTS, tries, kind="dense"),
        failures=list(_failures(runs, attempts)),
        unfinished=list(_unfinished(runs)),
        never=list(_never(evidence.runs)),
        last=_moment(_last(attempts)),
    )


def _run_row(own: pd.DataFrame, several: set[str]) -> tuple[str, ...]:
    first = own.iloc[0]
    done = own[(own["state"] == "done") & own["diverged_epoch"].isna()]
    other = [f"{state}: {_seeds(rows['seed'])}" for state, rows in own.groupby("state") if state != "done"]
    options = ", ".join(f"{key} {value}" for key, value in _named(first, several).items())
    return (
        first["recipe"], described(first["algorithm"]).label, f"{first['config_hash'][:8]}{options and ': '}{options}",
        str(first["epochs_total"]), _seeds(done["seed"]), "; ".join(other),
        _seeds(own.loc[own["diverged_epoch"].notna(), "seed"]), ids(own["run_id"]), _time(own["seconds"].sum()),
        _said(first["dataset"]),
    )  # fmt: skip


def _differing(configurations: Sequence[Mapping[str, Any]]) -> set[str]:
    """The settings that have several values in these configurations."""
    whole = [{**DEFAULTS, **one} for one in configurations]
    first = whole[0]
    return {key for one in whole for key in first.keys() | one.keys() if one.get(key) != first.get(key)}


def _named(run: pd.Series, several: set[str]) -> dict[str, Any]:
    """The settings that tell a configuration from others.

    Its options; what it cuts, precision and draws, where not the default; and what departs from the paper's experiment,
    or, in a recipe that the paper has not, varies over the algorithm's runs (``several``).
    """
    ours = {**DEFAULTS, **run["configuration"]}
    departed = departures(run["configuration"], _said(run["dataset"]))
    telling = {"train_images", "test_images", "precision", "draws"}
    if run["recipe"] not in paper().experiments:
        telling |= several - {"milestones"}  # which follow from the epochs
    named = [
        key for key in sorted(ours) if key in departed or (key in telling and ours[key] != DEFAULTS.get(key))
    ]
    return ours["options"] | {key: ours[key] for key in named if key not in ("options", "epochs", "sources")}


def _machines(attempts: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    keyed = attempts.assign(**{name: attempts[name].map(_said) for name in _MACHINE})
    for key, own in keyed.groupby(["recipe", *_MACHINE], sort=True):
        measured = own["duration"].dropna()
        yield (
            *map(str, key), str(len(own)), _moment(own["started_at"].min()), _moment(_last(own)),
            _time(measured.dt.total_seconds().sum()),
        )  # fmt: skip


def _attempt_row(row: Mapping[Any, Any]) -> tuple[str, ...]:
    lasted = "" if pd.isna(row["duration"]) else _time(row["duration"].total_seconds())
    start = "" if pd.isna(row["resumed_epoch"]) else str(row["resumed_epoch"])
    return (
        str(row["run_id"]), row["recipe"], described(row["algorithm"]).label, str(row["seed"]), start,
        _said(row["host"]), row["commit"], _moment(row["started_at"]), lasted, row["outcome"] or "under way",
    )  # fmt: skip


def _failures(runs: pd.DataFrame, attempts: pd.DataFrame) -> Iterator[str]:
    """What diverged, what failed, and what is stored twice."""
    for row in runs[runs["diverged_epoch"].notna()].to_dict("records"):
        yield f"Diverged: {_name(row)}: at epoch {row['diverged_epoch']}"
    for row in runs[runs["state"] == "failed"].to_dict("records"):
        yield f"Failed: {_name(row)}: {row['error'] or 'no reason was stored'}"
    failed = runs.loc[runs["state"] == "failed", "run_id"]
    resumed = attempts[(attempts["outcome"] == "failed") & ~attempts["run_id"].isin(failed)]
    if len(resumed):
        text = "" if len(failed) else "No run failed for good. "
        text += f"{count(len(resumed), 'attempt')} failed, and later ones took up these runs: "
        yield text + ids(set(resumed["run_id"]))
    for row in runs[runs.duplicated(CELL)].to_dict("records"):
        yield f"Stored twice, counted once: {_name(row)}; `pfa db check` looks for damage"


def _unfinished(runs: pd.DataFrame) -> Iterator[str]:
    for _, own in runs[~runs["state"].isin(("done", "failed"))].groupby(_CONFIGURATION):
        first, waiting = own.iloc[0], own[own["epochs_done"].isna()]
        said = [
            f"seed {row['seed']} at epoch {row['epochs_done']}"
            for row in own[own["epochs_done"].notna()].to_dict("records")
        ]
        if len(waiting):
            said.append(f"not begun: {_seeds(waiting['seed'])}")
        label = described(first["algorithm"]).label
        yield f"{first['recipe']}, {label}, {count(first['epochs_total'], 'epoch')}: {', '.join(said)}"


def _never(began: pd.DataFrame) -> Iterator[str]:
    for recipe in paper().experiments:
        run = set(began.loc[began["recipe"] == recipe, "algorithm"])
        if not run:
            yield f"Recipe {recipe}: nothing."
        elif names := [name for name in paper().algorithms if name not in run]:
            yield f"Recipe {recipe}: {labels(names)}."


def _last(attempts: pd.DataFrame) -> pd.Timestamp:
    return max(attempts["started_at"].max(), attempts["ended_at"].max(), key=lambda at: (pd.notna(at), at))


def _name(row: Mapping[Any, Any]) -> str:
    label = described(row["algorithm"]).label
    return f"{row['recipe']}, {label}, seed {row['seed']} ({count(row['epochs_total'], 'epoch')})"


def _seeds(seeds: Iterable[int]) -> str:
    return ", ".join(str(seed) for seed in sorted(seeds))


def _commit(sha: str | None, dirty: Any) -> str:
    if not sha:
        return ""
    return sha[:10] + (" with changes" if pd.notna(dirty) and dirty else "")


def _said(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def _moment(at: pd.Timestamp) -> str:
    return "" if pd.isna(at) else at.strftime("%Y-%m-%d %H:%M")


def _time(seconds: float) -> str:
    """Hours and minutes, or seconds where it is short.

    >>> _time(8123), _time(40)
    ('2:15 h', '40 s')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return str(timedelta(minutes=minutes))[:-3] + " h" if minutes < 24 * 60 else f"{minutes / 60:.0f} h"
