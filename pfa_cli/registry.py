"""The algorithms, networks and data sets there are, with what the command line and the figures say about them. No torch.

Each is declared beside its code, as ``entry = Entry(...)``, ``NetworkEntry(...)`` or ``DatasetEntry(...)``. The declarations
of this package are read from the text of its files, as setuptools reads ``attr:``, because running these files would import
torch, which takes seconds.
"""

import ast
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pfa_cli.errors import UsageError, unknown

if TYPE_CHECKING:
    from pfa_cli.algorithms.feedback import Algorithm

OptionValue = float | int | str
Limit = tuple[float | None, float | None]


@dataclass(frozen=True)
class Option:
    """One setting of an algorithm: its default, what it means, and what it may be."""

    default: OptionValue
    meaning: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None

    def check(self, name: str, value: object) -> OptionValue:
        """``value`` in the type of the default, or a UsageError that prints the bad value and the rule it broke."""
        if self.choices:
            if value not in self.choices:
                raise unknown(f"value of {name}", str(value), self.choices)
            return str(value)
        whole = isinstance(self.default, int)
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise UsageError(f"{name} (={value!r}) must be a finite number")
        number = float(value)
        if whole and not number.is_integer():
            raise UsageError(f"{name} (={value!r}) must be a whole number")
        if self.minimum is not None and number < self.minimum:
            raise UsageError(f"{name} (={value}) must be at least {self.minimum:g}")
        if self.maximum is not None and number > self.maximum:
            raise UsageError(f"{name} (={value}) must be at most {self.maximum:g}")
        return int(number) if whole else number


@dataclass(frozen=True)
class Entry:
    """One algorithm as the command line, the figures and Table 1 see it.

    Args:
        name: in small letters; what ``--algos`` and the database call it.
        label: in figures and tables; the name if it is left out.
        title: in full.
        colour: of its curves, as "#RRGGBB"; None: the figures choose one.
        dashed: its curve lies on top of another's.
        measure: which angle and norm ratio describe its feedback: of its weights, or of its path through other neurons.
        limit: where angle (degrees) and norm ratio end up by theory: a function of the options that returns both, either
            of them None where no theory says; or its name, "module:function", for a module without torch.
        options: its settings.
        no_sign_transport, no_magnitude_transport, no_separate_phase: the first three rows of the paper's Table 1. They are
            properties of the algorithm, not results. None: not known. "†" carries the table's footnote: it is unclear how
            the brain would learn the weights.
        variant_of: the algorithm in whose column of Table 1 it stands.
        implementation: "module:Class"; set by the registry.
    """

    name: str
    label: str = ""
    title: str = ""
    colour: str | None = None
    dashed: bool = False
    measure: Literal["weight", "path"] = "weight"
    limit: str | Callable[[Mapping[str, Any]], Limit] | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
    no_sign_transport: bool | None = None
    no_magnitude_transport: bool | None = None
    no_separate_phase: bool | Literal["†"] | None = None
    variant_of: str | None = None
    implementation: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.name)

    def load(self) -> "type[Algorithm]":
        """The class that implements the algorithm (imports torch)."""
        return _named(self.implementation)

    def limit_of(self, options: Mapping[str, Any]) -> Limit:
        """Angle in degrees and norm ratio after learning, as far as theory knows them; the ratio is else BP's, 1."""
        if self.limit is None:
            return None, 1.0
        function = _named(self.limit) if isinstance(self.limit, str) else self.limit
        return function(options)

    def check_options(self, given: Mapping[str, object]) -> dict[str, OptionValue]:
        """Every option with its value; UsageError for an unknown name or a value out of range."""
        for name in given:
            if name not in self.options:
                raise unknown(f"option of {self.name}", name, self.options)
        return {
            name: option.check(name, given.get(name, option.default)) for name, option in self.options.items()
        }


def algorithm(name: str) -> Entry:
    """The algorithm ``name``; UsageError with the nearest valid name if there is none."""
    if name not in ALGORITHMS:
        raise unknown("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]


def described(name: str) -> Entry:
    """How to show results of the algorithm ``name``, which may come from a database of another installation.

    Never fails: an algorithm that is not known here has its name as its label, and no limit and no properties.
    """
    return ALGORITHMS.get(name) or Entry(name)


def in_order(names: Iterable[str]) -> list[str]:
    """Each of ``names`` once: algorithms of this package as Table 1 orders them, then all others by name.

    >>> in_order(["pfa", "frsf", "bp", "pfa"])
    ['bp', 'pfa', 'frsf']
    """
    wanted = set(names)
    return [name for name in ALGORITHMS if name in wanted] + sorted(wanted - ALGORITHMS.keys())


def _named(reference: str) -> Any:
    """What "module:name" names."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def _declared_algorithms() -> dict[str, Entry]:
    """The entries of this package's algorithms: those of Table 1 in its order, then later ones by name."""
    found = {}
    for file in Path(__file__).with_name("algorithms").glob("*.py"):
        if "entry = Entry(" in (text := file.read_text(encoding="utf-8")):
            for owner in ast.parse(text).body:
                if isinstance(owner, ast.ClassDef) and (entry := _declaration(owner.body)) is not None:
                    implementation = f"pfa_cli.algorithms.{file.stem}:{owner.name}"
                    found[entry.name] = replace(entry, implementation=implementation)
    ordered = [name for name in _TABLE_1 if name in found] + sorted(found.keys() - set(_TABLE_1))
    return {name: found[name] for name in ordered}


def _declaration(statements: Iterable[ast.stmt]) -> Any:
    """What the line ``entry = Entry(...)`` among ``statements`` makes; None if there is no such line."""
    for statement in statements:
        match statement:
            case ast.Assign(targets=[ast.Name("entry")], value=ast.Call(func=ast.Name(kind)) as call):
                if kind in _KINDS:
                    return eval(compile(ast.Expression(call), "entry", "eval"), _KINDS | {"Option": Option})
    return None


_KINDS: dict[str, Any] = {"Entry": Entry}
_TABLE_1 = ("bp", "fa", "dfa", "sf", "kp", "wm", "pal", "pfa", "pfa-o")

ALGORITHMS: Mapping[str, Entry] = _declared_algorithms()
