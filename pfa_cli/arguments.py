"""What the command line's lists mean: algorithms, seeds, and ``--set key=value``."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from pfa_cli import registry
from pfa_cli.errors import UsageError
from pfa_cli.plugins import is_file
from pfa_cli.registry import ALGORITHMS, TABLE_1

_MOST_SEEDS = 1000
_HALF_DECIMAL = re.compile(r"(?<![\w.])(?:\.(\d+)|(\d+)\.(?!\d))")  # .1 and 1.


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """``--set`` arguments: values are TOML (numbers, lists, quoted strings), anything else is a string.

    Keys may be written in capitals, as the names of algorithms may.

    >>> parse_overrides(["expansion=20", "milestones=[5, 8]", "form=literal"])
    {'expansion': 20, 'milestones': [5, 8], 'form': 'literal'}
    >>> parse_overrides(["learning_rate=.1", "momentum=-1.e-3", "form=1.2.3"])
    {'learning_rate': 0.1, 'momentum': -0.001, 'form': '1.2.3'}
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not key or not text:
            raise UsageError(f"--set {assignment}: write it as key=value, for example --set epochs=2")
        key = key.lower()
        if key in overrides:
            raise UsageError(f"--set {key} is given twice")
        overrides[key] = _value(text)
    return overrides


def parse_algorithms(text: str, own: Mapping[str, str] | None = None) -> list[str]:
    """``all`` (the paper's nine and ``own``), or names and files of plug-ins separated by commas.

    ``own``: the recipe's plug-ins, name → file.

    >>> parse_algorithms("pfa, BP")
    ['pfa', 'bp']
    """
    own = own or {}
    names = [name.strip() for name in text.split(",") if name.strip()]
    names = [name if is_file(name) else name.lower() for name in names]
    if [name.lower() for name in names] == ["all"]:
        names = [*TABLE_1, *own]
    if not names:
        raise UsageError(f"--algos names no algorithm. Valid: all, {', '.join([*ALGORITHMS, *own])}")
    references = [own.get(name, name) for name in names]
    return list(dict.fromkeys(name for name in references if registry.algorithm(name)))


def parse_seeds(text: str) -> list[int]:
    """A count, or seeds and ranges separated by commas.

    >>> parse_seeds("5"), parse_seeds("0,3"), parse_seeds("2-4,9"), parse_seeds("7,")
    ([0, 1, 2, 3, 4], [0, 3], [2, 3, 4, 9], [7])
    """
    if _is_seed(text.strip()):
        ranges = [range(int(text))]
    else:
        ranges = [_range(part.strip()) for part in text.split(",") if part.strip()]
    if not ranges or not all(ranges):
        raise UsageError(
            f"--seeds {text}: give a count (5: seeds 0 to 4), a list (0,3; one: 3,) or a range (0-4)"
        )
    if sum(numbers.stop - numbers.start for numbers in ranges) > _MOST_SEEDS:
        raise UsageError(
            f"--seeds {text} asks for more than {_MOST_SEEDS} seeds; one seed alone is written 3,"
        )
    return list(dict.fromkeys(seed for numbers in ranges for seed in numbers))


def _range(part: str) -> range:
    """The seeds that "3" or "0-4" names; empty if it names none."""
    first, _, last = (side.strip() for side in part.partition("-"))
    last = last or (first if "-" not in part else "")
    return range(int(first), int(last) + 1) if _is_seed(first) and _is_seed(last) else range(0)


def _is_seed(text: str) -> bool:
    """Whether it is a whole number below 2^63, which is what the database can hold."""
    return text.isdecimal() and len(text) < 20 and int(text) < 1 << 63


def _value(text: str) -> Any:
    """A value of TOML; ``.1`` and ``1.``, which are numbers to everybody but TOML, too; else ``text`` itself."""
    for toml in (text, _HALF_DECIMAL.sub(lambda found: f"{found[2] or 0}.{found[1] or 0}", text)):
        try:
            parsed = tomllib.loads(f"value = {toml}")
        except (ValueError, RecursionError):  # ValueError: no TOML, or an integer of thousands of digits
            continue
        value = parsed["value"]
        return value if len(parsed) == 1 and isinstance(value, bool | int | float | str | list) else text
    return text
