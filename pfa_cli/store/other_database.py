"""One state of another database, as merging reads it: its runs with every value checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, MetaData, func, select

from pfa_cli.store import checksums
from pfa_cli.store.check import broken_pages
from pfa_cli.store.checksums import Row, Tables, rows, stored_values
from pfa_cli.store.errors import DamagedValue
from pfa_cli.store.schema import metadata

CELL = ("recipe", "algorithm", "seed", "config_hash")
_ATTACHED: Tables = {
    name: table.to_metadata(other)
    for other in [MetaData(schema="other")]
    for name, table in metadata.tables.items()
}


@dataclass(frozen=True)
class History:
    """All that one database knows of one run's epochs, with every value checked."""

    epochs: list[Row]
    layers: list[Row]

    @property
    def last_epoch(self) -> int:
        return self.epochs[-1]["epoch"] if self.epochs else -1


Fingerprint = tuple[Any, ...]
"""What tells a run with its results from all others."""


@dataclass(frozen=True)
class Other:
    """One state of the database to bring in. ``attached``: on the connection to ours, as another schema."""

    connection: Connection
    attached: bool

    @property
    def tables(self) -> Tables:
        return _ATTACHED if self.attached else metadata.tables

    def rows(self, name: str, run_id: int | None = None) -> list[Row]:
        """The rows of a table (of a run), every value checked."""
        table = self.tables[name]
        of_run = [] if run_id is None else [table.c["id" if name == "runs" else "run_id"] == run_id]
        return rows(self.connection, table, *of_run)

    def history(self, run_id: int) -> History:
        return History(self.rows("epochs", run_id), self.rows("layers", run_id))

    def verify(self, fingerprints: Mapping[int, Fingerprint | None]) -> None:
        """Raises DamagedValue, or what the database's driver raises, if it is damaged."""
        if self.connection.dialect.name == "sqlite":
            for what in broken_pages(self.connection, "other" if self.attached else "main"):
                raise DamagedValue(what)
        checksums.verify(self.connection, self.tables)
        self.rows("attempts")
        of_runs, of_epochs = self.tables["runs"], self.tables["epochs"]
        gaps = (
            select(of_runs.c.id)
            .outerjoin(of_epochs, of_epochs.c.run_id == of_runs.c.id)
            .group_by(of_runs.c.id)
            .having(func.count(of_epochs.c.epoch) != func.coalesce(of_runs.c.epochs_done + 1, 0))
        )
        for run_id in self.connection.execute(gaps).scalars():
            raise DamagedValue(f"run {run_id} lacks an epoch")
        for run_id, fingerprint in fingerprints.items():
            if fingerprint is None:  # without checksums, only the values' types tell damage
                self.history(run_id)

    def fingerprints(self) -> dict[int, Fingerprint | None]:
        """By run: what it is, its state and its epochs' checksums; None where an epoch has none."""
        stored = stored_values(self.connection, self.tables["epochs"], ["run_id", "checksum"])
        sums = {
            run_id: [row[1] for row in group] for run_id, group in groupby(stored, key=lambda row: row[0])
        }
        names = (*CELL, "state")
        return {
            run["id"]: None
            if None in sums.get(run["id"], [])
            else (*(run[name] for name in names), *sums.get(run["id"], []))
            for run in self.rows("runs")
        }

    def processes(self, run_id: int) -> str:
        """How many processes trained the run together, in words: "1 process", or "1 and 2 processes" one after the other."""
        counts = sorted({row["ranks"] or 1 for row in self.rows("attempts", run_id)}) or [1]
        return f"{' and '.join(map(str, counts))} process{'' if counts == [1] else 'es'}"
