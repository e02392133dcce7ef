"""Credit assignment without weight symmetry: eight learning algorithms, one trainer, one results database.

For notebooks and training loops of one's own (docs/notebook.md), whatever takes seconds to import is imported on first use:

    import pfa_cli as pfa

    network = pfa.convert(network, "pfa")        # every Linear and Conv2d gets a feedback path
    pfa.attach(network, optimizer)               # the optimiser tells the algorithm of its steps
    pfa.measure(network, images, labels)         # angles and norm ratios of every layer, a data frame
    pfa.load("results/pfa.db").epochs            # what `pfa run` stored, as data frames
"""

from importlib import import_module

# As type checkers know it from `typing`, whose import takes 8 ms, in which Ctrl-C would show a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from pfa_cli.algorithms.conversion import attach, convert
    from pfa_cli.notebook import Results, load, measure

__version__ = "0.2.0.dev0"

_FROM = {
    "Results": "notebook",
    "attach": "algorithms.conversion",
    "convert": "algorithms.conversion",
    "load": "notebook",
    "measure": "notebook",
}

__all__ = ["Results", "attach", "convert", "load", "measure"]


def __getattr__(name: str) -> object:
    if name in _FROM:
        return getattr(import_module(f"pfa_cli.{_FROM[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
