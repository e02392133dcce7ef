"""Checkpoints on a real disk, and what becomes of damaged ones."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from stand_ins import Blobs, configuration
from torch import Tensor

from pfa_cli.algorithms import ALGORITHMS
from pfa_cli.errors import PfaError
from pfa_cli.training import checkpoint
from pfa_cli.training.trainer import Trainer


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
    counter, name, passed_over = checkpoint.restore(folder, Counter)
    assert (name, passed_over) == ("epoch-0003-step-0000000", [])
    assert counter.epochs_done == 3


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert checkpoint.restore(tmp_path / "nothing", Counter)[1:] == (None, [])


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
    counter, name, damaged = checkpoint.restore(folder, Counter)
    assert name == "epoch-0002-step-0000000" and counter.epochs_done == 2
    assert len(damaged) == 1 and "epoch-0003" in damaged[0]


def forged(folder: Path, name: str, **changes: Any) -> None:
    """Writes a checkpoint whose checksums are right, with ``changes`` to the parts of its JSON file."""
    tensors = changes.pop("payload", None)
    json_path, tensors_path = checkpoint.paths(folder, name)
    body = json.loads(json.loads(json_path.read_text())["body"]) | changes
    if tensors is not None:
        tensors_path.write_bytes(serialise(tensors))
        body["tensors_sha256"] = hashlib.sha256(tensors_path.read_bytes()).hexdigest()
    text = json.dumps(body)
    json_path.write_text(json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "body": text}))


NEWEST = "epoch-0003-step-0000000"


def write(content: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / f"{NEWEST}.json").write_text(content)

    return spoil


def replace_by(make: Callable[[Path], object], suffix: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / f"{NEWEST}.{suffix}"
        path.unlink()
        make(path)

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        *(write(text) for text in ("[]", "3", "null", "{}", '{"body": [], "sha256": 1}', "[" * 100_000, "")),
        write(json.dumps({"body": "[]", "sha256": hashlib.sha256(b"[]").hexdigest()})),
        lambda folder: forged(folder, NEWEST, facts={}),
        lambda folder: forged(folder, NEWEST, facts=[]),
        lambda folder: forged(folder, NEWEST, facts={"epochs": "three"}),
        lambda folder: forged(folder, NEWEST, payload={}),
        lambda folder: forged(folder, NEWEST, payload={}, tensors=[]),
        *(replace_by(make, suffix) for make in (Path.mkdir, os.mkfifo) for suffix in ("json", "safetensors")),
        *(
            replace_by(lambda path: path.symlink_to("/dev/zero"), suffix)
            for suffix in ("json", "safetensors")
        ),
    ],
)
def test_one_that_is_well_formed_but_wrong_is_passed_over(
    folder: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(folder)
    counter, name, passed_over = checkpoint.restore(folder, Counter)
    assert name == "epoch-0002-step-0000000" and counter.epochs_done == 2
    assert len(passed_over) == 1 and NEWEST in passed_over[0]
    checkpoint.discard(folder, after_epoch=2)
    assert checkpoint.save(folder, Counter(3)) == NEWEST  # whatever stands in the way
    assert checkpoint.restore(folder, Counter)[1:] == (NEWEST, [])


@pytest.mark.parametrize("name", ["epoch-x.json", "epoch-0004.json", "epoch-0004-step-x.json", "epoch-.json"])
def test_what_only_begins_like_one_is_left_alone(folder: Path, name: str) -> None:
    (folder / name).write_text("mine")
    assert checkpoint.restore(folder, Counter)[1:] == (NEWEST, [])
    checkpoint.discard(folder, after_epoch=1)
    checkpoint.save(folder, Counter(2))
    assert (folder / name).read_text() == "mine"


def test_one_of_another_cell_is_passed_over(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("another-cell")
    shutil.copytree(folder, other, dirs_exist_ok=True)
    _, name, passed_over = checkpoint.restore(other, Counter)
    assert name is None and all(f"another cell, {folder.name}" in reason for reason in passed_over)
    moved = shutil.copytree(folder, other / folder.name)
    assert checkpoint.restore(moved, Counter)[1:] == (NEWEST, [])


def test_epochs_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for epoch in (9_999, 10_000, 10_001):
        checkpoint.save(tmp_path, Counter(epoch))
    assert checkpoint.names(tmp_path) == ["epoch-10001-step-0000000", "epoch-10000-step-0000000"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_tensor_and_no_fact_can_be_missing(algorithm: str) -> None:
    """Under right checksums: what another program wrote, or another version."""

    def trainer() -> Trainer:
        options = {"mirror_samples": 4} if algorithm == "wm" else {}
        return Trainer(configuration(algorithm, options=options), Blobs(), 0, torch.device("cpu"))

    stopped = trainer()
    list(stopped.epochs(lambda: stopped.epochs_done == 1 and stopped.step == 2))
    tensors, facts = stopped.state()
    trainer().restore(tensors, facts)

    def is_noticed(tensors: dict[str, Tensor], facts: dict[str, Any]) -> bool:
        """Or makes no difference."""
        resumed = trainer()
        try:
            resumed.restore(tensors, facts)
        except (PfaError, LookupError):
            return True
        found, found_facts = resumed.state()
        return found_facts == stopped.state()[1] and all(
            torch.equal(t, found[k]) for k, t in stopped.state()[0].items()
        )

    for name in tensors:
        assert is_noticed({key: t for key, t in tensors.items() if key != name}, facts), name
    for name, value in facts.items():
        assert is_noticed(tensors, {key: fact for key, fact in facts.items() if key != name}), name
        for inner in value:
            less = {key: fact for key, fact in value.items() if key != inner}
            assert is_noticed(tensors, facts | {name: less}), (name, inner)


def test_a_final_one_has_no_momentum(tmp_path: Path) -> None:
    trainer = Trainer(configuration("pfa", epochs=1, milestones=()), Blobs(), 0, torch.device("cpu"))
    list(trainer.epochs())
    with_momentum = trainer.state()[0]
    name = checkpoint.save(tmp_path, trainer, final=True)
    stored = load_file(checkpoint.paths(tmp_path, name)[1])
    assert {key for key in with_momentum if not key.startswith("momentum.")} == stored.keys()
    assert stored.keys() < with_momentum.keys()


def test_nothing_is_pickled(folder: Path) -> None:
    json.loads((folder / "epoch-0003-step-0000000.json").read_text())
    assert b"pickle" not in (folder / "epoch-0003-step-0000000.safetensors").read_bytes()
