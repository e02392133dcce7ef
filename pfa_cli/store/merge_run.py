"""Bringing one run of another database into ours; see `pfa_cli.store.merge`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, Table, insert, select, update

from pfa_cli.store import checksums
from pfa_cli.store.checksums import Row, rows, stored_values
from pfa_cli.store.other_database import CELL, History, Other
from pfa_cli.store.schema import attempts, epochs, layers, runs
from pfa_cli.store.server import copy_in
from pfa_cli.wording import count

_PROGRESS = ["state", "error", "epochs_done", "diverged_epoch", "started_at", "finished_at", "sources"]
_PROGRESS += ["host", "pid", "pid_namespace", "process_started", "heartbeat_at", "job"]
# What may differ between equal epochs.
_TIMINGS = ("run_id", "attempt_id", "seconds", "images_per_second", "checksum")


@dataclass
class MergeReport:
    """What a merge did: counts of runs, simulations and benchmark values, and a line per contradiction.

    ``notes``: runs that other numbers of processes trained, so that they differ. ``left_out``: why a database was not
    brought in. A line for each.
    """

    added: int = 0
    extended: int = 0
    unchanged: int = 0
    simulations: int = 0
    benchmarks: int = 0
    conflicts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def add(self, other: "MergeReport") -> None:
        """Adds what another merge did."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def __str__(self) -> str:
        counts = f"{count(self.added, 'run')} added, {self.extended} extended, {self.unchanged} unchanged"
        others = (
            f"{count(self.simulations, 'simulation')} and {count(self.benchmarks, 'benchmark value')} added"
        )
        conflicts = (f"conflict: {line}" for line in self.conflicts)
        left_out = (f"left out: {line}" for line in self.left_out)
        return "\n".join([f"{counts}; {others}", *conflicts, *self.notes, *left_out])


def merge_run(connection: Connection, other: Other, theirs: Row, report: MergeReport, live: bool) -> bool:
    """Brings in a run, ``theirs`` its row in ``other``; whether both databases hold the same of it now.

    ``live``: see `merge._bring_in`.
    """
    cell = select(runs).where(*(runs.c[name] == theirs[name] for name in CELL))
    found = connection.execute(cell).mappings().one_or_none()
    if found is None:
        row = {name: value for name, value in theirs.items() if name != "id"}
        row |= {"token": None, "checkpoint": None, "checkpoint_dir": None}
        run_id = connection.execute(insert(runs).values(row).returning(runs.c.id)).scalar_one()
        _append(connection, run_id, other, theirs["id"])
        report.added += 1
        return True
    ours = dict(found)
    mine = Other(connection, attached=False)
    here, there = mine.history(ours["id"]), other.history(theirs["id"])
    title = "{recipe} {algorithm} seed {seed} (configuration {config_hash})".format(**theirs)
    difference = _first_difference(here, there)
    processes = mine.processes(ours["id"]), other.processes(theirs["id"])
    if difference is not None and processes[0] != processes[1]:
        report.notes += (
            f"{title}: {processes[0]} trained it here and {processes[1]} there, which differ by rounding; kept ours",
        )
        report.unchanged += 1
        return False
    if difference is not None:
        report.conflicts += (f"{title}: {difference}; kept ours",)
        return False
    rank = {"done": 2, "running": 1 if live else 0}  # of two states after the same epoch
    longer = (there.last_epoch, rank.get(theirs["state"], 0)) > (here.last_epoch, rank.get(ours["state"], 0))
    if ours["state"] == "running" and not live:
        if longer:
            report.conflicts += (f"{title}: is running here; kept ours, merge again when it has ended",)
        else:
            report.unchanged += 1
        return False
    if not (_fill(connection, ours, here, there) or longer):
        report.unchanged += 1
        return False
    report.extended += 1
    if not longer:
        return True
    state = {name: theirs[name] for name in _PROGRESS}
    connection.execute(update(runs).where(runs.c.id == ours["id"]).values(state))
    _append(connection, ours["id"], other, theirs["id"], here.last_epoch, _for_cell(there, theirs, ours))
    return True


def _fill(connection: Connection, run: Row, here: History, there: History) -> bool:
    """Gives our run the values that it lacks and the other has, of the epochs that both have; whether there are any."""
    filled = set()
    for table, ours, theirs in ((epochs, here.epochs, there.epochs), (layers, here.layers, there.layers)):
        for row, other in zip(ours, theirs, strict=False):
            new = {name: other[name] for name in row if row[name] is None and name not in _TIMINGS}
            new = {name: value for name, value in new.items() if value is not None}
            if new:
                key = [column == row[column.name] for column in table.primary_key]
                connection.execute(update(table).where(*key).values(new))
                row |= new
                filled.add(row["epoch"])
    for epoch, checksum in (_checksums(here, run) if filled else {}).items():
        if epoch in filled:
            of_epoch = (epochs.c.run_id == run["id"], epochs.c.epoch == epoch)
            connection.execute(update(epochs).where(*of_epoch).values(checksum=checksum))
    return bool(filled)


