"""Everything that writes to the results database. Each function is one transaction: all of it, or nothing.

A run's life: ``ensure_run`` (queued) → ``claim`` (running, owned by a token) → ``start_attempt`` →
``record_epoch`` … → ``finish`` (done, failed or interrupted). Every later write checks the claim's token and
raises LostCell when the run belongs to another by then.
"""

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Table, and_, case, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from pfa_cli.records import EpochRecord, LayerRecord
from pfa_cli.store import checksums
from pfa_cli.store.engine import Store
from pfa_cli.store.errors import LostCell, StoreError
from pfa_cli.store.owner import Owner
from pfa_cli.store.queries import RunRow, select_runs
from pfa_cli.store.schema import STATES, attempts, benchmarks, epochs, layers, runs, simulations
from pfa_cli.store.server import lock_table

if TYPE_CHECKING:
    from pfa_cli.configuration import Configuration

P = ParamSpec("P")
T = TypeVar("T")

_OF_THE_STORE = {"id", "run_id", "token", "host", "pid", "resumed_epoch", "facts"}
_OF_THE_STORE |= {"started_at", "ended_at", "outcome"}
_OF_A_JOB = ("job_id", "array_task", "restart_count", "node", "partition")
_ATTEMPT_FACTS = tuple(column.name for column in attempts.c if column.name not in _OF_THE_STORE)


def _patient(function: Callable[Concatenate[Store, P], T]) -> Callable[Concatenate[Store, P], T]:
    """``function``, which is one transaction, repeated while the database's server is away (see ``Store.insist``)."""

    @wraps(function)
    def call(store: Store, *args: P.args, **kwargs: P.kwargs) -> T:
        return store.insist(lambda: function(store, *args, **kwargs))

    return call


@dataclass(frozen=True)
class Claim:
    """The right to work on a run: its id, and the token that every later write checks."""

    run_id: int
    token: str
    owner: Owner
    epochs_done: int | None  # when it was claimed
    checkpoint: str | None  # the one that the last stored epoch named
    checkpoint_dir: str | None  # the folder of the checkpoints of all cells; None: beside the database
    cell_checksum: str  # see ``checksums.of_cell``
    claimed_at: datetime = field(default_factory=lambda: _now())
    _clock: float = field(default_factory=lambda: _clock())

    def now(self) -> datetime:
        """The time of day when it was claimed, plus the seconds since then by a clock that setting the time does not move.

        For the ends of intervals only: others compare a heartbeat with their own time of day.
        """
        return self.claimed_at + timedelta(seconds=_clock() - self._clock)


@_patient
def ensure_run(store: Store, configuration: "Configuration", seed: int) -> int:
    """The id of the run of ``configuration`` with ``seed``, which is queued if it is new."""
    cell = {
        "recipe": configuration.recipe,
        "algorithm": configuration.algorithm,
        "seed": seed,
        "config_hash": configuration.hash,
    }
    wanted = select(runs.c.id).where(*(runs.c[name] == value for name, value in cell.items()))
    found: int | None = store.read(lambda connection: connection.execute(wanted).scalar())
    if found is not None:
        return found
    row = cell | {
        "configuration": configuration.model_dump(mode="json"),
        "sources": configuration.source_texts,
        "dataset": configuration.dataset,
        "state": "queued",
        "epochs_total": configuration.epochs,
        "created_at": _now(),
    }
    try:
        with store.write() as connection:
            there: int | None = connection.execute(wanted).scalar()  # another worker was faster
            if there is not None:
                return there
            return int(connection.execute(insert(runs).values(row).returning(runs.c.id)).scalar_one())
    except IntegrityError:  # one that came in between, which SQLite's lock excludes
        return int(store.read(lambda connection: connection.execute(wanted).scalar_one()))


def dead_owners(
    store: Store, ids: Sequence[int], is_alive: Callable[[RunRow], bool]
) -> set[tuple[str | None, datetime | None]]:
    """Token and last heartbeat of those who worked on the runs and are dead.

    ``is_alive`` is asked only about runs that are running, and in no transaction, as it may have to ask Slurm.
    """
    rows = store.read(lambda connection: select_runs(connection, runs.c.id.in_(ids)))
    return {(row.token, row.heartbeat_at) for row in rows if row.state == "running" and not is_alive(row)}


