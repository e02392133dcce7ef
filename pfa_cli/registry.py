"""The algorithms, networks and data sets there are, with what the command line and the figures say about them. No torch.

Each is declared beside its code, as ``entry = Entry(...)``, ``NetworkEntry(...)`` or ``DatasetEntry(...)``: for an algorithm
in its class, for the others at the top of their file. The declarations of this package are read from the text of its files,
as setuptools reads ``attr:``, because running these files would import torch, which takes seconds.

Others come from plug-ins: files that the user names ("frsf.py:FRSF"), or entry points of installed packages in the groups
pfa.algorithms, pfa.networks and pfa.datasets. See pfa_cli/algorithms/README.md.
"""

import ast
import contextlib
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeVar

from pfa_cli import plugins
from pfa_cli.errors import UsageError, unknown
from pfa_cli.plugins import Plugin, Source

_log = logging.getLogger(__name__)

OptionValue = float | int | str
OPTIONS_OF = {"algorithm": "options", "network": "network_options", "dataset": "dataset_options"}
"""By role, the setting that holds the options of what is named."""
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
class Declaration:
    """What every algorithm, network and data set says of itself.

    Args:
        name: in small letters; what the command line, recipes and the database call it.
        title: in full.
        implementation: "module:name" of this package's, the class or function itself of a plug-in's. Of an algorithm its
            class, which the registry finds. Of a network called as ``f(input_shape=..., n_classes=...)`` with its settings and
            options, where ``input_shape`` is that of one image: (pixels,) or (channels, height, width). Of a data set called as
            ``f(configuration, data_dir, device)``; see `pfa_cli.data.load_dataset`.
        options: settings of its own.
        source: of a plug-in; set by the registry.
    """

    name: str
    _: KW_ONLY
    title: str = ""
    implementation: Any = field(default="", repr=False)
    options: Mapping[str, Option] = field(default_factory=dict)
    source: Source | None = field(default=None, repr=False)

    def load(self) -> Any:
        """The implementation (imports torch)."""
        return _loaded(self.implementation)

    def check_options(self, given: Mapping[str, object]) -> dict[str, OptionValue]:
        """Every option with its value; UsageError for an unknown name or a value out of range."""
        for name in given:
            if name not in self.options:
                raise unknown(f"option of {self.name}", name, self.options)
        return {
            name: option.check(name, given.get(name, option.default)) for name, option in self.options.items()
        }


@dataclass(frozen=True)
class Entry(Declaration):
    """One algorithm as the command line, the figures and Table 1 see it.

    Args:
        label: in figures and tables; the name if it is left out.
        colour: of its curves, as "#RRGGBB"; None: the figures choose one.
        dashed: its curve lies on top of another's.
        measure: which angle and norm ratio describe its feedback: of its weights, or of its path through other neurons.
        limit: where angle (degrees) and norm ratio end up by theory: a function of the options that returns both, either
            of them None where no theory says; or its name, "module:function", for a module without torch.
        no_sign_transport, no_magnitude_transport, no_separate_phase: the first three rows of the paper's Table 1. They are
            properties of the algorithm, not results. None: not known. "†" carries the table's footnote: it is unclear how
            the brain would learn the weights.
        shares: options that are parts of one whole, so that they must add up to 1.
        variant_of: the algorithm in whose column of Table 1 it stands.
    """

    label: str = ""
    colour: str | None = None
    dashed: bool = False
    measure: Literal["weight", "path"] = "weight"
    limit: str | Callable[[Mapping[str, Any]], Limit] | None = None
    no_sign_transport: bool | None = None
    no_magnitude_transport: bool | None = None
    no_separate_phase: bool | Literal["†"] | None = None
    shares: tuple[str, ...] = ()
    variant_of: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.name)

    def limit_of(self, options: Mapping[str, Any]) -> Limit:
        """Angle in degrees and norm ratio after learning, as far as theory knows them; the ratio is else BP's, 1."""
        if self.limit is None:
            return None, 1.0
        return _loaded(self.limit)(options)

    def check_options(self, given: Mapping[str, object]) -> dict[str, OptionValue]:
        """As of `Declaration`; UsageError also for shares that do not add up to 1."""
        options = super().check_options(given)
        shares = [float(options[name]) for name in self.shares]
        if shares and abs(math.fsum(shares) - 1) > 1e-9:
            values = " + ".join(f"{share:g}" for share in shares)
            raise UsageError(
                f"{' + '.join(self.shares)} (= {values} = {math.fsum(shares):g}) must be 1: set all of them"
            )
        return options


