"""The tables of the results database. Their names and columns are those of the exported tables.

Units stand in the column names; angles are in degrees, accuracies in percent, times in UTC. How to change the
schema is said in ``migrations/__init__.py``. Every column says what it is (``doc``): docs/tables.md is made of that.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
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
    inspect,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from pfa_cli.records import EpochRecord, LayerRecord, is_required, metrics
from pfa_cli.store.errors import DamagedValue

SCHEMA_REVISION = "0002"
"""The newest revision in ``migrations/versions``; a current database opens without alembic."""


STATES = ("queued", "running", "done", "failed", "interrupted")
"""What ``runs.state`` may be. A merged database may hold a state of a newer pfa; it is shown as it is."""


class _Stored(TypeDecorator[Any]):
    """A column type that takes back only what pfa can have written; anything else is damage (DamagedValue)."""

    kind: type
    column = "a value"  # its name in messages, "runs.state"
    required = False
    raw = False  # whether ``accept`` gets a value as it is stored, and not what SQLAlchemy's type makes of it

    def accept(self, value: Any) -> Any:
        """The value in Python; ValueError or TypeError if pfa cannot have written it."""
        raise NotImplementedError

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        read = None if self.raw else self.impl_instance.result_processor(dialect, coltype)

        def process(value: Any) -> Any:
            if value is None:
                return self.empty(value)
            try:
                return self.accept(read(value) if read is not None else value)
            except (ValueError, TypeError, OverflowError, RecursionError):
                return self.empty(value)

        return process

    def empty(self, value: object) -> Any:
        """None where the column may be empty, and ``value`` says so; else DamagedValue."""
        if value is not None or self.required:
            raise DamagedValue(f"{self.column} is {value!r:.60}")
        return None


def kind_of(column_type: TypeEngine[Any]) -> type:
    """The type of a column's values in Python."""
    return column_type.kind if isinstance(column_type, _Stored) else float  # computed ones are floats


