"""The tidy tables: one observation per row, units in the column names, the same key columns everywhere.

A table about runs opens with ``KEY``, then epoch, layer_index and layer where they apply; ``settings`` gives the columns
that stand at its end. Rows come in the order of the keys, so that the same database gives the same table.
"""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, select

from pfa_cli.errors import unknown
from pfa_cli.store.schema import attempts, epochs, metadata, runs

TABLES = ("runs", "epochs", "layers", "attempts", "simulations", "benchmarks")
"""The names of the tables."""
KEY = ("run_id", "recipe", "algorithm", "seed", "config_hash", "expansion")
"""``expansion`` is the algorithm's expansion ratio; None for an algorithm without one."""
_NOT_SHOWN = {"id", "attempt_id", "token", "checksum", *KEY}


def table(name: str, recipe: str | None = None) -> Select[tuple[Any, ...]]:
    """The query of a tidy table, of all runs or of those of one recipe.

    Raises UsageError for an unknown name.
    """
    if name not in TABLES:
        raise unknown("table", name, TABLES)
    of = metadata.tables[name]
    if not is_of_runs(name):
        return select(*(column for column in of.c if column.name != "checksum")).order_by(*of.primary_key)
    columns = [*_key(), *(column for column in of.c if column.name not in _NOT_SHOWN)]
    if of is attempts:
        columns.insert(len(KEY), attempts.c.id.label("attempt_id"))
    if of is epochs:
        columns.append(epochs.c.attempt_id)
    query = select(*columns)
    if of is not runs:
        query = query.join_from(of, runs, of.c.run_id == runs.c.id)
    if recipe is not None:
        query = query.where(runs.c.recipe == recipe)
    return query.order_by(*([of.c.run_id, of.c.id] if of is attempts else of.primary_key))


def _key() -> list[ColumnElement[Any]]:
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
    return name not in ("simulations", "benchmarks")


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
