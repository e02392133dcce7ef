"""A metric is one field of a record: it gets its column, is stored and exported; one without a column is an error."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import table_reference
from store_cells import claimed, new_database

from pfa_cli.records import EpochRecord, LayerRecord, metric, metrics
from pfa_cli.store.engine import open_store
from pfa_cli.store.errors import StoreError
from pfa_cli.store.queries import epochs_frame
from pfa_cli.store.writer import record_epoch

WITH_ONE_MORE = """
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from pfa_cli import records


@dataclass(frozen=True)
class LayerRecord(records.LayerRecord):
    gradient_norm: float | None = records.metric("norm of the gradient")


records.LayerRecord = LayerRecord  # as if the line stood there

import store_cells
from pfa_cli.store.check import check
from pfa_cli.store.engine import open_store
from pfa_cli.store.export import export
from pfa_cli.store.queries import layers_frame
from pfa_cli.store.writer import record_epoch

folder = Path(sys.argv[1])
with open_store(str(folder / "old.db"), write=False) as store:
    assert layers_frame(store)["gradient_norm"].isna().all()
for name in ("old.db", "new.db"):
    with open_store(str(folder / name), write=True) as store:
        before = len(layers_frame(store))
        layer = LayerRecord(0, "a", 1.0, gradient_norm=0.5)
        mine = store_cells.claimed(store, seed=7)
        record_epoch(store, mine, records.EpochRecord(0, layers=(layer,)))
        frame = layers_frame(store)
        assert frame["gradient_norm"].dropna().tolist() == [0.5]
        assert len(frame) == before + 1
    assert check(str(folder / name)).ok
    with open_store(str(folder / name), write=False) as store:
        export(store, "layers", folder / f"{name}.csv")
        export(store, "layers", folder / f"{name}.parquet")
import pyarrow.parquet
field = pyarrow.parquet.read_schema(folder / "new.db.parquet").field("gradient_norm")
assert field.metadata[b"label"] == b"norm of the gradient"
"""


def test_one_field_is_all_that_a_new_metric_needs(tmp_path: Path) -> None:
    new_database(tmp_path / "old.db")
    code = [sys.executable, "-W", "error", "-c", WITH_ONE_MORE, str(tmp_path)]
    subprocess.run(code, check=True, env={"PYTHONPATH": f"{Path(__file__).parent}:{Path.cwd()}"})
    header, first, *_ = (tmp_path / "old.db.csv").read_text().splitlines()
    names = header.split(",")
    position = names.index("gradient_norm")
    assert position == names.index("setting_dataset") - 1  # the last metric; then come the settings
    assert first.split(",")[position] == ""  # stored before there was the metric
    with pytest.raises(StoreError, match=r"newer pfa .*its table layers has the column gradient_norm"):
        open_store(str(tmp_path / "old.db"), write=False)


@pytest.mark.parametrize("how", [metric("norm of the gradient"), None], ids=["metric", "plain field"])
def test_a_metric_without_a_column_is_an_error(tmp_path: Path, how: object) -> None:
    @dataclass(frozen=True)
    class Layer(LayerRecord):
        gradient_norm: float | None = how  # type: ignore[assignment]

    @dataclass(frozen=True)
    class Epoch(EpochRecord):
        gradient_norm: float | None = how  # type: ignore[assignment]

    with open_store(str(tmp_path / "pfa.db"), write=True) as store:
        mine = claimed(store)
        for wrong, table in ((EpochRecord(0, layers=(Layer(0, "a", 1.0),)), "layers"), (Epoch(0), "epochs")):
            with pytest.raises(StoreError, match=f"gradient_norm has no column in the table {table}"):
                record_epoch(store, mine, wrong)
        assert epochs_frame(store).empty


def test_every_metric_has_a_label_and_its_unit_is_that_of_its_name() -> None:
    units = {"percent", "degrees", "seconds"}
    for each in (*metrics(EpochRecord), *metrics(LayerRecord)):
        assert each.metadata["label"]
        named = set(each.name.split("_")) & units
        assert each.metadata["unit"] in (named or {None, "images/s"})


def test_the_description_of_every_column_is_up_to_date() -> None:
    written = table_reference.FILE.read_text(encoding="utf-8")
    assert written == table_reference.reference(), "python tests/table_reference.py writes it anew"


def test_a_column_that_lost_its_name_is_damage_and_not_a_new_metric(tmp_path: Path) -> None:
    path = new_database(tmp_path / "pfa.db")
    content = path.read_bytes()
    assert content.count(b"path_angle_degrees") == 1
    path.write_bytes(content.replace(b"path_angle_degrees", b"path_bngle_degrees"))
    for write in (True, False):
        with pytest.raises(StoreError, match=r"damaged .*layers lacks the column path_angle_degrees"):
            open_store(str(path), write=write)
