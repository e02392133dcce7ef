"""MNIST and CIFAR-10 themselves, fetched into the user's data folder if they are not there."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from pfa_cli.data import cifar10, default_data_dir, load_dataset
from pfa_cli.data.in_memory import InMemoryDataset
from pfa_cli.errors import PfaError
from pfa_cli.recipes import load_recipe

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def mnist_data() -> InMemoryDataset:
    return load_dataset(load_recipe("mnist").configuration("bp"), default_data_dir(), CPU)


@pytest.fixture(scope="module")
def cifar10_data() -> InMemoryDataset:
    return load_dataset(load_recipe("cifar10").configuration("bp"), default_data_dir(), CPU)


def test_mnist_is_whole_and_normalised(mnist_data: InMemoryDataset) -> None:
    assert mnist_data.description == "MNIST, 60000 train / 10000 test"
    assert (mnist_data.n_classes, mnist_data.input_shape, mnist_data.splits) == (10, (784,), ("test",))
    assert mnist_data.steps_per_epoch(64) == 937
    x, y = mnist_data.probe(60_000)
    assert y.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert abs(x.mean().item()) < 1e-3 and abs(x.std().item() - 1) < 1e-3
    test = torch.cat([y for _, y in mnist_data.evaluation_batches("test")])
    assert test.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_cifar10_is_whole_split_and_normalised(cifar10_data: InMemoryDataset) -> None:
    assert cifar10_data.description == "CIFAR-10, 45000 train / 5000 validation / 10000 test"
    assert (cifar10_data.n_classes, cifar10_data.input_shape) == (10, (3, 32, 32))
    assert cifar10_data.steps_per_epoch(128) == 351
    x, y = cifar10_data.probe(45_000)
    held_out = torch.cat([y for _, y in cifar10_data.evaluation_batches("validation")])
    assert (y.bincount() + held_out.bincount()).tolist() == [5000] * 10
    assert x.mean((0, 2, 3)).abs().max() < 0.01 and (x.std((0, 2, 3)) - 1).abs().max() < 0.01
    assert (
        torch.cat([y for _, y in cifar10_data.evaluation_batches("test")]).bincount().tolist() == [1000] * 10
    )


def test_a_damaged_cifar10_file_is_named_with_the_cure(cifar10_data: InMemoryDataset, tmp_path: Path) -> None:
    path = tmp_path / cifar10.FILE
    shutil.copy(default_data_dir() / cifar10.FILE, path)
    with path.open("r+b") as file:
        file.seek(100_000_000)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(
        PfaError, match=r"cifar10.safetensors is damaged: the sha256 of its train_images is .*Delete it"
    ):
        cifar10.read(path)
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(PfaError, match=r"cifar10.safetensors is damaged: .*Delete it"):
        cifar10.read(path)


def test_torchvisions_files_and_the_packages_give_the_same_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small files in torchvision's format, since its own hosts cannot be reached from everywhere."""
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(256, size=(60, 3, 32, 32), dtype=np.uint8)
    names = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
    for number, name in enumerate(names):
        part = pixels[10 * number :][:10]
        (folder / name).write_bytes(pickle.dumps({"data": part.reshape(10, -1), "labels": list(range(10))}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(n) for n in range(10)]}))
    monkeypatch.setattr(CIFAR10, "train_list", [(name, None) for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [(name, None) for name in names[5:]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": None})
    arrays = cifar10.from_torchvision(tmp_path)
    np.testing.assert_array_equal(arrays["train_images"], pixels[:50])
    np.testing.assert_array_equal(arrays["test_images"], pixels[50:])
    assert arrays["train_labels"].tolist() == list(range(10)) * 5
    assert arrays["test_labels"].dtype == np.uint8 and all(a.flags.c_contiguous for a in arrays.values())
