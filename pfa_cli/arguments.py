"""What the command line's lists mean: algorithms, seeds, and ``--set key=value``."""

import itertools
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pfa_cli import registry
from pfa_cli.configuration import LIST_SETTINGS
from pfa_cli.errors import UsageError
from pfa_cli.plugins import is_file
from pfa_cli.registry import ALGORITHMS, TABLE_1

_MOST_SEEDS = 1000
_HALF_DECIMAL = re.compile(r"(?<![\w.])(?:\.(\d+)|(\d+)\.(?!\d))")  # .1 and 1.


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """``--set`` arguments with one value each, as `parse_grid` reads them.

    >>> parse_overrides(["expansion=20", "milestones=[5, 8]", "form=literal"])
    {'expansion': 20, 'milestones': [5, 8], 'form': 'literal'}
    """
    first, *others = parse_grid(assignments)
    for key in first:
        if any(other[key] != first[key] for other in others):
            raise UsageError(f"--set {key}: several values are for `pfa run`; give one here")
    return first


def parse_grid(assignments: Iterable[str]) -> list[dict[str, Any]]:
    """Every combination of the values that ``--set`` arguments name: key=1e-3,5e-3.

    Values are TOML (numbers, lists, quoted strings), anything else is a string. Keys may be written in capitals, as the
    names of algorithms may. `several` says what a list means.

    >>> parse_grid(["pal.rate=1e-3,5e-3", "milestones=[5, 8]"])
    [{'pal.rate': 0.001, 'milestones': [5, 8]}, {'pal.rate': 0.005, 'milestones': [5, 8]}]
    >>> parse_grid(["learning_rate=.1", "momentum=-1.e-3", "form=1.2.3"])
    [{'learning_rate': 0.1, 'momentum': -0.001, 'form': '1.2.3'}]
    """
    return combinations(parse_choices(assignments, "--set"))


def parse_choices(assignments: Iterable[str], option: str) -> dict[str, list[Any]]:
    """The values that ``option``'s arguments, key=value,value, name for each key.

    >>> parse_choices(["expansion=1,2", "form=closed"], "--where")
    {'expansion': [1, 2], 'form': ['closed']}
    """
    choices: dict[str, list[Any]] = {}
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not key or not text:
            raise UsageError(f"{option} {assignment}: write it as key=value, for example {option} epochs=2")
        key = key.lower()
        if key in choices:
            raise UsageError(f"{option} {key} is given twice; several values have commas between: {key}=1,2")
        parts = [part.strip() for part in _between_commas(text)]
        choices[key] = [value for part in parts if part for value in several(key, _value(part))]
        if not all(parts) or not choices[key]:
            raise UsageError(f"{option} {assignment}: a value is missing, for example {key}=1,2")
    return choices


def combinations(choices: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """The product of the choices.

    >>> combinations({"a": [1, 2], "b": [3]})
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    """
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def several(key: str, value: Any) -> list[Any]:
    """The values of the setting ``key`` that ``value`` names: those in a list, but a setting that is a list itself is one.

    >>> several("expansion", [1, 2]), several("milestones", [5, 8]), several("milestones", [[5, 8], [6]])
    ([1, 2], [[5, 8]], [[5, 8], [6]])
    """
    if not isinstance(value, list):
        return [value]
    of_lists = bool(value) and all(isinstance(each, list) for each in value)
    return [value] if key.rpartition(".")[2] in LIST_SETTINGS and not of_lists else value


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


def _between_commas(text: str) -> list[str]:
    """``text`` cut at the commas that stand neither in brackets nor in quotes, which begin where a value does.

    >>> _between_commas("[1, 2],'a,b',it's,more")
    ['[1, 2]', "'a,b'", "it's", 'more']
    """
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and parts[-1].rstrip()[-1:] in ("", *"[{,="):
            quote = character
        else:
            depth += (character in "[{") - (character in "]}")
        if character == "," and not quote and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


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