@dataclass(frozen=True, kw_only=True)
class NetworkEntry(Declaration):
    """One network as recipes see it.

    Args:
        settings: those of `Configuration`'s settings that this network has, such as hidden_sizes.
        takes_vectors: whether an image may be a row of pixels.
    """

    settings: tuple[str, ...] = ()
    takes_vectors: bool = True


@dataclass(frozen=True, kw_only=True)
class DatasetEntry(Declaration):
    """One data set as recipes see it.

    Args:
        prepare: "module:function", called as ``f(data_dir)`` once before training begins, to fetch what is missing.
        settings: as of `NetworkEntry`.
        train_images, test_images, n_classes: its sizes; None where they are known only once it is read.
        input_shape: of one image, (pixels,) or (channels, height, width); None as above.
        fixed_size: whether these sizes always hold, or are those of a usual case.
        in_memory: whether it is kept on the device whole; else its images come from the disk in training.
    """

    prepare: str | None = None
    settings: tuple[str, ...] = ()
    train_images: int | None = None
    test_images: int | None = None
    n_classes: int | None = None
    input_shape: tuple[int, ...] | None = None
    fixed_size: bool = True
    in_memory: bool = True

    @property
    def always_the_same(self) -> bool:
        """Whether it is the same images wherever it lies, and not what a user has put there."""
        return self.fixed_size and self.train_images is not None

    def fetch(self, data_dir: Path) -> None:
        """Fetches what is missing in ``data_dir``, where it can be fetched."""
        if self.prepare is not None:
            _loaded(self.prepare)(data_dir)


def algorithm(name: str) -> Entry:
    """The algorithm ``name``, or that of a plug-in's file, "path/file.py:Class".

    Raises:
        UsageError: there is none (says the nearest valid name), or the plug-in is of no use (says why, in one sentence).
    """
    return _find("algorithm", name, ALGORITHMS, _algorithm_of)


def network(name: str) -> NetworkEntry:
    """The network ``name``, or that of a plug-in's file; raises as `algorithm` does."""
    return _find("network", name, NETWORKS, lambda found: _callable_of(found, NetworkEntry))


def dataset(name: str) -> DatasetEntry:
    """The data set ``name``, or that of a plug-in's file; raises as `algorithm` does."""
    return _find("data set", name, DATASETS, lambda found: _callable_of(found, DatasetEntry))


def described(name: str) -> Entry:
    """How to show results of the algorithm ``name``, which may come from a database of another installation.

    Never fails: of an algorithm that is not known here it says what `remember` has read, else its name only.
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    point = plugins.installed("pfa.algorithms").get(name)
    found = None if point is None else _installed_entry(point)
    return found or _remembered.get(name) or Entry(name)


def flat(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration in one level: all options beside the settings, and 8 digits for the file of each plug-in.

    >>> flat({"epochs": 2, "options": {"scale": 0.5}, "network_options": None, "sources": {"algorithm": "8297fe9a0d5cf0f2"}})
    {'epochs': 2, 'scale': 0.5, 'algorithm_file': '8297fe9a'}
    """
    nested = {*OPTIONS_OF.values(), "sources"}
    settings = {name: value for name, value in stored.items() if name not in nested}
    options = {name: found for name in nested if isinstance(found := stored.get(name), Mapping)}
    for name in OPTIONS_OF.values():
        settings |= options.get(name, {})
    return settings | {f"{role}_file": str(sha256)[:8] for role, sha256 in options.get("sources", {}).items()}


def remember(texts: Iterable[str]) -> None:
    """Takes over what plug-ins, whose files were stored with runs, declare of themselves: label, colour, properties.

    The text is only read, never run: literals and `Option`, and no name of anything else.
    """
    for text in texts:
        try:
            entries = list(_declarations(ast.parse(text), "Entry", _plain))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        _remembered.update({entry.name: entry for _, entry in entries})


