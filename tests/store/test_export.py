"""Exported tables: complete, exact, and readable by others."""

import csv
import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import Call
from sqlalchemy import text
from store_cells import change, claimed, new_database, run_to_end

from pfa_cli.errors import PfaError, UsageError
from pfa_cli.notebook import load
from pfa_cli.records import EpochRecord, LayerRecord
from pfa_cli.store import export as module
from pfa_cli.store.engine import Store, open_store
from pfa_cli.store.errors import DamagedDatabase
from pfa_cli.store.export import Rows, export
from pfa_cli.store.schema import layers
from pfa_cli.store.tables import KEY, TABLES
from pfa_cli.store.writer import record_epoch, record_simulation


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "pfa.db"), write=True) as opened:
        run_to_end(opened)
        mine = claimed(opened, algorithm="bp")
        layers = (LayerRecord(0, 'a "layer", with a comma', math.nan),)
        record_epoch(opened, mine, EpochRecord(0, train_loss=math.nan, test_loss=math.inf, layers=layers))
        record_epoch(opened, mine, EpochRecord(1, train_loss=0.1 + 0.2, test_loss=-math.inf))
        record_simulation(opened, "path", {"expansion": 10}, {"path_angle_degrees": [17.5]})
        yield opened


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("name", TABLES)
def test_every_table_can_be_written(store: Store, tmp_path: Path, name: str, suffix: str) -> None:
    out = tmp_path / "new folder" / f"{name}.{suffix}"
    rows = export(store, name, out)
    read = pd.read_csv(out) if suffix == "csv" else pd.read_parquet(out)
    counts = {"runs": 2, "attempts": 2, "epochs": 6, "layers": 9, "simulations": 1, "benchmarks": 0}
    assert len(read) == rows == counts[name]
    if name in ("runs", "attempts", "epochs", "layers"):
        assert tuple(read.columns[: len(KEY)]) == KEY
    assert [file.name for file in out.parent.iterdir()] == [out.name]


