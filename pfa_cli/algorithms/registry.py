"""The list of algorithms: one entry each, readable without torch. A new algorithm is one file and one entry here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from numbers import Real
from typing import TYPE_CHECKING, Literal

from pfa_cli.errors import UsageError, unknown

if TYPE_CHECKING:
    from pfa_cli.algorithms.feedback import Algorithm

OptionValue = float | int | str


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

    The three ``no_…`` fields are the first three rows of the paper's Table 1: properties of the algorithm, not
    results. "†" carries the table's footnote: it is unclear how the brain would learn the weights.
    """

    name: str
    label: str
    title: str
    implementation: str  # "module:Class"
    no_sign_transport: bool
    no_magnitude_transport: bool
    no_separate_phase: bool | Literal["†"]
    measure: Literal["weight", "path"] = "weight"  # which angle and norm ratio describe its feedback
    options: Mapping[str, Option] = field(default_factory=dict)
    variant_of: str | None = None

    def load(self) -> "type[Algorithm]":
        """The class that implements the algorithm (imports torch)."""
        module, _, name = self.implementation.partition(":")
        return getattr(import_module(module), name)

    def check_options(self, given: Mapping[str, object]) -> dict[str, OptionValue]:
        """Every option with its value; UsageError for an unknown name or a value out of range."""
        for name in given:
            if name not in self.options:
                raise unknown(f"option of {self.name}", name, self.options)
        return {
            name: option.check(name, given.get(name, option.default)) for name, option in self.options.items()
        }


_FORM = Option(
    "closed", "closed form at BP's cost, or the paper's equations literally", choices=("closed", "literal")
)
_EXPANSION = "expansion ratio 1/λ: error units per unit of the layer above"

_ENTRIES = (
    Entry("bp", "BP", "Backpropagation", "pfa_cli.algorithms.bp:BP", False, False, True),
    Entry("fa", "FA", "Feedback alignment", "pfa_cli.algorithms.fa:FA", True, True, True),
    Entry("dfa", "DFA", "Direct feedback alignment", "pfa_cli.algorithms.dfa:DFA", True, True, True),
    Entry("sf", "SF", "Sign-concordant feedback", "pfa_cli.algorithms.sf:SF", False, True, "†"),
    Entry("kp", "KP", "Kollen-Pollack algorithm", "pfa_cli.algorithms.kp:KP", True, True, True),
    Entry(
        "wm", "WM", "Weight mirror", "pfa_cli.algorithms.wm:WM", True, True, False,
        options={
            "mirror_samples": Option(512, "noise samples in a mirror batch", minimum=1),
            "mirror_rate": Option(0.01, "λ_m: share of a mirror batch in the feedback path", minimum=1e-6, maximum=1),
        },
    ),
    Entry(
        "pal", "PAL", "Phaseless alignment learning", "pfa_cli.algorithms.pal:PAL", True, True, True,
        options={
            "rate": Option(0.001, "λ: share of a minibatch in the feedback path", minimum=1e-6, maximum=1),
            "noise": Option(0.3, "noise in units of each population's standard deviation", minimum=1e-6),
            "leak": Option(0.2, "ε: share of the slow signal that leaks through the high-pass filter", minimum=0),
        },
    ),
    Entry(
        "pfa", "PFA", "Product feedback alignment", "pfa_cli.algorithms.pfa:PFA", True, True, True, measure="path",
        options={"expansion": Option(10.0, _EXPANSION, minimum=0.01), "form": _FORM},
    ),
    Entry(
        "pfa-o", "PFA-o", "Product feedback alignment, semi-orthogonal B", "pfa_cli.algorithms.pfa:PFAO",
        True, True, True, measure="path",
        options={"expansion": Option(1.0, _EXPANSION, minimum=1), "form": _FORM}, variant_of="pfa",
    ),
)  # fmt: skip

ALGORITHMS: Mapping[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def entry(name: str) -> Entry:
    """The entry of ``name``; UsageError with the nearest valid name if there is none."""
    if name not in ALGORITHMS:
        raise unknown("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]
