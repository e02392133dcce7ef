"""Checksums of what was measured, so that a changed bit in a stored number is noticed.

That of an epoch covers its row, the rows of its layers, and which cell with which configuration they belong to;
columns that are empty do not count, so that a metric may be added later. Rows from before there were checksums have
none. ``test_checksums.py`` pins one: what is stored today has to be checked by every later pfa.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, select

from pfa_cli.store.errors import DamagedValue
from pfa_cli.store.schema import benchmarks, epochs, layers, runs, simulations

Row = dict[str, Any]

_CELL = ("recipe", "algorithm", "seed", "config_hash", "configuration")
# Numbers that a database gives anew, times of storing, and what the checksum of an epoch names itself.
_NOT_COVERED = {"id", "run_id", "attempt_id", "created_at", "checksum"}


def of_cell(run: Row) -> str:
    """The checksum of what a run is."""
    return _digest([run[name] for name in _CELL])


def of_epoch(cell: str, epoch: Row, of_layers: Iterable[Row]) -> str:
    """The checksum of an epoch; ``epoch`` and ``of_layers`` are its rows, the layers in order, ``cell`` see ``of_cell``."""
    return _digest([cell, _covered(epoch), [_covered(layer) for layer in of_layers]])


def of_row(row: Row) -> str:
    """The checksum of a row of ``simulations`` or ``benchmarks``."""
    return _digest(_covered(row))


def verify(connection: Connection) -> None:
    """Raises DamagedValue at the first epoch, simulation or benchmark that does not match its checksum."""
    for what in wrong(connection):
        raise DamagedValue(f"{what} does not match its checksum")


def wrong(connection: Connection) -> Iterator[str]:
    """What does not match its checksum, in words."""
    with_one = select(epochs.c.run_id).where(epochs.c.checksum.is_not(None))
    for run in rows(connection, runs, runs.c.id.in_(with_one)):
        of_run = [rows(connection, table, table.c.run_id == run["id"]) for table in (epochs, layers)]
        for epoch in wrong_epochs(run, *of_run):
            yield "epoch {} of run {id} ({recipe} {algorithm} seed {seed})".format(epoch, **run)
    for table in (simulations, benchmarks):
        for row in rows(connection, table):
            if is_wrong(row):
                yield f"a row of {table.name}"


def wrong_epochs(run: Row, of_epochs: Iterable[Row], of_layers: Iterable[Row]) -> list[int]:
    """The epochs of a run, of all its rows, that do not match their checksum."""
    by_epoch = defaultdict(list)
    for layer in of_layers:
        by_epoch[layer["epoch"]].append(layer)
    cell = of_cell(run)
    return [
        row["epoch"]
        for row in of_epochs
        if row["checksum"] not in (None, of_epoch(cell, row, by_epoch[row["epoch"]]))
    ]


def is_wrong(row: Row) -> bool:
    """Whether a row of ``simulations`` or ``benchmarks`` does not match its checksum."""
    return row["checksum"] not in (None, of_row(row))


def rows(connection: Connection, table: Table, *conditions: ColumnElement[bool]) -> list[Row]:
    """The rows of a table that meet the conditions, in the order of its key."""
    query = select(table).where(*conditions).order_by(*table.primary_key)
    return [row._asdict() for row in connection.execute(query)]


def _covered(row: Row) -> dict[str, Any]:
    # SQLite stores -0.0 as 0.0, and a whole number in a column of floats as a float.
    return {
        name: value + 0.0 if isinstance(value, float) else value
        for name, value in row.items()
        if value is not None and name not in _NOT_COVERED
    }


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
