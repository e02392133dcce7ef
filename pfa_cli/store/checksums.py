"""Checksums of what was measured, so that a changed bit in a stored number is noticed.

That of an epoch covers its row, the rows of its layers, and which cell with which configuration they belong to;
columns that are empty do not count, so that a metric may be added later. Rows from before there were checksums have
none. ``test_checksums.py`` pins one: what is stored today has to be checked by every later pfa.
"""

import hashlib
import json
import math
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, select

from pfa_cli.store.errors import DamagedValue
from pfa_cli.store.schema import epochs, layers, metadata

Row = dict[str, Any]
Tables = Mapping[str, Table]
"""The tables by name: those of the database itself, or of one that is attached to it (a schema)."""

_CELL = ("recipe", "algorithm", "seed", "config_hash", "configuration")
# Numbers that a database gives anew, times of storing, and what the checksum of an epoch names itself.
_NOT_COVERED = {"id", "run_id", "attempt_id", "created_at", "checksum"}
_EPOCH, _LAYER = (sorted(set(table.columns.keys()) - _NOT_COVERED) for table in (epochs, layers))
_EPOCH_NAMES, _LAYER_NAMES = ([name.encode() for name in names] for names in (_EPOCH, _LAYER))


def of_cell(run: Row) -> str:
    """The checksum of what a run is."""
    return _digest([run[name] for name in _CELL])


def of_epoch(cell: str, epoch: Row, of_layers: Iterable[Row]) -> str:
    """The checksum of an epoch; ``epoch`` and ``of_layers`` are its rows, the layers in order, ``cell`` see ``of_cell``."""
    return _of_values(cell, _as_stored(epoch, _EPOCH), [_as_stored(layer, _LAYER) for layer in of_layers])


def of_row(row: Row) -> str:
    """The checksum of a row of ``simulations`` or ``benchmarks``."""
    return _digest(_covered(row))


def verify(connection: Connection, tables: Tables = metadata.tables) -> None:
    """Raises DamagedValue at the first epoch, simulation or benchmark that does not match its checksum."""
    for what in wrong(connection, tables):
        raise DamagedValue(f"{what} does not match its checksum")


def wrong(connection: Connection, tables: Tables = metadata.tables) -> Iterator[str]:
    """What does not match its checksum, in words; 1 s for 20,000 epochs of 20 layers."""
    runs = {run["id"]: run for run in rows(connection, tables["runs"])}
    cells = {run_id: of_cell(run) for run_id, run in runs.items()}
    count = f"SELECT run_id, epoch, count(*) FROM {tables['layers'].fullname} GROUP BY run_id, epoch"
    n_layers = {(run_id, epoch): n for run_id, epoch, n in connection.exec_driver_sql(count)}
    of_layers = stored_values(connection, tables["layers"], _LAYER)
    for row in stored_values(connection, tables["epochs"], ["run_id", "epoch", "checksum", *_EPOCH]):
        run_id, epoch, checksum = row[:3]
        found = list(islice(of_layers, n_layers.get((run_id, epoch), 0)))
        if checksum is not None and checksum != _of_values(cells.get(run_id, ""), row[3:], found):
            run = runs.get(run_id, dict.fromkeys(("id", *_CELL)))
            yield "epoch {} of run {id} ({recipe} {algorithm} seed {seed})".format(epoch, **run)
    for name in ("simulations", "benchmarks"):
        for each in rows(connection, tables[name]):
            if is_wrong(each):
                yield f"a row of {name}"


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
    names = table.columns.keys()
    return [dict(zip(names, row, strict=True)) for row in connection.execute(query)]


def stored_values(
    connection: Connection, table: Table, names: Sequence[str], run_ids: Iterable[int] | None = None
) -> Iterator[tuple[Any, ...]]:
    """Values of every row (of these runs) in the order of the key, as SQLite stores them; the types' checks cost time."""
    condition = ""
    if run_ids is not None:  # PostgreSQL takes no empty list; of no run there are no rows
        condition = f"WHERE run_id IN ({', '.join(str(int(run)) for run in run_ids) or 'NULL'})"
    key = ", ".join(table.primary_key.columns.keys())
    query = f"SELECT {', '.join(names)} FROM {table.fullname} {condition} ORDER BY {key}"
    if connection.dialect.name == "sqlite":
        raw: Any = connection.connection.driver_connection  # SQLAlchemy's rows would take five times as long
        return iter(raw.execute(query))
    return _streamed(connection, query)


def _streamed(connection: Connection, query: str) -> Iterator[tuple[Any, ...]]:
    with connection.exec_driver_sql(query, execution_options={"yield_per": 10_000}) as result:
        for row in result:
            yield tuple(_stored(value) for value in row)


def _as_stored(row: Row, names: list[str]) -> tuple[Any, ...]:
    return tuple(_stored(row.get(name)) for name in names)


def _stored(value: Any) -> Any:
    """As SQLite stores it: NaN as a text, -0.0 as 0.0."""
    if not isinstance(value, float):
        return value
    return "nan" if math.isnan(value) else value + 0.0


def _of_values(cell: str, epoch: tuple[Any, ...], of_layers: list[tuple[Any, ...]]) -> str:
    """By columns, and a column of numbers at once, which is ten times as fast as value by value."""
    parts = [cell.encode()]
    for names, of_table in ((_EPOCH_NAMES, (epoch,)), (_LAYER_NAMES, of_layers)):
        for name, column in zip(names, zip(*of_table, strict=True), strict=False):
            if column[0] is not None or column.count(None) < len(column):
                parts += (name, _bytes(column))
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _bytes(column: tuple[Any, ...]) -> bytes:
    try:
        return struct.pack(f"<{len(column)}d", *column)
    except struct.error:  # a text, a value that is not defined
        return ascii(column).encode()


def _covered(row: Row) -> Row:
    return {
        name: value + 0.0 if isinstance(value, float) else value
        for name, value in row.items()
        if value is not None and name not in _NOT_COVERED
    }


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
