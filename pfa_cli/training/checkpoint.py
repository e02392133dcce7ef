"""Checkpoints: tensors in a safetensors file, the rest in a JSON file beside it, which also vouches for the tensors.

A checkpoint exists once its JSON file does; it is written last, and both are on the disk before `save` returns.
"""

import contextlib
import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from safetensors.torch import save as serialise
from torch import Tensor

from pfa_cli import files
from pfa_cli.errors import PfaError

KEPT = 2
_FILE = re.compile(r"epoch-(\d+)-step-(\d+)\.(json|safetensors)")


class Resumable(Protocol):
    """What can be saved: `pfa_cli.training.trainer.Trainer`, and whatever else gives and takes its state."""

    epochs_done: int
    step: int

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]: ...
    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None: ...


R = TypeVar("R", bound=Resumable)


def save(folder: Path, trainer: Resumable, *, final: bool = False) -> str:
    """Writes the trainer's state into ``folder``, which is there, keeps the last two, and returns the checkpoint's name.

    ``final``: nothing is left to train, so the momentum, as large as the network, is left out.
    """
    name = f"epoch-{trainer.epochs_done:04d}-step-{trainer.step:07d}"
    tensors, facts = trainer.state()
    _write(folder, name, without_momentum(tensors) if final else tensors, facts)
    keep_newest(folder, KEPT)
    return name


def restore(folder: Path, make: Callable[[], R]) -> tuple[R, str | None, list[str]]:
    """A trainer by ``make``, in the state of the newest checkpoint in ``folder`` that is whole and fits it.

    Returns the trainer, the checkpoint's name, or None where there is none, and for each one that was passed over its name
    and the reason.
    """
    trainer, passed_over = make(), []
    for name in names(folder):
        try:
            tensors, facts = _read(folder, name)
        except (OSError, ValueError, SafetensorError) as error:
            passed_over.append(f"{folder / name}: {error}")
            continue
        try:
            trainer.restore(tensors, facts)
        except torch.OutOfMemoryError:
            raise
        except (PfaError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            passed_over.append(f"{folder / name}: it does not fit ({type(error).__name__}: {error})")
            trainer = make()  # this one may be restored in part
            continue
        return trainer, name, passed_over
    return trainer, None, passed_over


def discard(folder: Path, *, after_epoch: int | None) -> None:
    """Removes the checkpoints of epochs after ``after_epoch`` (None: all), and what a killed process left half-written.

    A process that dies between saving an epoch's checkpoint and storing the epoch leaves a checkpoint that is ahead of
    the database: the epoch is trained again from the one before.
    """
    for path in half_written(folder):
        path.unlink(missing_ok=True)
    complete = set(names(folder))
    for path in folder.glob("epoch-*"):
        found = _FILE.fullmatch(path.name)
        ahead = found and (after_epoch is None or int(found[1]) > after_epoch or path.stem not in complete)
        if ahead and not path.is_dir():
            path.unlink(missing_ok=True)


def names(folder: Path) -> list[str]:
    """The checkpoints in ``folder``, newest first."""
    found = (match for path in folder.glob("epoch-*.json") if (match := _FILE.fullmatch(path.name)))
    newest_first = sorted(found, key=lambda match: (int(match[1]), int(match[2])), reverse=True)
    return [match[0].removesuffix(".json") for match in newest_first]


def keep_newest(folder: Path, kept: int = 1) -> None:
    """Removes all but the newest ``kept`` checkpoints; the JSON file, without which there is none, first."""
    for old in names(folder)[kept:]:
        for path in paths(folder, old):
            with contextlib.suppress(IsADirectoryError, PermissionError):  # a folder by that name is not ours
                path.unlink(missing_ok=True)


def half_written(folder: Path) -> list[Path]:
    """The files of checkpoints whose process was killed while it wrote them."""
    return [path for path in folder.glob(".epoch-*") if path.is_file()]


def paths(folder: Path, name: str) -> tuple[Path, Path]:
    """The two files of a checkpoint."""
    return folder / f"{name}.json", folder / f"{name}.safetensors"


def strip_momentum(folder: Path, name: str) -> None:
    """Takes the momentum out of a checkpoint that nothing will be resumed from. Leaves a damaged one as it is."""
    with contextlib.suppress(OSError, ValueError, SafetensorError):
        tensors, facts = _read(folder, name)
        if len(rest := without_momentum(tensors)) < len(tensors):
            _write(folder, name, rest, facts)


def momentum_bytes(folder: Path, name: str) -> int:
    """How much of a whole checkpoint is momentum."""
    try:
        tensors, _ = _read(folder, name)
    except (OSError, ValueError, SafetensorError):
        return 0
    return sum(t.nbytes for key, t in tensors.items() if key.startswith("momentum."))


def without_momentum(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that are not the optimiser's."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("momentum.")}


def _write(folder: Path, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    payload = serialise({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
    body = json.dumps(
        {"cell": folder.name, "tensors_sha256": _sha256(payload), "tensors": sorted(tensors), "facts": facts}
    )
    vouched = json.dumps({"sha256": _sha256(body.encode()), "body": body})
    json_path, tensors_path = paths(folder, name)
    for path, content in ((tensors_path, payload), (json_path, vouched.encode())):
        if path.exists() and not path.is_file():  # a folder or a pipe by that name
            path.rename(path.with_name(f"not-a-checkpoint-{secrets.token_hex(4)}-{path.name}"))
        files.write(path, content)


def _read(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """OSError, ValueError or SafetensorError if the checkpoint is not whole, or was written in another cell's folder."""
    json_path, tensors_path = paths(folder, name)
    body = _vouched(files.read(json_path))
    if (cell := body.get("cell", folder.name)) != folder.name:  # earlier versions did not name it
        raise ValueError(f"it is of another cell, {cell}")
    payload = files.read(tensors_path)
    if _sha256(payload) != body.get("tensors_sha256"):
        raise ValueError("its tensors do not match their checksum")
    tensors = load(payload)
    if sorted(tensors) != body.get("tensors", sorted(tensors)):  # earlier versions did not list them
        raise ValueError("some of its tensors are missing")
    facts = body.get("facts")
    if not isinstance(facts, dict):
        raise ValueError("its JSON file has no facts")
    return tensors, facts


def _vouched(content: bytes) -> dict[str, Any]:
    """The part of a JSON file that its checksum is of."""
    try:
        outer = json.loads(content)
        text = outer["body"]
        if _sha256(text.encode()) != outer["sha256"]:
            raise ValueError("its JSON file does not match its checksum")
        body = json.loads(text)
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its JSON file is not one of a checkpoint ({type(error).__name__})") from None
    if not isinstance(body, dict):
        raise ValueError("its JSON file is not one of a checkpoint")
    return body


def _sha256(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()