def _for_cell(there: History, theirs: Row, ours: Row) -> dict[int, str]:
    """The epochs' checksums for our run; a later pfa may describe the same configuration by more settings."""
    return {} if checksums.of_cell(ours) == checksums.of_cell(theirs) else _checksums(there, ours)


def _checksums(history: History, run: Row) -> dict[int, str]:
    """The checksums of these epochs as those of ``run``, of those that have one."""
    cell = checksums.of_cell(run)
    return {
        row["epoch"]: checksums.of_epoch(
            cell, row, [layer for layer in history.layers if layer["epoch"] == row["epoch"]]
        )
        for row in history.epochs
        if row["checksum"] is not None
    }


def _append(
    connection: Connection,
    run_id: int,
    other: Other,
    other_id: int,
    after: int = -1,
    new_checksums: Mapping[int, str] | None = None,
) -> None:
    """Adds their epochs after ``after``, and their attempts; those that are here (by their token) may have ended since."""
    known = rows(connection, attempts, attempts.c.run_id == run_id)
    ids = {attempt["token"]: attempt["id"] for attempt in known}
    new_ids: dict[int | None, int | None] = {None: None}
    for attempt in other.rows("attempts", other_id):
        if attempt["token"] in ids:
            ending = {name: attempt[name] for name in ("ended_at", "outcome")}
            connection.execute(update(attempts).where(attempts.c.id == ids[attempt["token"]]).values(ending))
        else:
            row = {name: value for name, value in attempt.items() if name != "id"} | {"run_id": run_id}
            query = insert(attempts).values(row).returning(attempts.c.id)
            ids[attempt["token"]] = connection.execute(query).scalar_one()
        new_ids[attempt["id"]] = ids[attempt["token"]]
    changed = new_checksums or {}
    names = ["epoch", "attempt_id", "checksum", *_others(epochs, "run_id", "epoch", "attempt_id", "checksum")]
    of_epochs = stored_values(other.connection, other.tables["epochs"], names, [other_id])
    _add(
        connection,
        epochs,
        ["run_id", *names],
        (
            # No attempt: a changed bit in its number, which is no result.
            (run_id, epoch, new_ids.get(attempt), changed.get(epoch, checksum), *measured)
            for epoch, attempt, checksum, *measured in of_epochs
            if epoch > after
        ),
    )
    names = ["epoch", *_others(layers, "run_id", "epoch")]
    if other.attached:
        values = ", ".join(names)
        connection.exec_driver_sql(
            f"INSERT INTO layers (run_id, {values}) SELECT {run_id}, {values} FROM other.layers "
            f"WHERE run_id = {other_id} AND epoch > {after}"
        )
    else:
        of_layers = stored_values(other.connection, layers, names, [other_id])
        _add(connection, layers, ["run_id", *names], ((run_id, *row) for row in of_layers if row[0] > after))


def _others(table: Table, *names: str) -> list[str]:
    return [name for name in table.columns.keys() if name not in names]  # noqa: SIM118


def _add(connection: Connection, table: Table, names: Sequence[str], new: Iterable[tuple[Any, ...]]) -> None:
    """Adds rows of values as SQLite stores them, by the driver: ten times as fast as one by one through SQLAlchemy."""
    if connection.dialect.name != "sqlite":
        copy_in(connection, table, names, new)
        return
    raw: Any = connection.connection.driver_connection
    raw.executemany(
        f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", new
    )


def _first_difference(ours: History, theirs: History) -> str | None:
    """Where the epochs that both have differ, timings and values that one lacks aside; None if they do not."""
    last = min(ours.last_epoch, theirs.last_epoch)
    for here, there in ((ours.epochs, theirs.epochs), (ours.layers, theirs.layers)):
        a = [row for row in here if row["epoch"] <= last]
        b = [row for row in there if row["epoch"] <= last]
        for row, other in zip(a, b, strict=False):
            for name in row:
                if None in (row[name], other[name]) or name in _TIMINGS:
                    continue
                if not equal(row[name], other[name], name):
                    layer = f", layer {row['layer']}" if "layer" in row else ""
                    return f"epoch {row['epoch']}{layer}: {name} is {row[name]} here and {other[name]} there"
        if len(a) != len(b):
            return f"rows up to epoch {last}: {len(a)} here and {len(b)} there"
    return None


def equal(a: Any, b: Any, quantity: str = "") -> bool:
    """Whether they are the same up to rounding, in which CPUs differ: 1e-9 of them, or 1e-12 where they are near 0.

    Angles are the same up to 1e-5°: near 0° they are those of vectors that differ by rounding alone.
    """
    if isinstance(a, float) and isinstance(b, float):
        near_zero = 1e-5 if quantity.endswith("_degrees") else 1e-12
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=near_zero) or (math.isnan(a) and math.isnan(b))
    return bool(a == b)
