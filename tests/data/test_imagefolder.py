"""The ImageNet pipeline on real photographs where they are at hand, else on a small generated folder."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.datasets import ImageFolder

from pfa_cli.data import load_dataset, pipeline
from pfa_cli.data.imagefolder import MEAN, STD, ImageFolderDataset
from pfa_cli.errors import PfaError, StoppedWaiting, UsageError
from pfa_cli.recipes import load_recipe

PHOTOGRAPHS = Path(__file__).parents[3] / "shared" / "data" / "imagenette-mini"
COUNTS = {"train": 12, "val": 4}  # of each class
CPU = torch.device("cpu")


def generate(folder: Path) -> None:
    """Photographs of nothing, of several sizes, one in four of them grey."""
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for number in range(10 * count):
            size = rng.integers(40, 90, size=2)
            pixels = rng.integers(256, size=(*size, 3), dtype=np.uint8)
            path = folder / split / f"class{number % 10}" / f"{number:03}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).convert("L" if number % 4 == 0 else "RGB").save(path)


def is_grey(path: Path) -> bool:
    with Image.open(path) as image:
        return image.mode == "L"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten classes of 12 training and 4 validation images, at least one of them grey; free to be damaged."""
    if not PHOTOGRAPHS.is_dir():
        generate(tmp_path / "photographs")
        return tmp_path / "photographs"
    for split, count in COUNTS.items():
        for kind in (PHOTOGRAPHS / split).iterdir():
            folder = tmp_path / "photographs" / split / kind.name
            folder.mkdir(parents=True)
            images = sorted(kind.iterdir(), key=lambda path: (not is_grey(path), path.name))
            for path in images[:count]:
                (folder / path.name).symlink_to(path)
    return tmp_path / "photographs"


def dataset(root: Path, workers: int = 0, **overrides: Any) -> ImageFolderDataset:
    configuration = load_recipe("imagenet").configuration("bp", {"image_size": 64, **overrides})
    return ImageFolderDataset(configuration, root, CPU, workers)


