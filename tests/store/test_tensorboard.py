"""Results as TensorBoard's files, read back by TensorBoard's own reader."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Call
from sqlalchemy import Connection
from store_cells import claimed, run_to_end

from pfa_cli.records import EpochRecord, LayerRecord
from pfa_cli.store import tensorboard
from pfa_cli.store.engine import open_store
from pfa_cli.store.writer import record_epoch


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "pfa.db"
    with open_store(str(path), write=True) as store:
        run_to_end(store)
        layers = (LayerRecord(0, "fc1", 1.0, weight_angle_degrees=math.nan),)
        record_epoch(store, claimed(store, algorithm="bp"), EpochRecord(0, layers=layers))
    return path


@pytest.mark.filterwarnings("default")  # of tensorboard's own
def test_every_number_is_read_back_by_tensorboard(database: Path, call: Call, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    answer = call("export", "--to", "tensorboard", "logs", "--db", str(database))
    assert answer.code == 0, answer.err
    assert answer.out.startswith("logs: 2 runs")
    folders = {path.name.split("-")[0]: path for path in (tmp_path / "logs" / "mnist").iterdir()}
    assert folders.keys() == {"pfa", "bp"}
    read = accumulator.EventAccumulator(str(folders["pfa"]))
    read.Reload()
    accuracy = [(each.step, each.value) for each in read.Scalars("test_accuracy_percent")]
    assert accuracy == [(0, 90.0), (1, 91.0), (2, 92.0), (3, 93.0)]
    assert [each.value for each in read.Scalars("path_angle_degrees/layer2")] == [21.0] * 4
    assert "validation_loss" not in read.Tags()["scalars"]
    assert "_hparams_/session_start_info" in read.summary_metadata
    again = call("export", "--to", "tensorboard", "logs", "--db", str(database))
    assert again.code == 1 and "holds event files already" in again.err


def test_without_tensorboard_it_says_how_to_get_it(
    database: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    answer = call("export", "--to", "tensorboard", "logs", "--db", str(database))
    assert answer.code == 1
    assert "pip install 'pfa[tensorboard]'" in answer.err
    assert not Path("logs").exists()


@pytest.mark.filterwarnings("default")  # of tensorboard's own
def test_a_writer_that_comes_meanwhile_leaves_the_files_of_each_run_once(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    original = tensorboard._scalars

    def scalars(connection: Connection, run: int) -> Iterator[tuple[str, int, float]]:
        yield from original(connection, run)
        if seeds:
            with open_store(str(database), write=True) as store:
                run_to_end(store, seed=seeds.pop())

    seeds = [1]

    monkeypatch.setattr(tensorboard, "_scalars", scalars)
    with open_store(str(database), write=False) as store:
        assert tensorboard.export(store, tmp_path / "logs") == 3
    files = [*(tmp_path / "logs").rglob("events.out.tfevents.*")]
    assert len(files) == 3 * 2  # of each run its scalars, and its settings
