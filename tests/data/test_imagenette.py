"""Imagenette: photographs that stay in memory, where the folder comes from, and its recipe."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from stand_ins import Blobs, configuration

from pfa_cli.algorithms.pfa import PFAO
from pfa_cli.data import check_data, imagefolder, imagenette, load_dataset
from pfa_cli.data.fetch import NotFetched, without_fetching
from pfa_cli.data.imagefolder import ImageFolderDataset
from pfa_cli.data.sources import SourceFailed
from pfa_cli.errors import PfaError, UsageError
from pfa_cli.recipes import load_recipe
from pfa_cli.training import schedule
from pfa_cli.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Small photographs of nothing in two classes: 24 to train and 8 to test."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(256, size=(48 + number, 60, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / label / f"{number}.JPEG")
    return tmp_path


def dataset(folder: Path, **settings: object) -> ImageFolderDataset:
    small = {"image_size": 32, "batch_size": 8} | settings
    found = load_dataset(load_recipe("imagenette").configuration("bp", small), folder, CPU)
    assert isinstance(found, ImageFolderDataset)
    return found


def test_photographs_that_stay_in_memory_give_the_same_batches_and_are_decoded_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PFA_WORKERS", "0")
    monkeypatch.setenv("PFA_PHOTOGRAPHS_GB", "0")
    decoded = dataset(folder)
    assert not caplog.messages
    monkeypatch.setenv("PFA_PHOTOGRAPHS_GB", "0.001")
    kept = dataset(folder)
    assert "decoded once and stays in memory, about 0 MB" in caplog.text
    for epoch in (1, 2):
        for mine, theirs in zip(
            kept.train_batches(0, epoch, 8), decoded.train_batches(0, epoch, 8), strict=True
        ):
            assert torch.equal(mine[0], theirs[0]) and torch.equal(mine[1], theirs[1])
    expected = [images for images, _ in decoded.evaluation_batches("test")]
    list(kept.evaluation_batches("test"))
    for path in folder.rglob("*.JPEG"):
        path.unlink()
    assert torch.equal(next(iter(kept.evaluation_batches("test")))[0], expected[0])
    assert len(list(kept.train_batches(0, 3, 8))) == 3


@pytest.mark.parametrize(
    ("workers", "gigabytes", "device", "kept"),
    [
        (None, "0.001", "cpu", True), (None, None, "cpu", True), (None, "0.0001", "cpu", False),
        ("2", "0.001", "cpu", False), ("0", "0.001", "meta", True), (None, "0.001", "meta", False),
    ],
)  # fmt: skip
def test_photographs_stay_in_memory_where_they_fit_and_no_processes_are_wanted(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: str | None,
    gigabytes: str | None,
    device: str,
    kept: bool,
) -> None:
    for name, value in (("PFA_WORKERS", workers), ("PFA_PHOTOGRAPHS_GB", gigabytes)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    found = imagefolder.open_folder(
        load_recipe("imagenette").configuration("bp"), folder, torch.device(device)
    )
    assert all((photographs.kept is not None) == kept for photographs in found._photographs.values())


@pytest.mark.parametrize("named", ["much", "-1", "nan", "inf"])
def test_a_size_of_the_memory_that_is_none_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("PFA_PHOTOGRAPHS_GB", named)
    with pytest.raises(UsageError, match=rf"PFA_PHOTOGRAPHS_GB \(={named}\) must be a number"):
        dataset(folder)


def test_an_unreadable_photograph_is_replaced_and_named_once_in_memory_too(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "train" / "a" / "3.JPEG").write_bytes(b"")
    data = dataset(folder, corrupt_share_percent=10.0)
    for epoch in (1, 2):
        assert len(list(data.train_batches(0, epoch, 8))) == 3
    assert sum("unreadable image, another one takes its place" in text for text in caplog.messages) == 1


def test_the_folder_is_the_one_named_or_the_one_that_was_fetched(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert imagenette.locate(folder) == folder
    data_dir = tmp_path_factory.mktemp("data")
    bp = load_recipe("imagenette").configuration("bp")
    with without_fetching(), pytest.raises(NotFetched, match="Imagenette is not in"):
        imagenette.prepare(data_dir)
    check_data(bp, data_dir)
    downloaded = tmp_path_factory.mktemp("downloaded")
    with pytest.raises(SourceFailed, match="has no folders imagenette2-160/train"):
        imagenette._install(downloaded, data_dir)
    folder.rename(downloaded / imagenette.FOLDER)
    imagenette._install(downloaded, data_dir)
    assert load_dataset(bp, data_dir, CPU).description == "imagenette2-160 (2 classes), 24 train / 8 test"


def test_without_a_network_the_error_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(
        PfaError, match=r"(?s)Imagenette is not in .*torchvision: .*imagenette2-160\.tgz  md5 e793b78c"
    ):
        imagenette.prepare(tmp_path)


def test_the_first_epochs_decay_is_kept_whatever_the_number_of_its_steps() -> None:
    recipe = load_recipe("imagenette")
    for name in ("pfa", "pfa-o", "kp", "pfa-l", "mix"):
        c = recipe.configuration(name)
        for steps in (20, 147):
            decay = schedule.weight_decay(c, 1, steps)
            assert c.learning_rate * decay * steps / (1 - c.momentum) == pytest.approx(2.5)
        assert schedule.weight_decay(c, 2, 147) == c.weight_decay
    assert schedule.weight_decay(recipe.configuration("bp"), 1, 147) == 1e-4
    imagenet = load_recipe("imagenet").configuration("pfa")
    total = imagenet.learning_rate * schedule.weight_decay(imagenet, 1, 5004) * 5004 / (1 - imagenet.momentum)
    assert total == pytest.approx(2.5, rel=1e-3)
    with pytest.raises(UsageError, match="say the same in two ways: give one"):
        recipe.configuration("pfa", {"first_epoch_weight_decay": 0.03})


def test_after_the_first_epoch_alpha_is_what_the_total_decay_leaves() -> None:
    settings = {"epochs": 1, "first_epoch_weight_decay": None, "first_epoch_decay": 0.5, "momentum": 0.5}
    trainer = Trainer(configuration("pfa-o", **settings), Blobs(), 0, CPU)
    (_, first) = trainer.epochs()
    assert first.weight_decay == pytest.approx(0.5 * 0.5 / (0.05 * 12))
    assert isinstance(trainer.algorithm, PFAO)
    assert trainer.algorithm.alpha == pytest.approx(math.exp(-0.5), rel=0.1)  # of only 12 steps
