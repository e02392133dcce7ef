"""Tidy tables for other programs: CSV or Parquet, complete or not there at all."""

import csv
import importlib
import io
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import ColumnElement, Connection, Select

from pfa_cli import files
from pfa_cli.errors import PfaError, UsageError
from pfa_cli.store.engine import Store
from pfa_cli.store.schema import METRICS, kind_of
from pfa_cli.store.tables import table

_ROWS_AT_ONCE = 10_000

Writer = Callable[[Connection, str, Select[tuple[Any, ...]], BinaryIO], int]


def export(store: Store, name: str, out: Path) -> int:
    """Writes the tidy table ``name`` (``tables.TABLES``) to ``out``; its number of rows.

    The suffix of ``out`` says how: ``.csv`` or ``.parquet``. In a CSV a value that is not defined is empty,
    and one that came out as NaN is ``nan``; a text that begins with = + - or @, which spreadsheets would compute, has
    an apostrophe before it. Parquet has null and NaN, and label and unit of every metric in its schema. Times are in
    UTC; settings are JSON.

    Raises UsageError for an unknown table or suffix, PfaError if Parquet or the file cannot be written.
    """
    query = table(name)
    write = _writer(out)

    def write_all(connection: Connection) -> int:
        with files.replacing(out) as file:
            return write(connection, name, query, file)

    try:
        files.refuse_special(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        return store.read(write_all)
    except OSError as error:
        reason = error.strerror or error
        raise PfaError(
            f"cannot write {out} ({reason}). Name a file in a folder where you may write."
        ) from error


def _writer(out: Path) -> Writer:
    if out.suffix == ".csv":
        return _write_csv
    if out.suffix != ".parquet":
        raise UsageError(f"the name of {out} must end in .csv or .parquet; it says how to write the table.")
    try:
        importlib.import_module("pyarrow")
    except ImportError as error:
        raise PfaError(
            "Parquet needs pyarrow: `pip install pyarrow`, or name a file that ends in .csv."
        ) from error
    return _write_parquet


def _write_csv(connection: Connection, name: str, query: Select[tuple[Any, ...]], file: BinaryIO) -> int:
    count = 0
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(column.name for column in query.selected_columns)
    for row in connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query):
        lines.writerow([_cell(value) for value in row])
        count += 1
    text.detach()
    return count


def _write_parquet(connection: Connection, name: str, query: Select[tuple[Any, ...]], file: BinaryIO) -> int:
    import pyarrow as pa
    import pyarrow.parquet

    schema = pa.schema([_arrow_field(name, column) for column in query.selected_columns])
    count = 0
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for rows in connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query).partitions():
            columns = [[_json(value) for value in column] for column in zip(*rows, strict=True)]
            arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(rows)
    return count


def _cell(value: object) -> object:
    """A value as CSV has it. A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return _json(value)


def _json(value: object) -> object:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value


def _arrow_field(table: str, column: ColumnElement[Any]) -> Any:
    """The column with what is known of it: label and unit of a metric, as the file's metadata."""
    import pyarrow as pa

    kinds = {float: pa.float64(), bool: pa.bool_(), int: pa.int64(), datetime: pa.timestamp("us", tz="UTC")}
    metric = METRICS.get((table, str(column.key)))
    known = {name: text for name, text in metric.metadata.items() if text} if metric else None
    return pa.field(column.key, kinds.get(kind_of(column.type), pa.string()), metadata=known)
