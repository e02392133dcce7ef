"""The tidy tables: one observation per row, units in the column names, the same key columns everywhere.

A table about runs opens with ``KEY``, then epoch, layer_index and layer where they apply. Rows come in the
order of the keys, so that the same database gives the same table.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Label, Select, select

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