@_patient
def claim(store: Store, run_id: int, owner: Owner, *, is_alive: Callable[[RunRow], bool]) -> Claim | None:
    """Makes ``owner`` the one who works on the run; None if it is done, running and alive, or in an unknown state.

    ``is_alive``: see `dead_owners`. An owner who gave a sign of life since then is alive. An attempt that is found dead
    ends with the outcome "stale", at its last heartbeat. Raises LostCell if there is no such run any more.
    """
    dead = dead_owners(store, [run_id], is_alive)
    with store.write() as connection:
        rows = select_runs(connection, runs.c.id == run_id, lock=True)
        if not rows:
            raise LostCell(f"run {run_id} is no longer in the database")
        (row,) = rows
        if row.state == "done" or row.state not in STATES:
            return None
        if row.state == "running" and (row.token, row.heartbeat_at) not in dead:
            return None
        _end_attempt(connection, run_id, "stale", row.heartbeat_at)  # or one that was merged before it ended
        now, token = _now(), secrets.token_hex(8)
        connection.execute(
            update(runs)
            .where(runs.c.id == run_id)
            .values(
                state="running",
                token=token,
                host=owner.host,
                pid=owner.pid,
                pid_namespace=owner.pid_namespace,
                process_started=owner.process_started,
                job=owner.job and vars(owner.job),
                heartbeat_at=now,
                started_at=row.started_at or now,
                finished_at=None,
                error=None,
            )
        )
        cell = checksums.of_cell(vars(row))
        return Claim(run_id, token, owner, row.epochs_done, row.checkpoint, row.checkpoint_dir, cell, now)


@_patient
def set_checkpoint_dir(store: Store, run_id: int, folder: str) -> None:
    """Stores in which folder the run's checkpoints lie."""
    with store.write() as connection:
        connection.execute(update(runs).where(runs.c.id == run_id).values(checkpoint_dir=folder))


@_patient
def start_attempt(store: Store, claim: Claim, facts: Mapping[str, Any]) -> int:
    """Stores what this attempt at the run runs on; its id.

    Facts with a column of ``attempts`` go there, all others into its column ``facts``.
    """
    with store.write() as connection:
        _update_own(connection, claim, heartbeat_at=_now())
        row = {
            "run_id": claim.run_id,
            "token": claim.token,
            "host": claim.owner.host,
            "pid": claim.owner.pid,
            "resumed_epoch": claim.epochs_done,
            "started_at": claim.now(),
            "facts": {name: value for name, value in facts.items() if name not in _ATTEMPT_FACTS} or None,
        } | {name: facts.get(name) for name in _ATTEMPT_FACTS}
        if claim.owner.job:
            row |= {name: getattr(claim.owner.job, name) for name in _OF_A_JOB}
        there: int | None = connection.execute(
            select(attempts.c.id).where(attempts.c.token == claim.token)
        ).scalar()
        if there is not None:  # stored, but the answer was lost
            return there
        return int(connection.execute(insert(attempts).values(row).returning(attempts.c.id)).scalar_one())


def record_epoch(
    store: Store, claim: Claim, record: EpochRecord, checkpoint: str | None = None, *, wait: bool = True
) -> None:
    """Stores an epoch with its layers, and the name of the checkpoint saved after it (None: keep the old).

    ``wait``: for a server that is away (see ``Store.insist``); else raises ServerLost after two seconds.

    Epochs from this one on that are there already come from an attempt that went further than the checkpoint
    it left; they are replaced, so that a run's epochs are always those of one training. StoreError if the epoch before is
    missing: the run would keep a gap for ever.
    """
    e = record.epoch
    known = runs.c.diverged_epoch
    diverged = case((known < e, known), else_=e if record.diverged else None)
    changes: dict[str, Any] = {"heartbeat_at": _now(), "epochs_done": e, "diverged_epoch": diverged}
    if checkpoint is not None:
        changes["checkpoint"] = checkpoint
    epoch_row = {"epoch": e} | _measured(epochs, record, but=("epoch", "layers"))
    layer_rows = [
        {"epoch": e, "layer_index": layer.index, "layer": layer.name}
        | _measured(layers, layer, but=("index", "name"))
        for layer in sorted(record.layers, key=lambda layer: layer.index)
    ]
    checksum = checksums.of_epoch(claim.cell_checksum, epoch_row, layer_rows)

    def transaction() -> None:
        with store.write() as connection:
            own = select(runs.c.epochs_done).where(runs.c.id == claim.run_id)
            done = connection.execute(own).scalar()
            _update_own(connection, claim, **changes)
            if e > (0 if done is None else done + 1):
                raise StoreError(
                    f"the database lacks epoch {e - 1} of run {claim.run_id}, which was stored: its server lost what it had "
                    "confirmed, as after a crash with synchronous_commit=off; run the same command again, and it trains what "
                    "is missing"
                )
            for table in (layers, epochs):
                connection.execute(delete(table).where(table.c.run_id == claim.run_id, table.c.epoch >= e))
            attempt = select(attempts.c.id).where(attempts.c.token == claim.token).scalar_subquery()
            of_run = {"run_id": claim.run_id}
            connection.execute(
                insert(epochs).values(**of_run, **epoch_row, attempt_id=attempt, checksum=checksum)
            )
            if layer_rows:
                connection.execute(insert(layers), [of_run | row for row in layer_rows])

    store.insist(transaction, briefly=not wait)


