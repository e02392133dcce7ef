"""Tidy tables for other programs: CSV or Parquet, complete or not there at all."""

import contextlib
import csv
import importlib
import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Boolean, Connection, Float, Integer, Select
from sqlalchemy.types import TypeEngine

from pfa_cli.errors import PfaError, UsageError
from pfa_cli.store.engine import Store
from pfa_cli.store.schema import Real, UtcTime
from pfa_cli.store.tables import table

_ROWS_AT_ONCE = 10_000

Writer = Callable[[Connection, Select[tuple[Any, ...]], Path], int]


def export(store: Store, name: str, out: Path) -> int:
    """Writes the tidy table ``name`` (``tables.TABLES``) to ``out``; its number of rows.

    The suffix of ``out`` says how: ``.csv`` or ``.parquet``. In a CSV a value that is not defined is empty,
    and one that came out as NaN is ``nan``; Parquet has null and NaN. Times are in UTC; settings are JSON.

    Raises UsageError for an unknown table or suffix, PfaError if Parquet or the file cannot be written.
    """
    query = table(name)
    write = _writer(out)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        rows = store.read(lambda connection: write(connection, query, partial))
        partial.replace(out)
    except OSError as error:
        reason = error.strerror or error
        raise PfaError(
            f"cannot write {out} ({reason}). Name a file in a folder where you may write."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return rows


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


def _write_csv(connection: Connection, query: Select[tuple[Any, ...]], path: Path) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(column.name for column in query.selected_columns)
        for row in connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query):
            lines.writerow([_plain(value) for value in row])
            count += 1
    return count


def _write_parquet(connection: Connection, query: Select[tuple[Any, ...]], path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet

    schema = pa.schema([(column.name, _arrow_type(column.type)) for column in query.selected_columns])
    count = 0
    with pyarrow.parquet.ParquetWriter(path, schema) as file:
        for rows in connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query).partitions():
            columns = [[_json(value) for value in column] for column in zip(*rows, strict=True)]
            arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
            file.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(rows)
    return count


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else _json(value)


def _json(value: object) -> object:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value


def _arrow_type(kind: TypeEngine[Any]) -> Any:
    import pyarrow as pa

    if isinstance(kind, Real | Float):
        return pa.float64()
    if isinstance(kind, Boolean):
        return pa.bool_()
    if isinstance(kind, Integer):
        return pa.int64()
    return pa.timestamp("us", tz="UTC") if isinstance(kind, UtcTime) else pa.string()
