"""Checkpoints on a real disk, and what becomes of damaged ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pfa_cli.training import checkpoint


class Counter:
    """Something with a state: how many epochs it has done."""

    def __init__(self, epochs_done: int = 0) -> None:
        self.epochs_done, self.step = epochs_done, 0

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {"half": torch.full((3,), self.epochs_done / 2)}, {"epochs": self.epochs_done}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        assert torch.equal(tensors["half"], torch.full((3,), facts["epochs"] / 2))
        self.epochs_done = facts["epochs"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for epoch in (1, 2, 3):
        checkpoint.save(tmp_path, Counter(epoch))
    return tmp_path


def test_the_last_two_are_kept_and_the_newest_is_restored(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        f"epoch-000{epoch}-step-0000000.{suffix}" for epoch in (2, 3) for suffix in ("json", "safetensors")
    ]
    counter = Counter()
    assert checkpoint.restore(folder, counter) == ("epoch-0003-step-0000000", [])
    assert counter.epochs_done == 3


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert checkpoint.restore(tmp_path / "nothing", Counter()) == (None, [])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 4
    path.write_bytes(content)


def change_a_fact(path: Path) -> None:
    path.write_text(path.read_text().replace('\\"epochs\\": 3', '\\"epochs\\": 4'))


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        ("safetensors", truncate),
        ("safetensors", flip_a_bit),
        ("safetensors", Path.unlink),
        ("json", truncate),
        ("json", flip_a_bit),
        ("json", change_a_fact),
    ],
)
def test_a_damaged_one_is_named_and_the_one_before_is_used(
    folder: Path, suffix: str, damage: Callable[[Path], None]
) -> None:
    path = folder / f"epoch-0003-step-0000000.{suffix}"
    before = path.read_bytes()
    damage(path)
    assert not path.exists() or path.read_bytes() != before
    counter = Counter()
    name, damaged = checkpoint.restore(folder, counter)
    assert name == "epoch-0002-step-0000000" and counter.epochs_done == 2
    assert len(damaged) == 1 and "epoch-0003" in damaged[0]


def test_nothing_is_pickled(folder: Path) -> None:
    json.loads((folder / "epoch-0003-step-0000000.json").read_text())
    assert b"pickle" not in (folder / "epoch-0003-step-0000000.safetensors").read_bytes()
