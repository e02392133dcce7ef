"""The tables of the results database. Their names and columns are those of the exported tables.

Units stand in the column names; angles are in degrees, accuracies in percent, times in UTC. How to change the
schema is said in ``migrations/__init__.py``.
"""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect

SCHEMA_REVISION = "0002"
"""The newest revision in ``migrations/versions``; a current database opens without alembic."""


class Real(TypeDecorator[float]):
    """A float that keeps NaN, infinity and None apart.

    SQLite would store NaN as NULL, so there NaN is the text 'nan' (``typeof(column) = 'text'`` finds it).
    """

    impl = Double
    cache_ok = True

    # Replaced, not extended: the processors of Double would turn the text back into a float.
    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        return _to_sqlite if dialect.name == "sqlite" else _to_float

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], float | None]:
        return _to_float


def _to_float(value: float | str | None) -> float | None:
    return None if value is None else float(value)


def _to_sqlite(value: float | None) -> float | str | None:
    number = _to_float(value)
    return "nan" if number is not None and math.isnan(number) else number


class UtcTime(TypeDecorator[datetime]):
    """A moment, stored in UTC without zone and read back as UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


Json = JSON(none_as_null=True)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("recipe", String, nullable=False),
    Column("algorithm", String, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("config_hash", String, nullable=False),
    Column("configuration", Json, nullable=False),
    Column("dataset", String),
    Column("state", String, nullable=False),  # queued, running, done, failed, interrupted
    Column("token", String),  # who owns the run while it is running; every write checks it
    Column("host", String),
    Column("pid", Integer),
    Column("process_started", Real),  # with the pid it identifies a process of that host (owner.py)
    Column("heartbeat_at", UtcTime),
    Column("epochs_total", Integer, nullable=False),
    Column("epochs_done", Integer),  # None: not even epoch 0, the network at initialisation, is there
    Column("diverged_epoch", Integer),
    Column("checkpoint", String),
    Column("error", String),
    Column("created_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("finished_at", UtcTime),
    Column("pid_namespace", String),  # in which ``pid`` counts: containers of one host may share host names
    Column("checkpoint_dir", String),  # None: the default folder beside the database
    Column("sources", Json),  # the user's plug-in files that the run used: file name -> text
    UniqueConstraint("recipe", "algorithm", "seed", "config_hash"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("token", String, nullable=False),
    Column("host", String),
    Column("pid", Integer),
    Column("git_sha", String),
    Column("git_dirty", Boolean),
    Column("argv", Json),
    Column("pfa_version", String),
    Column("python_version", String),
    Column("torch_version", String),
    Column("cuda_version", String),
    Column("device", String),
    Column("threads", Integer),
    Column("precision", String),
    Column("deterministic", Json),
    Column("dataset", String),
    Column("resumed_epoch", Integer),  # epochs done when the attempt began; None: from the start
    Column("facts", Json),  # whatever else the worker knew
    Column("started_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("outcome", String),  # done, failed, interrupted; stale: found dead by the next attempt
    Index(None, "run_id"),
)

epochs = Table(
    "epochs",
    metadata,
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("attempt_id", ForeignKey("attempts.id")),
    Column("learning_rate", Real),
    Column("weight_decay", Real),
    Column("train_loss", Real),
    Column("train_accuracy_percent", Real),
    Column("validation_loss", Real),
    Column("validation_accuracy_percent", Real),
    Column("validation_top5_accuracy_percent", Real),
    Column("test_loss", Real),
    Column("test_accuracy_percent", Real),
    Column("test_top5_accuracy_percent", Real),
    Column("seconds", Real),
    Column("images_per_second", Real),
    Column("diverged", Boolean, nullable=False),
    Column("checksum", String),  # of the epoch and its layers; None in rows from before there were checksums
    sqlite_with_rowid=False,
)

layers = Table(
    "layers",
    metadata,
    Column("run_id", Integer, primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("layer_index", Integer, primary_key=True),
    Column("layer", String, nullable=False),
    Column("weight_norm", Real, nullable=False),
    Column("weight_angle_degrees", Real),
    Column("weight_norm_ratio", Real),
    Column("path_angle_degrees", Real),
    Column("path_norm_ratio", Real),
    Column("error_angle_degrees", Real),
    ForeignKeyConstraint(["run_id", "epoch"], ["epochs.run_id", "epochs.epoch"], ondelete="CASCADE"),
    sqlite_with_rowid=False,
)

simulations = Table(
    "simulations",
    metadata,
    Column("kind", String, primary_key=True),  # what was simulated: "eigenvalues" or "path"
    Column("parameters_hash", String, primary_key=True),
    Column("quantity", String, primary_key=True),  # with its unit: "eigenvalue_max", "path_angle_degrees"
    Column("item", Integer, primary_key=True),  # which of several values
    Column("parameters", Json, nullable=False),
    Column("value", Real),
    Column("created_at", UtcTime, nullable=False),
)

benchmarks = Table(
    "benchmarks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("machine", Json, nullable=False),
    Column("recipe", String, nullable=False),
    Column("measure", String, nullable=False),
    Column("algorithm", String),
    Column("value", Real),
    Column("unit", String, nullable=False),
    Column("created_at", UtcTime, nullable=False),
)
