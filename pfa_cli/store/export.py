"""Tidy tables for other programs: CSV, Parquet or TensorBoard's files, complete or not there at all."""

import csv
import importlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import ColumnElement, Connection

from pfa_cli import files
from pfa_cli.errors import PfaError, UsageError, unknown
from pfa_cli.store.engine import Store
from pfa_cli.store.schema import METRICS, kind_of
from pfa_cli.store.tables import is_of_runs, settings, table

FORMS = ("csv", "parquet")
_ROWS_AT_ONCE = 10_000


class Rows:
    """A tidy table as it is exported: the columns of its query, then the settings of the run that a row is about."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.name, self._connection, self._query = name, connection, table(name)
        self.columns = list(self._query.selected_columns)
        self._settings = settings(connection) if is_of_runs(name) else None
        self.setting_names = self._settings.names if self._settings else ()

    def parts(self) -> Iterator[list[tuple[Any, ...]]]:
        """The rows, some thousands at a time."""
        found = self._connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(self._query)
        for rows in found.partitions():
            if self._settings is None:
                yield [tuple(row) for row in rows]
            else:
                yield [(*row, *self._settings.values[row[0]]) for row in rows]

    def kind_of_setting(self, name: str) -> type:
        """The one type of a setting's values; text where they have several."""
        assert self._settings is not None
        position = self.setting_names.index(name)
        kinds = {type(values[position]) for values in self._settings.values.values()} - {type(None)}
        return float if kinds == {int, float} else kinds.pop() if len(kinds) == 1 else str


Writer = Callable[[Rows, BinaryIO], int]


def export(store: Store, name: str, out: Path | BinaryIO, form: str | None = None) -> int:
    """Writes the tidy table ``name`` (``tables.TABLES``) to ``out``, a file to be made or one that is open; its number of rows.

    ``form`` is "csv" or "parquet"; by default the suffix of ``out`` says it. A table about runs has their settings as its last
    columns. In a CSV a value that is not defined is empty, and one that came out as NaN is ``nan``; a text that begins with
    = + - or @, which spreadsheets would compute, has an apostrophe before it. Parquet has null and NaN, and label and unit of
    every metric in its schema. Times are in UTC; lists and the whole configuration are JSON.

    Raises UsageError for an unknown table or suffix, PfaError if Parquet or the file cannot be written.
    """
    table(name)
    write = _writer(out, form)

    def write_whole(file: BinaryIO) -> int:
        def write_all(connection: Connection) -> int:
            file.seek(0)
            file.truncate()  # the reading may have to be repeated
            return write(Rows(connection, name), file)

        return store.read(write_all)

    if not isinstance(out, Path):
        with tempfile.TemporaryFile() as whole:
            count = write_whole(whole)
            whole.seek(0)
            shutil.copyfileobj(whole, out)
        return count
    try:
        files.refuse_special(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(out) as file:
            return write_whole(file)
    except OSError as error:
        reason = error.strerror or error
        raise PfaError(
            f"cannot write {out} ({reason}). Name a file in a folder where you may write."
        ) from error


def _writer(out: Path | BinaryIO, form: str | None) -> Writer:
    if form is None and isinstance(out, Path):
        form = out.suffix.removeprefix(".")
        if form not in FORMS:
            raise UsageError(
                f"the name of {out} must end in .csv or .parquet; it says how to write the table."
            )
    if form not in FORMS:
        raise unknown("form", str(form), (*FORMS, "tensorboard"))
    if form == "csv":
        return _write_csv
    try:
        importlib.import_module("pyarrow")
    except ImportError as error:
        raise PfaError(
            "Parquet needs pyarrow: `pip install pyarrow`, or name a file that ends in .csv."
        ) from error
    return _write_parquet


def _write_csv(rows: Rows, file: BinaryIO) -> int:
    count = 0
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow([*(column.name for column in rows.columns), *rows.setting_names])
    for part in rows.parts():
        lines.writerows([_cell(value) for value in row] for row in part)
        count += len(part)
    text.detach()
    return count


def _write_parquet(rows: Rows, file: BinaryIO) -> int:
    import pyarrow as pa
    import pyarrow.parquet

    schema = pa.schema(
        [_arrow_field(rows.name, column) for column in rows.columns]
        + [pa.field(name, _arrow_type(rows.kind_of_setting(name))) for name in rows.setting_names]
    )
    count = 0
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for part in rows.parts():
            arrays = [
                pa.array([*map(_text, column)] if kind == pa.string() else column, kind)
                for column, kind in zip(zip(*part, strict=True), schema.types, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(part)
    return count


def is_formula(value: object) -> bool:
    """Whether a spreadsheet would compute it: then it has an apostrophe before it in a CSV file."""
    return isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))


def _cell(value: object) -> object:
    """A value as CSV has it."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict | list):
        return _text(value)
    return f"'{value}" if is_formula(value) else value


def _text(value: object) -> str | None:
    return value if isinstance(value, str | None) else json.dumps(value, sort_keys=True)


def _arrow_type(kind: type) -> Any:
    import pyarrow as pa

    kinds = {float: pa.float64(), bool: pa.bool_(), int: pa.int64(), datetime: pa.timestamp("us", tz="UTC")}
    return kinds.get(kind, pa.string())


def _arrow_field(table: str, column: ColumnElement[Any]) -> Any:
    """The column with what is known of it: label and unit of a metric, as the file's metadata."""
    import pyarrow as pa

    metric = METRICS.get((table, str(column.key)))
    known = {name: text for name, text in metric.metadata.items() if text} if metric else None
    return pa.field(column.key, _arrow_type(kind_of(column.type)), metadata=known)
