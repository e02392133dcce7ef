"""`pfa bench store`: how fast epochs are stored, in a file and on a PostgreSQL server, and what merging many files costs."""

import secrets
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text
from sqlalchemy import text
from sqlalchemy.engine import make_url

from pfa_cli.configuration import Configuration
from pfa_cli.recipes import load_recipe
from pfa_cli.records import EpochRecord, LayerRecord, metrics
from pfa_cli.store import checksums, server, writer
from pfa_cli.store.engine import Store, database_file, database_name, open_store
from pfa_cli.store.merge import merge
from pfa_cli.store.owner import Owner
from pfa_cli.store.schema import epochs, layers, runs
from pfa_cli.store.writer import Measurement

WORDS = {
    "sqlite_rows_per_second": "rows stored per second in a file, an epoch with its layers at a time",
    "postgresql_rows_per_second": "rows stored per second on the server, an epoch with its layers at a time",
    "merge_cpu_seconds": "seconds of CPU time for merging the files",
    "merge_rows_per_cpu_second": "rows merged per second of CPU time",
}


@dataclass(frozen=True)
class StoreBenchmark:
    """What storing costs on a machine: ``n_shards`` files with a run of ``n_epochs`` epochs and ``n_layers`` layers each."""

    machine: Mapping[str, Any]
    n_shards: int
    n_epochs: int
    n_layers: int
    values: Mapping[str, float]
    recipe = "store"

    def measurements(self) -> Iterator[Measurement]:
        """All numbers, as the database has them."""
        for name, value in self.values.items():
            yield Measurement(name, value, "seconds" if name.endswith("_seconds") else "rows/s")

    def facts(self) -> dict[str, Any]:
        """All numbers, as JSON has them."""
        sizes = {"shards": self.n_shards, "epochs": self.n_epochs, "layers": self.n_layers}
        return {"machine": dict(self.machine), "recipe": self.recipe, **sizes, **self.values}

    def show(self) -> Text:
        """All numbers, for a terminal."""
        title = f"store: {self.n_shards} runs of {self.n_epochs} epochs and {self.n_layers} layers"
        lines = [
            f" {WORDS[name]}: {value:,.{0 if value > 100 else 2}f}" for name, value in self.values.items()
        ]
        return Text("\n".join([title, *lines]) + "\n")


def measure_store(
    db: str | None,
    machine: Mapping[str, Any],
    say: Callable[[str], None],
    *,
    n_shards: int = 100,
    n_epochs: int = 200,
    n_layers: int = 20,
) -> StoreBenchmark:
    """Measures in a temporary folder and, if ``db`` names a server's database, in a schema of its own there.

    Nothing stays. Rows per second are by the clock, as a disk and a server are waited for; merging is by CPU time.
    """
    configuration = load_recipe("mnist").configuration("pfa", {"epochs": n_epochs - 1})  # and epoch 0
    rows = n_epochs * (1 + n_layers)
    values = {}
    with tempfile.TemporaryDirectory(prefix="pfa-bench-") as folder:
        shards = Path(folder, "shards")
        shards.mkdir()
        if database_file(db) is None:
            say("store: rows into the server's database")
            with _schema_of_its_own(db) as url:
                values["postgresql_rows_per_second"] = rows / _write(url, configuration, n_layers)
        say("store: rows into a file")
        values["sqlite_rows_per_second"] = rows / _write(str(shards / "0.db"), configuration, n_layers)
        say(f"store: merging {n_shards} files")
        _copies(shards, n_shards)
        whole = str(Path(folder, "whole.db"))
        open_store(whole, write=True).close()  # so that making the tables is not timed
        begun = time.process_time()
        report = merge(whole, str(shards))
        values["merge_cpu_seconds"] = time.process_time() - begun
        assert report.added == n_shards, report
    values["merge_rows_per_cpu_second"] = n_shards * rows / values["merge_cpu_seconds"]
    return StoreBenchmark(machine, n_shards, n_epochs, n_layers, values)


def _write(db: str, configuration: Configuration, n_layers: int) -> float:
    """Stores a run by the way that training takes; the seconds that its epochs took."""
    of_layer = [each.name for each in metrics(LayerRecord)]
    of_epoch = [each.name for each in metrics(EpochRecord)]
    with open_store(db, write=True) as store:
        run_id = writer.ensure_run(store, configuration, 0)
        claim = writer.claim(store, run_id, Owner.current(), is_alive=lambda row: False)
        assert claim is not None
        writer.start_attempt(store, claim, {})
        begun = time.perf_counter()
        for epoch in range(configuration.epochs + 1):
            of_layers = tuple(
                LayerRecord(i, f"layer{i}", **dict.fromkeys(of_layer, epoch / (i + 3)))
                for i in range(n_layers)
            )
            measured: dict[str, Any] = dict.fromkeys(of_epoch, 1 / (epoch + 2))
            writer.record_epoch(store, claim, EpochRecord(epoch, **measured, layers=of_layers))
        seconds = time.perf_counter() - begun
        writer.finish(store, claim, "done")
    return seconds


def _copies(shards: Path, n_shards: int) -> None:
    """Copies of the first file, each with another seed and the checksums that belong to it."""
    with open_store(str(shards / "0.db"), write=False) as store:
        (run,), of_epochs, of_layers = store.read(
            lambda connection: [checksums.rows(connection, table) for table in (runs, epochs, layers)]
        )
    n_layers = len(of_layers) // len(of_epochs)
    parts = [of_layers[i : i + n_layers] for i in range(0, len(of_layers), n_layers)]
    for seed in range(1, n_shards):
        path = shards / f"{seed}.db"
        shutil.copyfile(shards / "0.db", path)
        cell = checksums.of_cell(run | {"seed": seed})
        changed = [
            (checksums.of_epoch(cell, row, part), row["epoch"])
            for row, part in zip(of_epochs, parts, strict=True)
        ]
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("UPDATE runs SET seed = ?", (seed,))
            connection.executemany("UPDATE epochs SET checksum = ? WHERE epoch = ?", changed)
        connection.close()


@contextmanager
def _schema_of_its_own(db: str | None) -> Iterator[str]:
    """The URL of a new and empty schema of the server's database; it is dropped afterwards."""
    name = f"pfa_bench_{secrets.token_hex(4)}"
    with Store(server.engine(server.parse(database_name(db))), None, writable=True) as store:
        with store.write() as connection:
            connection.execute(text(f"CREATE SCHEMA {name}"))
        url = make_url(store.engine.url).update_query_dict({"options": f"-csearch_path={name}"})
        try:
            yield url.render_as_string(hide_password=False)
        finally:
            with store.write() as connection:
                connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
