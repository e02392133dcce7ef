"""What the fixture ``call`` gives (see conftest.py)."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What a command did: its exit code and what it printed."""

    code: int
    out: str
    err: str


Call = Callable[..., Answer]
