"""What others ask of the results database: light rows for status and plans, tidy frames for the figures.

pandas is imported only where a frame is made. In a frame None (not defined) and NaN (came out as NaN) are
both NaN; ``export`` keeps them apart, and ``diverged`` says which epochs it concerns.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Dialect, Select, Table, and_, func, select, true

from pfa_cli.store import checksums, schema
from pfa_cli.store.engine import Store
from pfa_cli.store.schema import attempts, epochs, kind_of
from pfa_cli.store.tables import KEY, table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RunRow:
    """One run as ``pfa status`` and the plan see it. Times are in UTC; what was not measured is None.

    ``state`` is what is stored: a running cell whose process is gone still says "running" here.
    """

    id: int
    recipe: str
    algorithm: str
    seed: int
    config_hash: str
    configuration: dict[str, Any]
    dataset: str | None
    state: str
    host: str | None
    pid: int | None
    process_started: float | None
    heartbeat_at: datetime | None
    epochs_total: int
    epochs_done: int | None
    diverged_epoch: int | None
    checkpoint: str | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    pid_namespace: str | None
    checkpoint_dir: str | None
    tags: list[str] | None  # the user's
    note: str | None
    token: str | None
    job: dict[str, Any] | None  # see `pfa_cli.store.owner.Job`
    train_loss: float | None  # of the last stored epoch, as are the following three
    train_accuracy_percent: float | None
    validation_accuracy_percent: float | None
    test_accuracy_percent: float | None
    epochs_measured: int  # trained epochs whose time is known
    seconds_per_epoch: float | None  # mean over those
    images_per_second: float | None  # in the last stored epoch


_OF_THE_LAST_EPOCH = ["train_loss", "train_accuracy_percent", "validation_accuracy_percent"]
_OF_THE_LAST_EPOCH += ["test_accuracy_percent", "images_per_second"]


def runs(store: Store, recipe: str | None = None, timed_on: str | None = None) -> list[RunRow]:
    """All runs (of one recipe), in the order recipe, algorithm, seed, then age.

    ``timed_on``: "cpu" or "cuda"; the mean time of an epoch is then of the epochs trained on such a device only.
    """
    condition = [schema.runs.c.recipe == recipe] if recipe else []
    return store.read(lambda connection: select_runs(connection, *condition, timed_on=timed_on))


def select_runs(
    connection: Connection,
    *conditions: ColumnElement[bool],
    lock: bool = False,
    timed_on: str | None = None,
) -> list[RunRow]:
    """The runs that meet the conditions. ``lock``: other writers wait (SQLite's are waiting already).

    ``timed_on``: see `runs`.
    """
    on_device: ColumnElement[bool] = true()
    if timed_on is not None:
        gpu = attempts.c.cuda_version.is_not(None)
        there = select(attempts.c.id).where(gpu if timed_on == "cuda" else ~gpu)
        on_device = epochs.c.attempt_id.in_(there)
    last = and_(epochs.c.run_id == schema.runs.c.id, epochs.c.epoch == schema.runs.c.epochs_done)
    timed = and_(epochs.c.epoch > 0, epochs.c.seconds.is_not(None), on_device)
    times = (
        select(
            epochs.c.run_id,
            func.count().label("epochs_measured"),
            func.avg(epochs.c.seconds).label("seconds_per_epoch"),
        )
        .where(timed)
        .group_by(epochs.c.run_id)
        .subquery()
    )
    query = (
        select(
            schema.runs,
            *(epochs.c[name] for name in _OF_THE_LAST_EPOCH),
            func.coalesce(times.c.epochs_measured, 0).label("epochs_measured"),
            times.c.seconds_per_epoch,
        )
        .select_from(schema.runs.outerjoin(epochs, last).outerjoin(times, times.c.run_id == schema.runs.c.id))
        .where(*conditions)
        .order_by(schema.runs.c.recipe, schema.runs.c.algorithm, schema.runs.c.seed, schema.runs.c.id)
    )
    if lock:
        query = query.with_for_update(of=schema.runs)
    wanted = [field.name for field in fields(RunRow)]
    return [RunRow(**{name: row[name] for name in wanted}) for row in connection.execute(query).mappings()]


def trained_on(store: Store, ids: Iterable[int]) -> dict[int, str]:
    """The images, in words, on which the last stored epoch of each of these runs was trained, where that is known."""
    of_runs = schema.runs
    last = and_(epochs.c.run_id == of_runs.c.id, epochs.c.epoch == of_runs.c.epochs_done)
    query = (
        select(of_runs.c.id, attempts.c.dataset)
        .join(epochs, last)
        .join(attempts, attempts.c.id == epochs.c.attempt_id)
        .where(attempts.c.dataset.is_not(None))
    )
    wanted = set(ids)
    found = store.read(lambda connection: connection.execute(query).all())
    return {run_id: dataset for run_id, dataset in found if run_id in wanted}


def plugin_sources(store: Store) -> list[str]:
    """The texts of the plug-ins' files that are stored with runs; the one that was run last is the last."""
    runs = schema.runs.c
    wanted = (
        select(runs.sources).where(runs.sources.is_not(None)).order_by(runs.created_at.desc(), runs.id.desc())
    )
    found = store.read(lambda connection: connection.execute(wanted).scalars().all())
    newest_first = dict.fromkeys(text for each in found for text in each.values() if isinstance(text, str))
    return list(newest_first)[::-1]


def runs_frame(store: Store, recipe: str | None = None) -> "pd.DataFrame":
    """One row per run: key, configuration (a dict), state, epochs, when and where."""
    return _frame(store, table("runs", recipe))


def epochs_frame(store: Store, recipe: str | None = None) -> "pd.DataFrame":
    """One row per run and epoch: key, epoch, and the values of ``EpochRecord``."""
    return _frame_of_epochs(store, schema.epochs, recipe)


def layers_frame(store: Store, recipe: str | None = None) -> "pd.DataFrame":
    """One row per run, epoch and layer: key, epoch, layer_index, layer, and the values of ``LayerRecord``."""
    return _frame_of_epochs(store, schema.layers, recipe)


def attempts_frame(store: Store, recipe: str | None = None) -> "pd.DataFrame":
    """One row per attempt at a run: key, versions, device, when it began and how it ended."""
    return _frame(store, table("attempts", recipe))


def simulations_frame(store: Store, kind: str | None = None) -> "pd.DataFrame":
    """One row per simulated value: kind, quantity, item, value, and a column for each parameter."""
    import pandas as pd

    frame = _frame(store, table("simulations"))
    if kind is not None:
        frame = frame[frame["kind"] == kind].reset_index(drop=True)
    parameters = pd.DataFrame(frame.pop("parameters").tolist(), index=frame.index)
    return pd.concat([frame, parameters], axis="columns")


def _frame(store: Store, query: Select[tuple[Any, ...]]) -> "pd.DataFrame":
    rows = store.read(lambda connection: _verified(store, connection).execute(query).all())
    return _of_columns(query.selected_columns, list(zip(*rows, strict=True)))


def _frame_of_epochs(store: Store, of: Table, recipe: str | None) -> "pd.DataFrame":
    """The tidy table of epochs or layers, which has many rows: what all rows of a run share is read once."""
    import pandas as pd

    own = [of.c.run_id, *table(of.name).selected_columns[len(KEY) :]]
    query = table("runs", recipe)
    query = query.with_only_columns(*query.selected_columns[: len(KEY)])

    def read(connection: Connection) -> tuple[list[Any], list[Any]]:
        of_runs = list(zip(*_verified(store, connection).execute(query), strict=True))
        names, run_ids = [column.name for column in own], of_runs[0] if of_runs else ()
        values = zip(*checksums.stored_values(connection, of, names, run_ids), strict=True)
        checked = [
            _checked(column, each, connection.dialect) for column, each in zip(own, values, strict=False)
        ]
        return of_runs, checked

    of_runs, values = store.read(read)
    keys, frame = _of_columns(query.selected_columns, of_runs), _of_columns(own, values)
    rows_of_keys = keys["run_id"].searchsorted(frame.pop("run_id"))
    return pd.concat([keys.iloc[rows_of_keys].reset_index(drop=True), frame], axis="columns")


def _of_columns(columns: Iterable[ColumnElement[Any]], values: list[Sequence[Any]]) -> "pd.DataFrame":
    """``values``: of each column; none at all where there is no row."""
    import pandas as pd

    whole = zip(columns, values or itertools.repeat(()), strict=False)
    return pd.DataFrame({column.name: pd.Series(each, dtype=_dtype(column)) for column, each in whole})


def _checked(column: Any, values: Sequence[Any], dialect: Dialect) -> Sequence[Any]:
    """Stored values in Python, checked by the column's type: all at once where they are what they should be."""
    kind = kind_of(column.type)
    if kind in (float, str) and {*map(type, values)} <= {kind, type(None) if column.nullable else kind}:
        return values
    check: Any = column.type.result_processor(dialect, None)
    return [*map(check, values)]


def _verified(store: Store, connection: Connection) -> Connection:
    """``connection``, once the numbers of a database that is only read match their checksums: 10 µs a layer."""
    if not store.writable and not store.verified:
        checksums.verify(connection)
        store.verified = True
    return connection


def _dtype(column: ColumnElement[Any]) -> str:
    nullable = getattr(getattr(column, "element", column), "nullable", True)
    kind = kind_of(column.type)
    if kind is bool:
        return "boolean" if nullable else "bool"
    if kind is int:
        return "Int64" if nullable else "int64"
    return {float: "float64", datetime: "datetime64[us, UTC]"}.get(kind, "object")
