"""Random streams named by what they are for, so that no draw depends on another's history."""

import hashlib

import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream that ``names`` describe within the experiment ``seed``.

    >>> stream_seed(0, "order", 1) == stream_seed(0, "order", 1)
    True
    >>> stream_seed(0, "order", 1) == stream_seed(0, "order", 2)
    False
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator at the start of the stream ``names`` of the experiment ``seed``."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, *names))