def _measured(table: Table, record: EpochRecord | LayerRecord, but: tuple[str, ...]) -> dict[str, Any]:
    """The record's values by column; StoreError if one has none, as it would be lost."""
    values = {each.name: getattr(record, each.name) for each in fields(record) if each.name not in but}
    lost = sorted(set(values) - set(table.columns.keys()))
    if lost:
        raise StoreError(
            f"what was measured as {', '.join(lost)} has no column in the table {table.name}: "
            "declare the field with `metric` in pfa_cli/records.py"
        )
    return {
        name: value if value is None or isinstance(value, bool) else float(value)
        for name, value in values.items()
    }


def heartbeat(store: Store, claim: Claim) -> None:
    """Says that the worker is alive. It does not wait for a server that is away (ServerLost): the training goes on."""
    with store.write() as connection:
        _update_own(connection, claim, heartbeat_at=_now())


@_patient
def finish(
    store: Store,
    claim: Claim,
    state: Literal["done", "failed", "interrupted"],
    error: str | None = None,
    checkpoint: str | None = None,
) -> None:
    """Ends the attempt and gives the run back; ``checkpoint``: one saved since the last epoch."""
    now = claim.now()
    changes: dict[str, Any] = {
        "state": state,
        "token": None,
        "error": error,
        "heartbeat_at": _now(),
        "finished_at": _not_before(runs.c.started_at, now),
    }
    if checkpoint is not None:
        changes["checkpoint"] = checkpoint
    with store.write() as connection:
        if _ended(connection, claim) == state:  # stored, but the answer was lost
            return
        _update_own(connection, claim, **changes)
        _end_attempt(connection, claim.run_id, state, now)


@_patient
def record_simulation(
    store: Store, kind: str, parameters: Mapping[str, Any], values: Mapping[str, Sequence[float]]
) -> None:
    """Stores a simulation's values by quantity (unit in the name), in place of those there.

    An example: kind "path", parameters {"expansion": 10.0}, values {"path_angle_degrees": [17.4, 17.6]}.
    """
    key = {"kind": kind, "parameters_hash": parameters_hash(parameters)}
    common = key | {"parameters": dict(parameters), "created_at": _now()}
    rows = [
        common | {"quantity": quantity, "item": item, "value": float(value)}
        for quantity, items in values.items()
        for item, value in enumerate(items)
    ]
    rows = [row | {"checksum": checksums.of_row(row)} for row in rows]
    with store.write() as connection:
        lock_table(connection, simulations)  # another process may be storing the same
        connection.execute(delete(simulations).where(*(simulations.c[name] == key[name] for name in key)))
        if rows:
            connection.execute(insert(simulations), rows)


def parameters_hash(parameters: Mapping[str, Any]) -> str:
    """16 hex digits that identify a simulation's parameters, whatever their order."""
    canonical = json.dumps(parameters, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Measurement:
    """One number of a benchmark, with its unit ("seconds", "images/s", "ratio")."""

    measure: str
    value: float
    unit: str
    algorithm: str | None = None


def record_benchmark(
    store: Store, machine: Mapping[str, Any], recipe: str, measurements: Iterable[Measurement]
) -> None:
    """Stores what a benchmark of ``recipe`` measured on ``machine`` (its description, as facts)."""
    common = {"machine": dict(machine), "recipe": recipe, "created_at": _now()}
    rows = [
        common | {"measure": m.measure, "algorithm": m.algorithm, "value": float(m.value), "unit": m.unit}
        for m in measurements
    ]
    rows = [row | {"checksum": checksums.of_row(row)} for row in rows]

    def transaction() -> None:
        same = (benchmarks.c[name] == rows[0][name] for name in ("created_at", "checksum"))
        with store.write() as connection:
            if connection.execute(select(benchmarks.c.id).where(*same)).first() is None:
                connection.execute(insert(benchmarks), rows)

    if rows:
        store.insist(transaction)


def _update_own(connection: Connection, claim: Claim, **changes: Any) -> None:
    own = and_(runs.c.id == claim.run_id, runs.c.token == claim.token)
    if connection.execute(update(runs).where(own).values(changes)).rowcount != 1:
        raise LostCell(f"run {claim.run_id} was taken over by another worker")


def _end_attempt(connection: Connection, run_id: int, outcome: str, when: datetime | None) -> None:
    open_ones = and_(attempts.c.run_id == run_id, attempts.c.outcome.is_(None))
    ended_at = None if when is None else _not_before(attempts.c.started_at, when)
    connection.execute(update(attempts).where(open_ones).values(outcome=outcome, ended_at=ended_at))


def _ended(connection: Connection, claim: Claim) -> str | None:
    own = and_(attempts.c.run_id == claim.run_id, attempts.c.token == claim.token)
    return connection.execute(select(attempts.c.outcome).where(own)).scalar()


def _not_before(start: Column[datetime], end: datetime) -> ColumnElement[datetime]:
    """``end``, or ``start`` where the clock was set back by more than what lies between."""
    return case((start > end, start), else_=end)


def _now() -> datetime:
    return datetime.now(UTC)


def _clock() -> float:
    """Seconds that no setting of the time moves; where the system can, those of a suspended machine count."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