def in_order(names: Iterable[str]) -> list[str]:
    """Each of ``names`` once: algorithms of this package as Table 1 orders them, then all others by name.

    >>> in_order(["pfa", "frsf", "bp", "pfa"])
    ['bp', 'pfa', 'frsf']
    """
    wanted = set(names)
    return [name for name in ALGORITHMS if name in wanted] + sorted(wanted - ALGORITHMS.keys())


def _algorithm_of(found: Plugin) -> Entry:
    """The entry of a plug-in's class. UsageError if it is no algorithm."""
    if not isinstance(found.value, type) or not hasattr(found.value, "declared"):
        raise UsageError(f"{found.value!r} must be a class derived from pfa_cli.algorithms.Algorithm")
    entry: Entry = found.value.declared()
    for name, other in found.own.items():
        declared = vars(other).get("entry") if isinstance(other, type) and other is not found.value else None
        if isinstance(declared, Entry) and declared.name == entry.name:
            raise UsageError(
                f"{name} in the same file has the name {entry.name!r}, too: give one of them another"
            )
    for field_, is_right in _SHOWN.items():
        if not is_right(value := getattr(entry, field_)):
            form = " (write it as #RRGGBB)" if field_ == "colour" else ""
            raise UsageError(f"{field_} (={value!r}) is not of the right form{form}")
    return replace(entry, source=found.source)


@cache
def _installed_entry(point: EntryPoint) -> Entry | None:
    """The entry of an installed algorithm; None, with one sentence in the log, where it cannot be imported."""
    try:
        return algorithm(point.name)
    except UsageError as error:
        _log.warning("%s; its results are shown without its label", error)
        return None


_E = TypeVar("_E", bound=Declaration)


_EXAMPLE = {"algorithm": "myrule.py:MyRule", "network": "mynet.py:net", "data set": "mydata.py:load"}


def _find(kind: str, name: str, ours: Mapping[str, _E], entry_of: Callable[[Plugin], _E]) -> _E:
    if name in ours:
        return ours[name]
    if plugins.is_file(name):
        found = plugins.load_file(kind, name)
    else:
        outside = plugins.installed(f"pfa.{kind.replace('data set', 'dataset')}s")
        if name not in outside:
            error = unknown(kind, name, ours.keys() | outside.keys())
            raise UsageError(f"{error}; one of your own is named by its file: {_EXAMPLE[kind]}")
        found = plugins.load_installed(kind, outside[name])
    try:
        entry = entry_of(found)
    except UsageError as error:
        raise UsageError(f"{kind} {name}: {error}") from None
    if not re.fullmatch("[a-z0-9][a-z0-9_-]*", entry.name):
        raise UsageError(
            f"{kind} {name}: its name (={entry.name!r}) must be of small letters, digits, - and _"
        )
    for option, declared in entry.options.items():
        if not isinstance(declared, Option) or not re.fullmatch("[a-z][a-z0-9_]*", option):
            raise UsageError(
                f"{kind} {name}: options must be of the form {{'small_letters': Option(...)}}, not {option!r}: {declared!r}"
            )
    if entry.name in ours:
        raise UsageError(f"{kind} {name}: {entry.name!r} is the name of one of pfa's own; give it another")
    if not plugins.is_file(name) and entry.name != name:
        raise UsageError(
            f"{kind} {name}: its entry point and its declaration ({entry.name!r}) differ in name"
        )
    function = found.source.reference.rpartition(":")[2]
    if kind != "algorithm" and plugins.is_file(name) and list(found.own) != [function]:
        # Two networks of one file must not be taken for the same; an algorithm is named by its class.
        return replace(entry, name=f"{entry.name}-{function}")
    return entry


def _callable_of(found: Plugin, make: type[_E]) -> _E:
    """The entry that a plug-in's file declares at its top; without one, the file's name in small letters."""
    if not callable(found.value):
        raise UsageError(f"{found.value!r} must be a function or a class")
    entry = getattr(found.module, "entry", None)
    if not isinstance(entry, make):
        stem = found.source.file.removesuffix(".py").lower()
        entry = make(re.sub("[^a-z0-9_-]", "-", stem).strip("_-") or "plugin")
    return replace(entry, implementation=found.value, source=found.source)