class Text(_Stored):
    """A text."""

    impl = String
    cache_ok = True
    kind = str

    def accept(self, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError
        return value


class Whole(_Stored):
    """A whole number from 0 to ``most``."""

    impl = Integer
    cache_ok = True
    kind = int

    def __init__(self, most: int = (1 << 63) - 1) -> None:
        super().__init__()
        self.most = most

    def accept(self, value: Any) -> int:
        if not isinstance(value, int) or not 0 <= value <= self.most:
            raise TypeError
        return value


class Flag(_Stored):
    """True or False."""

    impl = Boolean
    cache_ok = True
    kind = bool
    raw = True  # Boolean would take any number for True

    def accept(self, value: Any) -> bool:
        if value not in (0, 1):
            raise ValueError
        return bool(value)


class Real(_Stored):
    """A float that keeps NaN, infinity and None apart.

    SQLite would store NaN as NULL, so there NaN is the text 'nan' (``typeof(column) = 'text'`` finds it).
    """

    impl = Double
    cache_ok = True
    kind = float
    raw = True  # Double would turn the text back into a float

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        return _to_sqlite if dialect.name == "sqlite" else _to_float

    def accept(self, value: Any) -> float:
        if value == "nan":
            return math.nan
        if type(value) not in (float, int):
            raise TypeError
        return float(value)


def _to_float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _to_sqlite(value: float | None) -> float | str | None:
    number = _to_float(value)
    return "nan" if number is not None and math.isnan(number) else number


class UtcTime(_Stored):
    """A moment, stored in UTC without zone and read back as UTC."""

    impl = DateTime
    cache_ok = True
    kind = datetime

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def accept(self, value: Any) -> datetime:
        if not _FIRST_YEAR <= value.year <= _LAST_YEAR:
            raise ValueError
        return value.replace(tzinfo=UTC)


_FIRST_YEAR, _LAST_YEAR = 1970, 2900  # beyond, a change of the time zone could overflow


class Json(_Stored):
    """A dict or a list, as JSON."""

    impl = JSON
    cache_ok = True

    def __init__(self, kind: type = dict) -> None:
        super().__init__(none_as_null=True)
        self.kind = kind

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return self.impl_instance.coerce_compared_value(op, value)

    def accept(self, value: Any) -> Any:
        if not isinstance(value, self.kind):
            raise TypeError
        return value


class Arguments(Json):
    """A command's arguments, without the passwords of database URLs: not stored, and not shown if they were."""

    cache_ok = True

    def __init__(self) -> None:
        super().__init__(list)

    def process_bind_param(self, value: list[str] | None, dialect: Dialect) -> list[str] | None:
        return None if value is None else [without_password(each) for each in value]

    def accept(self, value: Any) -> list[str]:
        return [without_password(each) for each in super().accept(value)]


def without_password(text: str) -> str:
    """``text`` with *** for the password of every URL in it.

    >>> without_password("--db=postgresql://pfa:secret@host/results?sslpassword=x")
    '--db=postgresql://pfa:***@host/results?sslpassword=***'
    """
    text = re.sub(r"(://[^:/@\s]*:)\S*@", r"\1***@", text)
    return re.sub(
        r"([?&][^=&\s]*(?:pass|pwd|secret|token)[^=&\s]*=)[^&\s]*", r"\1***", text, flags=re.IGNORECASE
    )


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

MOST_EPOCHS = 1_000_000_000


def _columns(record: type) -> list[Column[Any]]:
    return [
        Column(each.name, Real, nullable=not is_required(each), doc=each.metadata["label"])
        for each in metrics(record)
    ]


runs = Table(
    "runs",
    metadata,
    Column("id", Whole, primary_key=True, doc="number of the run in this database"),
    Column("recipe", Text, nullable=False, doc="recipe that it belongs to"),
    Column("algorithm", Text, nullable=False, doc="learning algorithm"),
    Column("seed", Whole, nullable=False, doc="seed of weights, order of images and augmentation"),
    Column("config_hash", Text, nullable=False, doc="what identifies the settings: 16 hex digits"),
    Column("configuration", Json, nullable=False, doc="all settings, as JSON"),
    Column("dataset", Text, doc="the images it trained on, in words"),
    Column("state", Text, nullable=False, doc="queued, running, done, failed or interrupted"),
    Column("token", Text, doc="who owns the run while it is running; every write checks it"),
    Column("host", Text, doc="machine that works on it, or did so last"),
    Column("pid", Whole, doc="process there"),
    Column(
        "process_started",
        Real,
        doc="when that process started, by its host's clock; with the pid it identifies it (owner.py)",
    ),
    Column("heartbeat_at", UtcTime, doc="when it last gave a sign of life"),
    Column("epochs_total", Whole(MOST_EPOCHS), nullable=False, doc="epochs that it is to train"),
    Column(
        "epochs_done",
        Whole(MOST_EPOCHS),
        doc="epochs trained; empty: not even epoch 0, the network at initialisation, is there",
    ),
    Column("diverged_epoch", Whole(MOST_EPOCHS), doc="epoch in which the loss stopped being finite"),
    Column("checkpoint", Text, doc="name of its newest checkpoint"),
    Column("error", Text, doc="why it failed"),
    Column("created_at", UtcTime, nullable=False, doc="when it was planned"),
    Column("started_at", UtcTime, doc="when training began"),
    Column("finished_at", UtcTime, doc="when it ended"),
    Column(
        "pid_namespace", Text, doc="in which the pid counts, and on which machine: both may share host names"
    ),
    Column(
        "checkpoint_dir", Text, doc="folder of its checkpoints; empty: the default one beside the database"
    ),
    Column("sources", Json, doc="files of plug-ins that it used: name and text"),
    Column("tags", Json(list), doc="the user's words for the run (`pfa runs tag`)"),
    Column("note", Text, doc="the user's sentence about the run (`pfa runs note`)"),
    Column("job", Json, doc="Slurm's job of the process that works on it, or did so last (owner.py)"),
    UniqueConstraint("recipe", "algorithm", "seed", "config_hash"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Whole, primary_key=True, doc="number of the attempt in this database"),
    Column(
        "run_id",
        Whole,
        ForeignKey("runs.id", ondelete="CASCADE"),
        nullable=False,
        doc="run that was attempted",
    ),
    Column("token", Text, nullable=False, doc="by which the attempt owned the run"),
    Column("host", Text, doc="machine"),
    Column("pid", Whole, doc="process there"),
    Column("git_sha", Text, doc="commit of pfa"),
    Column("git_dirty", Flag, doc="whether pfa's files differed from that commit"),
    Column("argv", Arguments, doc="the command"),
    Column("pfa_version", Text, doc="version of pfa"),
    Column("python_version", Text, doc="version of Python"),
    Column("torch_version", Text, doc="version of torch"),
    Column("cuda_version", Text, doc="version of CUDA that torch was built with"),
    Column("device", Text, doc="device that trained"),
    Column("threads", Whole, doc="CPU threads of the process"),
    Column("precision", Text, doc="arithmetic of the network"),
    Column("deterministic", Json, doc="flags of determinism, as JSON"),
    Column("dataset", Text, doc="the images it trained on, in words"),
    Column(
        "resumed_epoch", Whole(MOST_EPOCHS), doc="epochs done when the attempt began; empty: from the start"
    ),
    Column("facts", Json, doc="whatever else the process knew of its machine, as JSON"),
    Column("started_at", UtcTime, nullable=False, doc="when the attempt began"),
    Column("ended_at", UtcTime, doc="when it ended"),
    Column("outcome", Text, doc="done, failed or interrupted; stale: found dead by the next attempt"),
    Column("job_id", Text, doc="Slurm's job; of a job array, the id of the array"),
    Column("array_task", Whole, doc="task of a job array"),
    Column("restart_count", Whole, doc="how often Slurm had requeued the job"),
    Column("node", Text, doc="Slurm's node"),
    Column("partition", Text, doc="Slurm's partition"),
    Column("ranks", Whole, doc="processes that trained the cell together"),
    Index(None, "run_id"),
)

epochs = Table(
    "epochs",
    metadata,
    Column("run_id", Whole, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True, doc="run"),
    Column(
        "epoch",
        Whole(MOST_EPOCHS),
        primary_key=True,
        doc="epochs trained; 0 is the network at initialisation",
    ),
    Column("attempt_id", Whole, ForeignKey("attempts.id"), doc="attempt that trained the epoch"),
    *_columns(EpochRecord),
    Column("diverged", Flag, nullable=False, doc="whether the loss was not finite"),
    Column(
        "checksum", Text, doc="of the epoch and its layers; empty in rows from before there were checksums"
    ),
    sqlite_with_rowid=False,
)

layers = Table(
    "layers",
    metadata,
    Column("run_id", Whole, primary_key=True, doc="run"),
    Column(
        "epoch",
        Whole(MOST_EPOCHS),
        primary_key=True,
        doc="epochs trained; 0 is the network at initialisation",
    ),
    Column(
        "layer_index", Whole(MOST_EPOCHS), primary_key=True, doc="place of the layer in the network, from 0"
    ),
    Column("layer", Text, nullable=False, doc="name of the layer"),
    *_columns(LayerRecord),
    ForeignKeyConstraint(["run_id", "epoch"], ["epochs.run_id", "epochs.epoch"], ondelete="CASCADE"),
    sqlite_with_rowid=False,
)

simulations = Table(
    "simulations",
    metadata,
    Column("kind", Text, primary_key=True, doc='what was simulated: "eigenvalues" or "path"'),
    Column("parameters_hash", Text, primary_key=True, doc="what identifies the parameters"),
    Column(
        "quantity",
        Text,
        primary_key=True,
        doc='what was found, with its unit: "eigenvalue_max", "path_angle_degrees"',
    ),
    Column("item", Whole, primary_key=True, doc="which of several values"),
    Column("parameters", Json, nullable=False, doc="parameters of the simulation, as JSON"),
    Column("value", Real, doc="value"),
    Column("created_at", UtcTime, nullable=False, doc="when it was computed"),
    Column("checksum", Text, doc="of the row"),
)

benchmarks = Table(
    "benchmarks",
    metadata,
    Column("id", Whole, primary_key=True, doc="number of the measurement in this database"),
    Column("machine", Json, nullable=False, doc="machine and versions, as JSON"),
    Column("recipe", Text, nullable=False, doc="recipe whose step was timed"),
    Column("measure", Text, nullable=False, doc="what was measured"),
    Column("algorithm", Text, doc="learning algorithm; empty for what has none"),
    Column("value", Real, doc="value"),
    Column("unit", Text, nullable=False, doc="unit of the value"),
    Column("created_at", UtcTime, nullable=False, doc="when it was measured"),
    Column("checksum", Text, doc="of the row"),
)


METRICS = {
    (table.name, metric.name): metric
    for table, record in ((epochs, EpochRecord), (layers, LayerRecord))
    for metric in metrics(record)
}
"""The metrics by table and column, with label and unit in their ``metadata``."""

for _column in (column for table in metadata.tables.values() for column in table.columns):
    assert isinstance(_column.type, _Stored)
    _column.type.column = str(_column)
    _column.type.required = not _column.nullable


def add_missing_columns(connection: Connection) -> None:
    """Adds the columns that a table lacks and that may be empty. DamagedValue if the database lacks anything else."""
    there = inspect(connection).get_multi_columns()
    for table in metadata.tables.values():
        if (None, table.name) not in there:
            raise DamagedValue(f"it lacks the table {table.name}")
        names = {column["name"] for column in there[None, table.name]}
        for column in table.columns:
            if column.name not in names and not column.nullable:
                raise DamagedValue(f"its table {table.name} lacks the column {column.name}")
            if column.name not in names:
                kind = column.type.compile(connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")
