"""Checkpoints: tensors in a safetensors file, the rest in a JSON file beside it, which also vouches for the tensors.

A checkpoint exists once its JSON file does; it is written last, and both are on the disk before `save` returns.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load
from safetensors.torch import save as serialise
from torch import Tensor

from pfa_cli import files

KEPT = 2


class Resumable(Protocol):
    """What can be saved: `pfa_cli.training.trainer.Trainer`, and whatever else gives and takes its state."""

    epochs_done: int
    step: int

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]: ...
    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None: ...


def save(folder: Path, trainer: Resumable) -> str:
    """Writes the trainer's state into ``folder``, which is there, keeps the last two, and returns the checkpoint's name."""
    name = f"epoch-{trainer.epochs_done:04d}-step-{trainer.step:07d}"
    tensors, facts = trainer.state()
    payload = serialise({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
    body = json.dumps({"tensors_sha256": _sha256(payload), "facts": facts})
    files.write(folder / f"{name}.safetensors", payload)
    files.write(
        folder / f"{name}.json", json.dumps({"sha256": _sha256(body.encode()), "body": body}).encode()
    )
    for old in names(folder)[KEPT:]:
        (folder / f"{old}.json").unlink(missing_ok=True)
        (folder / f"{old}.safetensors").unlink(missing_ok=True)
    return name


def restore(folder: Path, trainer: Resumable) -> tuple[str | None, list[str]]:
    """Restores the newest undamaged checkpoint in ``folder``.

    Returns its name, or None where there is none, and for each damaged one that was passed over its name and the reason.
    """
    damaged = []
    for name in names(folder):
        try:
            tensors, facts = _read(folder, name)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            damaged.append(f"{folder / name}: {error}")
            continue
        trainer.restore(tensors, facts)
        return name, damaged
    return None, damaged


def discard(folder: Path, *, after_epoch: int | None) -> None:
    """Removes the checkpoints of epochs after ``after_epoch`` (None: all), and what a killed process left half-written.

    A process that dies between saving an epoch's checkpoint and storing the epoch leaves a checkpoint that is ahead of
    the database: the epoch is trained again from the one before.
    """
    kept = {name for name in names(folder) if after_epoch is not None and _epoch(name) <= after_epoch}
    for path in [*folder.glob("epoch-*"), *folder.glob(".epoch-*")]:
        if path.stem not in kept:
            path.unlink(missing_ok=True)


def names(folder: Path) -> list[str]:
    """The checkpoints in ``folder``, newest first."""
    return sorted((path.stem for path in folder.glob("epoch-*.json")), reverse=True)


def _epoch(name: str) -> int:
    return int(name.split("-")[1])


def _read(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    outer = json.loads(files.read(folder / f"{name}.json"))
    if _sha256(outer["body"].encode()) != outer["sha256"]:
        raise ValueError("its JSON file does not match its checksum")
    body = json.loads(outer["body"])
    payload = files.read(folder / f"{name}.safetensors")
    if _sha256(payload) != body["tensors_sha256"]:
        raise ValueError("its tensors do not match their checksum")
    return load(payload), body["facts"]


def _sha256(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()
