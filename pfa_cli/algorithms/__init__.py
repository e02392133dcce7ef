"""The subject of the paper: one file per algorithm, each opening with its equation.

What an algorithm of one's own needs is here too (README.md). All but `ALGORITHMS`, `Entry` and `Option` loads torch, when it
is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pfa_cli.registry import ALGORITHMS, Entry, Option

if TYPE_CHECKING:
    from pfa_cli.algorithms.base import Algorithm, FeedbackLayer, exact_backward, unobserved
    from pfa_cli.algorithms.conversion import attach, convert
    from pfa_cli.algorithms.drawing import glorot_path

_FROM = {
    "Algorithm": "base",
    "FeedbackLayer": "base",
    "attach": "conversion",
    "convert": "conversion",
    "exact_backward": "base",
    "glorot_path": "drawing",
    "unobserved": "base",
}

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Entry",
    "FeedbackLayer",
    "Option",
    "attach",
    "convert",
    "exact_backward",
    "glorot_path",
    "unobserved",
]


def __getattr__(name: str) -> Any:
    if name in _FROM:
        return getattr(import_module(f"pfa_cli.algorithms.{_FROM[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