def collected(batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def damage(root: Path, split: str, count: int) -> list[Path]:
    """Every other one is cut in half, the others are no images at all."""
    victims = sorted((root / split).rglob("*.JPEG"))[::7][:count]
    for number, path in enumerate(victims):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[: len(content) // 2] if number % 2 == 0 else b"not an image")
    return victims


def test_batches_do_not_depend_on_the_workers_nor_on_where_the_epoch_is_entered(root: Path) -> None:
    alone, with_two = dataset(root), dataset(root, workers=2)
    assert alone.description == "photographs (10 classes), 120 train / 40 test"
    assert alone.steps_per_epoch(32) == 3
    images, labels = collected(alone.train_batches(0, 1, 32))
    assert images.shape == (96, 3, 64, 64) and images.dtype == torch.float32 and labels.dtype == torch.int64
    again = collected(with_two.train_batches(0, 1, 32))
    assert torch.equal(images, again[0]) and torch.equal(labels, again[1])
    next(with_two.train_batches(0, 2, 32))  # left after one batch, as when a run is interrupted
    rest = collected(with_two.train_batches(0, 1, 32, start_step=2))
    assert torch.equal(images[64:], rest[0]) and torch.equal(labels[64:], rest[1])
    for seed, epoch in ((0, 2), (1, 1)):
        assert not torch.equal(collected(with_two.train_batches(seed, epoch, 32))[1], labels)
    torch.testing.assert_close(
        collected(with_two.evaluation_batches("test", 9)),
        collected(alone.evaluation_batches("test")),
        rtol=0,
        atol=0,
    )


def test_the_same_image_is_cropped_anew_in_every_epoch(root: Path) -> None:
    data = dataset(root, train_images=1)
    (first,), (second,) = (list(data.train_batches(0, epoch, 1)) for epoch in (1, 2))
    assert first[1] == second[1] and not torch.equal(first[0], second[0])
    state = torch.get_rng_state()
    list(data.train_batches(0, 3, 1))
    assert torch.equal(state, torch.get_rng_state())  # nobody else's random numbers are disturbed


def test_evaluation_is_torchvisions_resize_and_centre_crop(root: Path) -> None:
    data = dataset(root, image_size=224)
    reference = ImageFolder(
        root / "val",
        transforms.Compose(
            [
                transforms.Resize(256),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        ),
    )
    images, labels = collected(data.evaluation_batches("test", 16))
    expected = {image.double().sum().item(): (image, label) for image, label in reference}
    assert len(expected) == len(images) == 40
    order = sorted(expected)
    for image, label in zip(images, labels, strict=True):
        nearest = min(order, key=lambda total: abs(total - image.double().sum().item()))
        torch.testing.assert_close(image, expected[nearest][0], rtol=0, atol=1e-5)
        assert label == expected[nearest][1]


def test_the_first_images_are_of_all_classes_and_validation_comes_out_of_train(root: Path) -> None:
    data = dataset(root, validation_images=20, train_images=60, test_images=25)
    assert data.description == "photographs (10 classes), 60 train / 20 validation / 25 test"
    assert data.splits == ("validation", "test")
    _, labels = data.probe(60)
    assert len(labels.unique()) > 5
    assert torch.equal(data.probe(20)[0], data.probe(60)[0][:20])
    assert len(collected(data.evaluation_batches("validation"))[1]) == 20
    with pytest.raises(UsageError, match="unknown split 'val'"):
        data.evaluation_batches("val")


def test_unreadable_images_are_named_counted_and_replaced_the_same_way(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    victims = damage(root, "train", 3)
    data = dataset(root, workers=2, corrupt_share_percent=5)
    images, labels = collected(data.train_batches(0, 1, 30))
    assert sorted(data.unreadable) == sorted(str(path.resolve()) for path in victims)
    assert len(caplog.messages) == 3  # once each
    assert all("unreadable image, another one takes its place" in text for text in caplog.messages)
    assert len(images) == 120
    again = collected(dataset(root, corrupt_share_percent=5).train_batches(0, 1, 30))
    assert torch.equal(images, again[0]) and torch.equal(labels, again[1])
    caplog.clear()
    list(data.train_batches(0, 2, 30))
    assert len(data.unreadable) == 3 and not caplog.messages


@pytest.mark.parametrize(("count", "share"), [(4, 3.0), (1, 0.0), (120, 50.0)])
def test_too_many_unreadable_images_end_the_run(root: Path, count: int, share: float) -> None:
    for path in sorted((root / "train").rglob("*.JPEG"))[:count]:
        path.unlink()
        path.write_bytes(b"")
    data = dataset(root, workers=2, corrupt_share_percent=share)
    with pytest.raises(
        PfaError, match=r"unreadable train images: [0-9]+ of 120, more than corrupt_share_percent"
    ):
        list(data.train_batches(0, 1, 30))
    with pytest.raises(PfaError, match=r"unreadable train images: [0-9]+ of 120"):
        fresh = dataset(root, corrupt_share_percent=share)
        fresh.probe(120)


_START_A_FORK_SERVER = """
import multiprocessing, signal, sys
from pathlib import Path

if __name__ == "__main__":
    from multiprocessing import forkserver
    forkserver.ensure_running()  # before the pipeline, and with no signal held back

    import os, psutil
    from test_imagefolder import dataset

    batches = dataset(Path(sys.argv[1]), workers=2).train_batches(0, 1, 8)
    next(batches), next(batches)
    for process in psutil.Process().children(recursive=True):
        os.kill(process.pid, signal.SIGINT)
    print(len(list(batches)))
"""


def test_ctrl_c_does_not_reach_the_workers_of_a_fork_server_that_someone_else_started(root: Path) -> None:
    command = [sys.executable, "-c", _START_A_FORK_SERVER, str(root)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "13", done.stderr


def test_ctrl_c_does_not_reach_the_workers(root: Path) -> None:
    data = dataset(root, workers=2)
    batches = data.train_batches(0, 1, 8)
    next(batches), next(batches)  # one of each worker: both are there
    for process in psutil.Process().children(recursive=True):
        os.kill(process.pid, signal.SIGINT)
    assert len(list(batches)) == 13


def test_a_worker_that_was_killed_between_two_passes_is_told_as_within_one(root: Path) -> None:
    data = dataset(root, workers=1)
    list(data.train_batches(0, 1, 8))
    iterator: Any = data._pipeline._batches._iterator
    os.kill(iterator._workers[0].pid, signal.SIGKILL)
    with pytest.raises(PfaError, match="a process that decodes images ended unexpectedly"):
        list(data.train_batches(0, 1, 8))


def test_after_a_stop_a_worker_that_stands_still_with_a_batch_is_not_waited_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_LONGEST_WAIT_SECONDS", 0.1)
    data = dataset(root, workers=1)
    batches = data.train_batches(0, 1, 8)
    next(batches)
    iterator: Any = data._pipeline._batches._iterator
    worker = iterator._workers[0].pid
    assert iterator._worker_result_queue._reader.poll(
        60
    )  # the next batch has come, and the memory it is in has not
    os.kill(worker, signal.SIGSTOP)
    monkeypatch.setattr(pipeline, "stop_requested", lambda: True)
    with pytest.raises(StoppedWaiting, match="did not answer"), goes_on_after_a_minute(worker):
        list(batches)
    assert not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE


@contextmanager
def goes_on_after_a_minute(worker: int) -> Iterator[None]:
    """So that the test fails, rather than never ends, where the worker is waited for."""
    timer = threading.Timer(60, os.kill, (worker, signal.SIGCONT))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def test_a_folder_without_the_layout_is_told_what_belongs_there(root: Path, tmp_path: Path) -> None:
    configuration = load_recipe("imagenet").configuration("bp")
    with pytest.raises(
        PfaError, match=r"no photographs in .*train/<class>/ and val/<class>/.*--data-dir or PFA_DATA"
    ):
        load_dataset(configuration, tmp_path / "absent", CPU)
    root.rename(tmp_path / "imagenet")
    assert load_dataset(configuration, tmp_path, CPU).n_classes == 10
    (tmp_path / "imagenet" / "val" / "extra").mkdir()
    with pytest.raises(PfaError, match=r"(?s)val: .*extra"):
        load_dataset(configuration, tmp_path, CPU)
    Image.new("RGB", (8, 8)).save(tmp_path / "imagenet" / "val" / "extra" / "a.png")
    with pytest.raises(
        PfaError, match="train and val must have the same classes; only in one of them: extra"
    ):
        load_dataset(configuration, tmp_path, CPU)
