"""The view of runs and their results, read with nothing but SQL."""

import math
import shutil
import sqlite3
from pathlib import Path

from sqlalchemy import text
from store_cells import claimed, run_to_end

from pfa_cli.configuration import Configuration
from pfa_cli.records import EpochRecord
from pfa_cli.store import views
from pfa_cli.store.engine import open_store
from pfa_cli.store.writer import record_epoch

KEPT = Path(__file__).with_name("kept")


def test_one_row_per_run_has_its_settings_and_its_results(tmp_path: Path) -> None:
    path = tmp_path / "pfa.db"
    with open_store(str(path), write=True) as store:
        finished = run_to_end(store)
        validated = claimed(store, algorithm="bp")
        for epoch, accuracy in enumerate((90.0, 95.0, math.nan, 95.0)):
            record = EpochRecord(
                epoch, validation_accuracy_percent=accuracy, test_accuracy_percent=80.0 + epoch
            )
            record_epoch(store, validated, record)
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    rows = {row["run_id"]: dict(row) for row in connection.execute("SELECT * FROM run_results")}
    connection.close()
    assert len(rows) == 2
    ours = rows[finished]
    assert (ours["state"], ours["test_accuracy_last_epoch_percent"]) == ("done", 93.0)
    assert (ours["learning_rate"], ours["batch_size"], ours["expansion"]) == (0.01, 64, 10.0)
    assert (ours["network"], ours["dataset"]) == ("mlp", "mnist")
    assert ours["best_validation_epoch"] is None
    best = rows[validated.run_id]
    assert (best["best_validation_epoch"], best["validation_accuracy_best_validation_epoch_percent"]) == (
        1,
        95.0,
    )
    assert best["test_accuracy_best_validation_epoch_percent"] == 81.0
    assert best["test_accuracy_last_epoch_percent"] == 83.0
    assert best["expansion"] is None


def test_every_setting_of_the_view_is_a_setting_of_a_run() -> None:
    named = {*views._TEXTS, *views._WHOLE_NUMBERS, *views._NUMBERS}
    assert named <= Configuration.model_fields.keys()


def test_a_database_without_the_view_gets_it_once_it_is_written_and_is_read_until_then(
    tmp_path: Path,
) -> None:
    path = shutil.copyfile(KEPT / "schema_0001.db", tmp_path / "pfa.db")
    before = path.read_bytes()
    open_store(str(path), write=False).close()
    assert path.read_bytes() == before
    with open_store(str(path), write=True) as store:
        count = text("SELECT count(*) FROM run_results")
        assert store.read(lambda connection: connection.execute(count).scalar()) == 4


def test_postgresql_understands_the_same_query() -> None:
    from sqlalchemy.dialects import postgresql

    query = views.run_results().compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
    assert "runs.configuration ->> 'learning_rate'" in str(query)
