"""What a notebook imports: quick, typed, and the same numbers as the command line's."""

import ast
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import pfa_cli as pfa
from pfa_cli.errors import PfaError
from pfa_cli.records import LayerRecord, metrics
from pfa_cli.registry import TABLE_1
from pfa_cli.store.engine import open_store
from pfa_cli.store.export import export


def test_importing_it_loads_nothing_and_every_name_is_there_when_it_is_used() -> None:
    code = (
        "import sys, pfa_cli as pfa\n"
        "assert not {'torch', 'pandas', 'sqlalchemy', 'numpy'} & set(sys.modules)\n"
        "assert {*pfa.__all__} <= {*dir(pfa)} and pfa.__version__\n"
        "pfa.load\n"
        "assert 'torch' not in sys.modules\n"
        "for name in pfa.__all__: assert callable(getattr(pfa, name)), name\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = pfa.lode


def test_type_checkers_see_every_public_name() -> None:
    source = Path(pfa.__file__)
    assert source.with_name("py.typed").exists()
    (block,) = (node for node in ast.parse(source.read_text()).body if isinstance(node, ast.If))
    ours = [n for n in block.body if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("pfa_cli")]
    imported = [alias.name for node in ours for alias in node.names]
    assert sorted(imported) == sorted(pfa.__all__)


def test_loading_gives_what_the_export_gives_with_settings_as_columns(database: Path, tmp_path: Path) -> None:
    results = pfa.load(database)
    with open_store(str(database), write=False) as store:
        for name, frame in results._asdict().items():
            export(store, name, tmp_path / f"{name}.parquet")
            read = pd.read_parquet(tmp_path / f"{name}.parquet").convert_dtypes()
            assert list(frame) == list(read)
            columns = [
                column for column in read.dropna(axis="columns", how="all") if column != "configuration"
            ]
            pd.testing.assert_frame_equal(frame.convert_dtypes()[columns], read[columns], check_dtype=False)
    assert set(results.runs["setting_expansion"].dropna()) >= {2.0, 10.0, 50.0}
    assert set(pfa.load(database, recipe="mnist").layers["recipe"]) == {"mnist"}


def test_loading_what_is_not_there_says_what_to_do(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PfaError, match="unknown recipe in this database 'minst': did you mean 'mnist'"):
        pfa.load(database, recipe="minst")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (tmp_path / "none.db", "~/none.db"):
        with pytest.raises(PfaError, match=f"no results yet at {tmp_path}/none.db: run `pfa run"):
            pfa.load(name)


@pytest.mark.parametrize("algorithm", TABLE_1)
def test_measuring_gives_one_row_per_layer_and_leaves_no_trace(algorithm: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    options = {"mirror_samples": 8} if algorithm == "wm" else {}
    network = pfa.convert(network, algorithm, **options)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    frame = pfa.measure(network, torch.randn(16, 6), torch.arange(16) % 3)
    assert list(frame) == ["layer_index", "layer", *(metric.name for metric in metrics(LayerRecord))]
    assert frame["layer"].tolist() == ["0", "3"]
    assert frame["weight_norm"].tolist() == pytest.approx(
        [network[i].weight.norm().item() for i in (0, 3)], rel=1e-5
    )
    assert frame["error_angle_degrees"].iloc[-1] == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_measuring_a_network_that_is_not_converted_is_refused() -> None:
    with pytest.raises(PfaError, match="comes before `measure`"):
        pfa.measure(nn.Linear(2, 2), torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
