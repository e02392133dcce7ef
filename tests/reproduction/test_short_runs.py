"""Every recipe, short but real: the command line, the data, the network, the database, the figures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import Call
from PIL import Image

from pfa_cli.registry import TABLE_1

PHOTOGRAPHS = Path(__file__).parents[3] / "shared" / "data" / "imagenette-mini"
MIRROR = ["--set", "wm.mirror_samples=32", "--set", "wm.mirror_rate=0.5"]
CIFAR10 = [
    "--set",
    "train_images=256",
    "--set",
    "validation_images=100",
    "--set",
    "test_images=100",
    "--set",
    "batch_size=64",
]
IMAGENET = [
    "--set",
    "image_size=32",
    "--set",
    "train_images=64",
    "--set",
    "test_images=20",
    "--set",
    "batch_size=32",
]


pytestmark = pytest.mark.usefixtures("without_simulations")
ALGORITHMS = [
    pytest.param(("bp", "wm", "pfa"), id="three"),
    pytest.param(TABLE_1, id="all", marks=pytest.mark.long),
]


def _check(call: Call, folder: Path, algorithms: Sequence[str], n_layers: int, figure: str) -> pd.DataFrame:
    """Looks at all that was stored, and draws it; the table of epochs."""
    for table in ("layers", "epochs"):
        assert call("export", "--table", table, "--out", f"{table}.csv").code == 0
    layers, epochs = pd.read_csv(folder / "layers.csv"), pd.read_csv(folder / "epochs.csv")
    assert set(epochs["algorithm"]) == set(algorithms)
    assert epochs.groupby("algorithm").size().eq(2).all()  # at initialisation, and after the epoch
    assert layers.groupby(["algorithm", "epoch"]).size().eq(n_layers).all()
    assert epochs["test_accuracy_percent"].between(0, 100).all()
    measured = layers[layers["algorithm"].isin(["pfa", "pfa-o"])]
    assert measured["path_angle_degrees"].between(0, 180).all()
    said = call("figures", "--out", "drawn", "--only", f"{figure},table1")
    drawn = {path.name for path in (folder / "drawn").iterdir()}
    assert {f"{figure}.png", f"{figure}.pdf", f"{figure}.csv"} <= drawn, said
    return epochs


def _run(call: Call, recipe: str, algorithms: Sequence[str], *arguments: str) -> None:
    answer = call(
        "run", recipe, "--algos", ",".join(algorithms), "--epochs=1", "--jobs=1", *MIRROR, *arguments
    )
    assert answer.code == 0, answer.out + answer.err


@pytest.mark.parametrize("algorithms", ALGORITHMS)
def test_cifar10(algorithms: Sequence[str], call: Call, tmp_path: Path) -> None:
    _run(call, "cifar10", algorithms, *CIFAR10)
    epochs = _check(call, tmp_path, algorithms, 20, "fig4")
    assert epochs["validation_accuracy_percent"].notna().all()


@pytest.mark.parametrize("algorithms", ALGORITHMS)
def test_imagenet(
    algorithms: Sequence[str],
    photographs: Path,
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PFA_WORKERS", "1")
    _run(call, "imagenet", algorithms, *IMAGENET, "--data-dir", str(photographs))
    _check(call, tmp_path, algorithms, 21, "fig5")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photographs where they are at hand, else a folder of the same layout with coloured noise in it."""
    if PHOTOGRAPHS.is_dir():
        return PHOTOGRAPHS
    folder, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for split, images in (("train", 16), ("val", 5)):
        for name in ("first", "second", "third", "fourth"):
            (folder / split / name).mkdir(parents=True)
            for number in range(images):
                pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder
