"""The tidy tables: one observation per row, units in the column names, the same key columns everywhere.

A table about runs opens with ``KEY``, then epoch, layer_index and layer where they apply; ``settings`` gives the columns
that stand at its end. Rows come in the order of the keys, so that the same database gives the same table.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Label, Select, select

from pfa_cli.errors import unknown
from pfa_cli.store.schema import attempts, benchmarks, epochs, layers, runs, simulations

KEY = ("run_id", "recipe", "algorithm", "seed", "config_hash", "expansion")
"""``expansion`` is the algorithm's expansion ratio; None for an algorithm without one."""


def table(
    name: str, recipe: str | None = None, algorithms: Sequence[str] | None = None
) -> Select[tuple[Any, ...]]:
    """The query of a tidy table, of all runs or of those of one recipe and some algorithms.

    Raises UsageError for an unknown name.
    """
    if name not in _TABLES:
        raise unknown("table", name, _TABLES)
    query = _TABLES[name]()
    if recipe is not None and name not in _WITHOUT_RUNS:
        query = query.where(runs.c.recipe == recipe)
    if algorithms is not None and name not in _WITHOUT_RUNS:
        query = query.where(runs.c.algorithm.in_(algorithms))
    return query


def _runs() -> Select[tuple[Any, ...]]:
    own = {"id", "token", *KEY}
    return select(*_key(), *(column for column in runs.c if column.name not in own)).order_by(runs.c.id)


def _attempts() -> Select[tuple[Any, ...]]:
    own = {"id", "run_id", "token"}
    rest = (column for column in attempts.c if column.name not in own)
    query = select(*_key(), attempts.c.id.label("attempt_id"), *rest)
    return query.join_from(attempts, runs).order_by(attempts.c.run_id, attempts.c.id)


def _epochs() -> Select[tuple[Any, ...]]:
    rest = (column for column in epochs.c if column.name not in ("run_id", "attempt_id", "checksum"))
    query = select(*_key(), *rest, epochs.c.attempt_id)
    return query.join_from(epochs, runs).order_by(epochs.c.run_id, epochs.c.epoch)


def _layers() -> Select[tuple[Any, ...]]:
    query = select(*_key(), *(column for column in layers.c if column.name != "run_id"))
    return query.join_from(layers, runs, layers.c.run_id == runs.c.id).order_by(*layers.primary_key)


def _simulations() -> Select[tuple[Any, ...]]:
    return select(*(column for column in simulations.c if column.name != "checksum")).order_by(
        *simulations.primary_key
    )


def _benchmarks() -> Select[tuple[Any, ...]]:
    return select(*(column for column in benchmarks.c if column.name != "checksum")).order_by(benchmarks.c.id)


def _key() -> list[Label[Any]]:
    expansion = runs.c.configuration[("options", "expansion")].as_float()
    columns = [runs.c.id, runs.c.recipe, runs.c.algorithm, runs.c.seed, runs.c.config_hash, expansion]
    return [column.label(name) for name, column in zip(KEY, columns, strict=True)]


@dataclass(frozen=True)
class Settings:
    """The settings of all runs as columns: ``names``, and of every run the values, None where it has not that setting."""

    names: tuple[str, ...]
    values: dict[int, tuple[Any, ...]]


def settings(connection: Connection) -> Settings:
    """Every setting that some run has, as a column "setting_…"; options of its algorithm too, lists as JSON."""
    found = {
        run: _flat(configuration)
        for run, configuration in connection.execute(
            select(runs.c.id, runs.c.configuration).order_by(runs.c.id)
        )
    }
    names = tuple(dict.fromkeys(name for each in found.values() for name in each))
    return Settings(names, {run: tuple(map(each.get, names)) for run, each in found.items()})


def is_of_runs(name: str) -> bool:
    """Whether the tidy table ``name`` has rows of runs, whose settings can stand beside them."""
    return name not in _WITHOUT_RUNS


def _flat(configuration: dict[str, Any]) -> dict[str, Any]:
    """The settings that have a value, by the names of their columns; those that are key columns left out."""
    found: dict[str, Any] = {}
    for name, value in configuration.items():
        if isinstance(value, dict) and name.endswith("options"):
            found |= {f"setting_{option}": _plain(each) for option, each in value.items()}
        elif value is not None and name not in KEY:
            found[f"setting_{name}"] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value


_WITHOUT_RUNS = ("simulations", "benchmarks")
_TABLES: dict[str, Callable[[], Select[tuple[Any, ...]]]] = {
    "runs": _runs,
    "epochs": _epochs,
    "layers": _layers,
    "attempts": _attempts,
    "simulations": _simulations,
    "benchmarks": _benchmarks,
}
TABLES = tuple(_TABLES)
"""The names of the tables."""
