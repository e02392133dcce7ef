"""A number that changed after it was stored is noticed, by check, merge, salvage and whoever shows it."""

import math
import time
from pathlib import Path

import pytest
from store_cells import change, claimed, new_database, record, run_to_end, stored

from pfa_cli.records import EpochRecord, LayerRecord
from pfa_cli.store import checksums
from pfa_cli.store.check import check
from pfa_cli.store.engine import open_store
from pfa_cli.store.errors import DamagedDatabase
from pfa_cli.store.merge import merge
from pfa_cli.store.queries import epochs_frame, layers_frame, runs, simulations_frame
from pfa_cli.store.salvage import salvage
from pfa_cli.store.writer import Measurement, record_benchmark, record_epoch, record_simulation

CHANGES = [
    "UPDATE epochs SET test_accuracy_percent = 92.5 WHERE epoch = 2 AND run_id = 1",
    "UPDATE epochs SET test_accuracy_percent = NULL WHERE epoch = 2 AND run_id = 1",
    "UPDATE epochs SET test_loss = 0 WHERE epoch = 2 AND run_id = 1",
    "UPDATE epochs SET diverged = 1 WHERE epoch = 2 AND run_id = 1",
    "UPDATE layers SET path_angle_degrees = 20.5 WHERE epoch = 2 AND run_id = 1 AND layer_index = 1",
    "UPDATE layers SET layer = 'layer9' WHERE epoch = 2 AND run_id = 1 AND layer_index = 1",
    "UPDATE runs SET configuration = replace(configuration, '0.01', '0.02') WHERE id = 1",
    "UPDATE runs SET seed = 5 WHERE id = 1",
    "UPDATE runs SET algorithm = 'sfa' WHERE id = 1",
]


@pytest.mark.parametrize("statement", CHANGES)
def test_a_changed_number_is_found_everywhere(tmp_path: Path, statement: str) -> None:
    path = new_database(tmp_path / "pfa.db", seeds=2)
    assert check(str(path)).ok
    change(path, statement)
    assert "does not match its checksum" in str(check(str(path)))
    with pytest.raises(DamagedDatabase, match="does not match its checksum"):
        merge(str(tmp_path / "ours.db"), str(path))
    for frame in (epochs_frame, layers_frame):
        with open_store(str(path), write=False) as store, pytest.raises(DamagedDatabase, match="checksum"):
            frame(store)
    report = salvage(str(path), tmp_path / "saved.db")
    assert report.whole == 1
    whole_epochs = 0 if "runs SET" in statement else 2
    assert f"lost epochs: {whole_epochs} of 4 saved" in str(report)
    assert check(str(tmp_path / "saved.db")).ok


@pytest.mark.parametrize("table", ["simulations", "benchmarks"])
def test_a_changed_simulation_or_benchmark_is_found(tmp_path: Path, table: str) -> None:
    path = tmp_path / "pfa.db"
    with open_store(str(path), write=True) as store:
        run_to_end(store)
        record_simulation(store, "path", {"expansion": 10}, {"path_angle_degrees": [17.5, math.nan, -0.0, 3]})
        record_benchmark(store, {"cpu": "x86"}, "mnist", [Measurement("epoch", 1.5, "seconds")])
    assert check(str(path)).ok
    with open_store(str(path), write=False) as store:
        assert (len(simulations_frame(store)), len(stored(store, "benchmarks"))) == (4, 1)
    change(path, f"UPDATE {table} SET value = 1.25 WHERE value IN (17.5, 1.5)")
    assert f"a row of {table} does not match its checksum" in str(check(str(path)))
    assert "damaged and lost" in str(salvage(str(path), tmp_path / "saved.db"))
    assert check(str(tmp_path / "saved.db")).ok


@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf, None, -0.0, 5e-324, 0.1 + 0.2, 3])
def test_no_value_is_mistaken_for_another(tmp_path: Path, value: float | None) -> None:
    path = tmp_path / "pfa.db"
    layer = LayerRecord(0, "layer1", math.nan, path_norm_ratio=value)
    with open_store(str(path), write=True) as store:
        record_epoch(store, claimed(store), EpochRecord(0, train_loss=value, layers=(layer,)))
    assert check(str(path)).ok


def test_rows_from_before_there_were_checksums_stay_without(tmp_path: Path) -> None:
    path = new_database(tmp_path / "pfa.db")
    change(path, "UPDATE epochs SET checksum = NULL WHERE epoch < 2")
    assert check(str(path)).ok
    merge(str(tmp_path / "ours.db"), str(path))
    assert check(str(tmp_path / "ours.db")).ok
    with open_store(str(tmp_path / "ours.db"), write=True) as store:
        assert [row.epochs_done for row in runs(store)] == [3]


def test_a_run_that_a_later_pfa_describes_by_more_settings_merges_with_right_checksums(
    tmp_path: Path,
) -> None:
    with open_store(str(tmp_path / "ours.db"), write=True) as ours:
        run_to_end(ours, epochs=2)
    with open_store(str(tmp_path / "theirs.db"), write=True) as theirs:
        claimed(theirs)
        with theirs.write() as connection:
            connection.exec_driver_sql(
                """UPDATE runs SET state = 'queued', configuration = replace(configuration, '{"recipe', '{"new": 1, "recipe')"""
            )
        run_to_end(theirs)
    assert check(str(tmp_path / "theirs.db")).ok
    assert merge(str(tmp_path / "ours.db"), str(tmp_path / "theirs.db")).extended == 1
    assert check(str(tmp_path / "ours.db")).ok


def test_the_checksum_of_an_epoch_stays_what_it_is() -> None:
    """Databases hold it: if this changes, a migration has to compute all of them anew."""
    cell = checksums.of_cell(
        {
            "recipe": "mnist",
            "algorithm": "bp",
            "seed": 0,
            "config_hash": "abc",
            "configuration": {"epochs": 3},
        }
    )
    epoch = {"epoch": 1, "train_loss": 0.1, "test_loss": math.nan, "seconds": None, "diverged": False}
    layer = {"epoch": 1, "layer_index": 0, "layer": "layer1", "weight_norm": -0.0}
    assert checksums.of_epoch(cell, epoch, [layer]) == "dd81bdc1caf96b54"


def test_a_checksum_costs_less_than_a_millisecond(tmp_path: Path) -> None:
    layers = tuple(LayerRecord(i, f"layer{i}", 1.5, *(0.1 * i for _ in range(5))) for i in range(20))
    epoch = record(0)
    rows = [{"epoch": 1, "layer_index": each.index} | vars(each) for each in layers]
    start = time.process_time()
    for _ in range(100):
        checksums.of_epoch("cell", vars(epoch) | {"layers": None}, rows)
    assert (time.process_time() - start) / 100 < 1e-3
