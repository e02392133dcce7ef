"""What was run: every configuration with its seeds and their states, and on which machines with which versions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pandas as pd

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.figures.notes import labels
from pfa_cli.figures.published import EPOCHS
from pfa_cli.store import queries
from pfa_cli.store.engine import Store

_MACHINE = (
    "host",
    "device",
    "threads",
    "python_version",
    "torch_version",
    "cuda_version",
    "pfa_version",
    "commit",
)
_STATES = ("done", "running", "interrupted", "failed", "queued")


@dataclass(frozen=True)
class Ledger:
    """Rows of words, and the sentences about what went wrong and what is missing."""

    runs: list[tuple[str, ...]]
    machines: list[tuple[str, ...]]
    attempts: list[tuple[str, ...]]
    diverged: list[str]
    failed: list[str]
    unfinished: list[str]
    never: list[str]
    last: str


RUNS = (
    "recipe",
    "algorithm",
    "settings",
    "epochs",
    "seeds done",
    "other seeds",
    "diverged",
    "training time",
    "data",
)
MACHINES = (
    "recipe", "host", "device", "threads", "python", "torch", "CUDA", "pfa", "commit", "attempts", "from (UTC)",
    "to (UTC)", "time",
)  # fmt: skip
ATTEMPTS = (
    "run",
    "recipe",
    "algorithm",
    "seed",
    "from epoch",
    "host",
    "commit",
    "started (UTC)",
    "duration",
    "outcome",
)


def ledger(store: Store) -> Ledger:
    """Reads the tables of runs, epochs and attempts."""
    runs, attempts = queries.runs_frame(store), queries.attempts_frame(store)
    seconds = queries.epochs_frame(store).groupby("run_id")["seconds"].sum()
    described = attempts[attempts["dataset"].notna()].groupby("run_id")["dataset"].last()
    runs = runs.assign(
        seconds=runs["run_id"].map(seconds).fillna(0.0),
        data=runs["run_id"].map(described).fillna(""),
        order=runs["algorithm"].map(list(ALGORITHMS).index),
    )
    attempts = attempts.assign(
        commit=[
            _commit(sha, dirty) for sha, dirty in zip(attempts["git_sha"], attempts["git_dirty"], strict=True)
        ],
        duration=attempts["ended_at"] - attempts["started_at"],
    )
    began = runs[runs["epochs_done"].notna()]
    lost = runs[runs["diverged_epoch"].notna()]
    return Ledger(
        runs=[_run_row(own) for _, own in runs.groupby(["recipe", "order", "epochs_total", "config_hash"])],
        machines=_machines(attempts),
        attempts=[_attempt_row(row) for row in attempts.to_dict("records")],
        diverged=[f"{_name(row)}: at epoch {row['diverged_epoch']}" for row in lost.to_dict("records")],
        failed=[
            f"{_name(row)}: {row['error'] or 'no reason was stored'}"
            for row in runs[runs["state"] == "failed"].to_dict("records")
        ],
        unfinished=_unfinished(runs),
        never=_never(began),
        last=_moment(_last(attempts)),
    )


def _run_row(own: pd.DataFrame) -> tuple[str, ...]:
    first = own.iloc[0]
    done = own[(own["state"] == "done") & own["diverged_epoch"].isna()]
    other = [
        f"{state}: {_seeds(own.loc[own['state'] == state, 'seed'])}"
        for state in _STATES[1:]
        if (own["state"] == state).any()
    ]
    options = ", ".join(f"{key} {value}" for key, value in _options(first["configuration"]).items())
    data = next((text for text in own["data"] if text), first["dataset"] or "")
    return (
        first["recipe"], ALGORITHMS[first["algorithm"]].label, f"{first['config_hash'][:8]}{options and ': '}{options}",
        str(first["epochs_total"]), _seeds(done["seed"]), "; ".join(other),
        _seeds(own.loc[own["diverged_epoch"].notna(), "seed"]), _time(own["seconds"].sum()), data,
    )  # fmt: skip


def _options(configuration: dict[str, Any]) -> dict[str, Any]:
    cut = {key: configuration.get(key) for key in ("train_images", "test_images") if configuration.get(key)}
    precision = configuration.get("precision", "fp32")
    return {**configuration["options"], **cut, **({} if precision == "fp32" else {"precision": precision})}


def _machines(attempts: pd.DataFrame) -> list[tuple[str, ...]]:
    keyed = attempts.assign(**{name: attempts[name].map(_said) for name in _MACHINE})
    rows = []
    for key, own in keyed.groupby(["recipe", *_MACHINE], sort=True):
        measured = own["duration"].dropna()
        rows.append((
            *_words(key), str(len(own)), _moment(own["started_at"].min()), _moment(_last(own)),
            _time(measured.dt.total_seconds().sum()),
        ))  # fmt: skip
    return rows


def _attempt_row(row: Mapping[Any, Any]) -> tuple[str, ...]:
    lasted = "" if pd.isna(row["duration"]) else _time(row["duration"].total_seconds())
    start = "" if pd.isna(row["resumed_epoch"]) else str(row["resumed_epoch"])
    return (
        str(row["run_id"]), row["recipe"], ALGORITHMS[row["algorithm"]].label, str(row["seed"]), start,
        _said(row["host"]), row["commit"], _moment(row["started_at"]), lasted, row["outcome"] or "under way",
    )  # fmt: skip


def _unfinished(runs: pd.DataFrame) -> list[str]:
    rows = runs[runs["state"].isin(("running", "interrupted", "queued"))]
    return [
        f"{own['recipe'].iloc[0]}, {labels(own['algorithm'].unique())}, {own['epochs_total'].iloc[0]} epochs: "
        f"{_seed_words(own)}"
        for _, own in rows.groupby(["recipe", "order", "epochs_total", "config_hash"])
    ]


def _seed_words(own: pd.DataFrame) -> str:
    begun, waiting = own[own["epochs_done"].notna()], own[own["epochs_done"].isna()]
    said = [
        f"seed {seed} at epoch {epoch}"
        for seed, epoch in zip(begun["seed"], begun["epochs_done"], strict=True)
    ]
    if len(waiting):
        said.append(f"not begun: {_seeds(waiting['seed'])}")
    return ", ".join(said)


def _never(began: pd.DataFrame) -> list[str]:
    missing = []
    for recipe in EPOCHS:
        run = set(began.loc[began["recipe"] == recipe, "algorithm"])
        if not run:
            missing.append(f"Recipe {recipe}: nothing.")
        elif names := [name for name in ALGORITHMS if name not in run]:
            missing.append(f"Recipe {recipe}: {labels(names)}.")
    return missing


def _last(attempts: pd.DataFrame) -> pd.Timestamp:
    return max(attempts["started_at"].max(), attempts["ended_at"].max(), key=lambda at: (pd.notna(at), at))


def _name(row: Mapping[Any, Any]) -> str:
    return f"{row['recipe']}, {ALGORITHMS[row['algorithm']].label}, seed {row['seed']} ({row['epochs_total']} epochs)"


def _seeds(seeds: Iterable[int]) -> str:
    return ", ".join(str(seed) for seed in sorted(seeds))


def _commit(sha: str | None, dirty: Any) -> str:
    if not sha:
        return ""
    return sha[:10] + (" with changes" if pd.notna(dirty) and dirty else "")


def _said(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def _words(key: object) -> tuple[str, ...]:
    return tuple(map(str, key)) if isinstance(key, tuple) else (str(key),)


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
