"""The subject of the paper: one file per algorithm, each opening with its equation.

`registry` and its names load without torch; `convert` and the rest load it when first asked for.
"""

from typing import TYPE_CHECKING, Any

from pfa_cli.registry import ALGORITHMS

if TYPE_CHECKING:
    from pfa_cli.algorithms.feedback import Algorithm, convert, exact_backward, unobserved

__all__ = ["ALGORITHMS", "Algorithm", "convert", "exact_backward", "unobserved"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from pfa_cli.algorithms import feedback

        return getattr(feedback, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