def _loaded(implementation: Any) -> Any:
    """What "module:name" names; anything else as it is."""
    if not isinstance(implementation, str):
        return implementation
    module, _, name = implementation.partition(":")
    return getattr(import_module(module), name)


def _declared(folder: str, kind: str) -> dict[str, Any]:
    """The entries that the files of one of this package's folders declare, by name."""
    found = {}
    for file in Path(__file__).with_name(folder).glob("*.py"):
        if f"entry = {kind}(" in (text := file.read_text(encoding="utf-8")):
            for cls, entry in _declarations(ast.parse(text), kind, _made):
                if cls is not None:
                    entry = replace(entry, implementation=f"pfa_cli.{folder}.{file.stem}:{cls}")
                found[entry.name] = entry
    return {name: found[name] for name in sorted(found)}


def _declarations(
    tree: ast.Module, kind: str, make: Callable[[ast.Call], Any]
) -> Iterator[tuple[str | None, Any]]:
    """What ``make`` makes of the right side of each line ``entry = Entry(...)``, and the class in which it stands."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    owners: list[ast.Module | ast.ClassDef] = [tree, *classes]
    for owner in owners:
        for statement in owner.body:
            match statement:
                case ast.Assign(targets=[ast.Name("entry")], value=ast.Call(func=ast.Name(name)) as call):
                    if name == kind:
                        yield getattr(owner, "name", None), make(call)


def _made(node: ast.expr) -> Any:
    """The value of literals and of calls of the classes of this file; ValueError for anything else."""
    match node:
        case ast.Call(func=ast.Name(name), args=args, keywords=keywords) if name in _CLASSES:
            named = {keyword.arg: _made(keyword.value) for keyword in keywords if keyword.arg is not None}
            return _CLASSES[name](*map(_made, args), **named)
        case ast.Dict(keys=keys, values=values):
            return {
                _made(key): _made(value) for key, value in zip(keys, values, strict=True) if key is not None
            }
        case _:
            return ast.literal_eval(node)


def _plain(call: ast.Call) -> Entry:
    """The entry that ``call`` declares, as far as it can be read and is of the right form."""
    given = [("name", argument) for argument in call.args[:1]]
    given += [(keyword.arg or "", keyword.value) for keyword in call.keywords]
    fields: dict[str, Any] = {}
    for name, node in given:
        with contextlib.suppress(ValueError, TypeError):
            value = _made(node)
            if name in _SHOWN and _SHOWN[name](value):
                fields[name] = value
    return Entry(**({"name": ""} | fields))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_colour(value: object) -> bool:
    return value is None or (isinstance(value, str) and re.fullmatch("#[0-9A-Fa-f]{6}", value) is not None)


def _is_options(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(option, Option) for option in value.values())


_CLASSES: Mapping[str, Callable[..., Any]] = {
    "Entry": Entry, "NetworkEntry": NetworkEntry, "DatasetEntry": DatasetEntry, "Option": Option,
}  # fmt: skip
_SHOWN: Mapping[str, Callable[[Any], bool]] = {
    "name": _is_text,
    "label": _is_text,
    "title": _is_text,
    "colour": _is_colour,
    "dashed": lambda value: isinstance(value, bool),
    "measure": lambda value: value in ("weight", "path"),
    "options": _is_options,
    **dict.fromkeys(
        ("no_sign_transport", "no_magnitude_transport", "no_separate_phase"),
        lambda value: value is None or isinstance(value, bool) or value == "†",
    ),
}
_remembered: dict[str, Entry] = {}
TABLE_1 = ("bp", "fa", "dfa", "sf", "kp", "wm", "pal", "pfa", "pfa-o")

# Algorithms in the order of the paper's Table 1, later ones after them by name.
_algorithms = _declared("algorithms", "Entry")
ALGORITHMS: Mapping[str, Entry] = {name: _algorithms[name] for name in (*TABLE_1, *_algorithms)}
NETWORKS: Mapping[str, NetworkEntry] = _declared("networks", "NetworkEntry")
DATASETS: Mapping[str, DatasetEntry] = _declared("data", "DatasetEntry")
