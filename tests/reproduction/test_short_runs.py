"""Every recipe with every algorithm, short but real: the command line, the data, the network, the database, the figures."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
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


def pfa(*arguments: str, cwd: Path) -> str:
    environment = os.environ | {"PFA_WORKERS": "1"}
    command = [sys.executable, "-m", "pfa_cli", *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _layers_and_epochs(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    for table in ("layers", "epochs"):
        pfa("export", "--table", table, "--out", f"{table}.csv", cwd=folder)
    return pd.read_csv(folder / "layers.csv"), pd.read_csv(folder / "epochs.csv")


def _check(folder: Path, n_layers: int, figure: str) -> None:
    layers, epochs = _layers_and_epochs(folder)
    assert set(epochs["algorithm"]) == set(TABLE_1)
    assert epochs.groupby("algorithm").size().eq(2).all()  # at initialisation, and after the epoch
    assert layers.groupby(["algorithm", "epoch"]).size().eq(n_layers).all()
    assert epochs["test_accuracy_percent"].between(0, 100).all()
    measured = layers[layers["algorithm"].isin(["pfa", "pfa-o"])]
    assert measured["path_angle_degrees"].between(0, 180).all()
    said = pfa("figures", "--out", "drawn", "--only", f"{figure},table1", cwd=folder)
    assert {f"{figure}.png", f"{figure}.pdf", f"{figure}.csv"} <= {
        p.name for p in (folder / "drawn").iterdir()
    }, said


def test_cifar10_with_every_algorithm(tmp_path: Path) -> None:
    pfa("run", "cifar10", "--algos", "all", "--epochs", "1", *CIFAR10, *MIRROR, cwd=tmp_path)
    _check(tmp_path, 20, "fig4")
    assert pd.read_csv(tmp_path / "epochs.csv")["validation_accuracy_percent"].notna().all()


def test_imagenet_with_every_algorithm(photographs: Path, tmp_path: Path) -> None:
    data = ["--data-dir", str(photographs)]
    pfa("run", "imagenet", "--algos", "all", "--epochs", "1", *IMAGENET, *MIRROR, *data, cwd=tmp_path)
    _check(tmp_path, 21, "fig5")


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