def test_csv_keeps_undefined_nan_and_infinity_apart(store: Store, tmp_path: Path) -> None:
    export(store, "epochs", tmp_path / "epochs.csv")
    with (tmp_path / "epochs.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["algorithm"] == "bp"]
    assert [row["train_loss"] for row in rows] == ["nan", "0.30000000000000004"]
    assert [row["test_loss"] for row in rows] == ["inf", "-inf"]
    assert [row["validation_loss"] for row in rows] == ["", ""]
    assert [row["expansion"] for row in rows] == ["", ""]


def test_parquet_keeps_undefined_nan_and_infinity_apart(store: Store, tmp_path: Path) -> None:
    import pyarrow.parquet

    export(store, "epochs", tmp_path / "epochs.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "epochs.parquet")
    rows = [row for row in table.to_pylist() if row["algorithm"] == "bp"]
    assert repr([row["train_loss"] for row in rows]) == "[nan, 0.30000000000000004]"
    assert [row["test_loss"] for row in rows] == [math.inf, -math.inf]
    assert [row["validation_loss"] for row in rows] == [None, None]


@pytest.mark.parametrize("name", ["runs", "attempts", "epochs", "layers"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_settings_are_the_last_columns_of_every_table_of_runs(
    store: Store, tmp_path: Path, name: str, suffix: str
) -> None:
    out = tmp_path / f"{name}.{suffix}"
    export(store, name, out)
    frame = pd.read_csv(out) if suffix == "csv" else pd.read_parquet(out)
    named = [column for column in frame if column.startswith("setting_")]
    assert list(frame.columns[-len(named) :]) == named
    assert {"setting_learning_rate", "setting_dataset", "setting_form", "setting_hidden_sizes"} < {*named}
    assert set(frame["setting_learning_rate"]) == {0.01}
    assert [json.loads(text) for text in set(frame["setting_hidden_sizes"])] == [[512, 512]]
    assert set(frame.loc[frame["algorithm"] == "pfa", "setting_expansion"]) == {10.0}
    assert frame.loc[frame["algorithm"] == "bp", "setting_expansion"].isna().all()
    if suffix == "parquet":
        assert frame["setting_learning_rate"].dtype == "float64" and frame["setting_epochs"].dtype == "int64"


@pytest.mark.parametrize("value", ['"high"', "true", "[1, 2]", "1"])
def test_a_setting_whose_values_are_of_several_types_is_text_in_parquet(tmp_path: Path, value: str) -> None:
    """As an option of two algorithms of the user's may be."""
    path = new_database(tmp_path / "pfa.db", seeds=2)
    change(
        path,
        f"UPDATE runs SET configuration = json_set(configuration, '$.momentum', json('{value}')) WHERE id = 1;"
        "UPDATE epochs SET checksum = NULL",
    )
    with open_store(str(path), write=False) as viewer:
        export(viewer, "runs", tmp_path / "runs.parquet")
    momentum = pd.read_parquet(tmp_path / "runs.parquet")["setting_momentum"]
    assert momentum.tolist() == ([1.0, 0.9] if value == "1" else [value.strip('"'), "0.9"])


def test_a_table_goes_to_standard_output_whole_and_alone(store: Store, call: Call, tmp_path: Path) -> None:
    export(store, "layers", tmp_path / "layers.csv")
    answer = call("export", "--table", "layers", "--out", "-", "--db", str(store.path))
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == (tmp_path / "layers.csv").read_text()


def test_a_writer_that_comes_meanwhile_makes_no_row_come_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = new_database(tmp_path / "pfa.db")
    original = Rows.parts

    def parts(rows: Rows) -> Iterator[list[tuple[Any, ...]]]:
        yield from original(rows)
        if seeds:
            with open_store(str(path), write=True) as store:
                run_to_end(store, seed=seeds.pop())

    seeds = [1]

    monkeypatch.setattr(Rows, "parts", parts)
    output = io.BytesIO()
    with open_store(str(path), write=False) as viewer:
        assert export(viewer, "epochs", output, "csv") == 8
    assert len(output.getvalue().splitlines()) == 1 + 8


def test_a_pipe_that_is_closed_ends_the_export_in_peace(store: Store) -> None:
    """A table smaller than the buffer too, which is written at the end."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [
        sys.executable,
        "-m",
        "pfa_cli",
        "export",
        "--table",
        "layers",
        "--out",
        "-",
        "--db",
        f"{store.path}",
    ]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (143, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name the file to write, once"),
        (("a.csv", "--out", "b.csv"), "name the file to write, once"),
        (("--to", "tensorboard", "-"), "name a folder"),
        (("--to", "tensorboard", "--table", "runs", "logs"), "leave --table out"),
        (("--to", "xlsx", "a.xlsx"), "unknown form 'xlsx'"),
    ],
)
def test_a_wrong_export_says_what_to_give(
    store: Store, call: Call, arguments: tuple[str, ...], said: str
) -> None:
    answer = call("export", *arguments, "--db", str(store.path))
    assert answer.code == 2 and said in answer.err


def test_both_formats_and_the_frame_agree(store: Store, tmp_path: Path) -> None:
    for suffix in ("csv", "parquet"):
        export(store, "epochs", tmp_path / f"epochs.{suffix}")
    frame = load(str(store.path)).epochs.convert_dtypes()
    for read in (pd.read_csv(tmp_path / "epochs.csv"), pd.read_parquet(tmp_path / "epochs.parquet")):
        pd.testing.assert_frame_equal(read.convert_dtypes(), frame, check_dtype=False)


def test_settings_are_json_and_times_say_their_zone(store: Store, tmp_path: Path) -> None:
    export(store, "runs", tmp_path / "runs.csv")
    frame = pd.read_csv(tmp_path / "runs.csv")
    settings = [json.loads(text) for text in frame["configuration"]]
    assert [each["algorithm"] for each in settings] == frame["algorithm"].tolist()
    assert frame["started_at"].str.endswith("+00:00").all()
    assert pd.to_datetime(frame["started_at"]).dt.tz is not None


def test_no_text_is_a_formula_to_a_spreadsheet_and_numbers_stay_numbers(store: Store, tmp_path: Path) -> None:
    formulas = ["=1+1", "+1", "-1", "@SUM(1)", "\t=1"]
    with store.write() as connection:
        for i, name in enumerate(formulas):
            layer = {"run_id": 1, "epoch": 0, "layer_index": 9 + i, "layer": name, "weight_norm": -1.5}
            connection.execute(layers.insert().values(layer))
    export(store, "layers", tmp_path / "layers.csv")
    export(store, "layers", tmp_path / "layers.parquet")
    with (tmp_path / "layers.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["weight_norm"] == "-1.5"]
    assert [row["layer"] for row in rows] == [f"'{name}" for name in formulas]
    assert set(formulas) < set(pd.read_parquet(tmp_path / "layers.parquet")["layer"])


def test_many_rows_are_written_in_parts(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 2)
    for suffix in ("csv", "parquet"):
        assert export(store, "layers", tmp_path / f"layers.{suffix}") == 9
    assert len(pd.read_parquet(tmp_path / "layers.parquet")) == len(pd.read_csv(tmp_path / "layers.csv")) == 9


@pytest.mark.parametrize("name", ["epochs.xlsx", "epochs", "epochs.csv.gz"])
def test_an_unknown_suffix_names_the_known_ones(store: Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"must end in \.csv or \.parquet"):
        export(store, "epochs", tmp_path / name)
    assert not (tmp_path / name).exists()


def test_an_unknown_table_writes_nothing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'layers'"):
        export(store, "layer", tmp_path / "layer.csv")
    assert not (tmp_path / "layer.csv").exists()


def test_parquet_without_pyarrow_says_how_to_get_it(store: Store, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "sys.modules['pyarrow'] = None\n"
        "from pfa_cli.errors import PfaError\n"
        "from pfa_cli.store import engine, export\n"
        f"with engine.open_store({str(store.path)!r}, write=False) as store:\n"
        f"    export.export(store, 'epochs', Path({str(tmp_path / 'epochs.csv')!r}))\n"
        "    try:\n"
        f"        export.export(store, 'epochs', Path({str(tmp_path / 'epochs.parquet')!r}))\n"
        "    except PfaError as error:\n"
        "        print(error)\n"
        "assert 'pandas' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert "`pip install pyarrow`" in done.stdout
    assert (tmp_path / "epochs.csv").exists()
    assert not (tmp_path / "epochs.parquet").exists()


def test_a_failure_leaves_the_old_file_and_no_other(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out" / "epochs.csv"
    export(store, "epochs", out)
    before = out.read_bytes()
    with store.write() as connection:
        connection.execute(text("UPDATE epochs SET train_loss = 'no number' WHERE epoch = 1"))
    with pytest.raises(DamagedDatabase, match=r"damaged \(epochs.train_loss is 'no number'\)"):
        export(store, "epochs", out)
    assert out.read_bytes() == before
    assert os.listdir(out.parent) == ["epochs.csv"]  # noqa: PTH208


def test_a_place_that_cannot_be_written_is_named(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PfaError, match=r"cannot write .*epochs\.csv \(.*\)\. Name a file in a folder"):
        export(store, "epochs", tmp_path / "file" / "epochs.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(PfaError, match="cannot write"):
        export(store, "epochs", tmp_path / "folder.csv")
