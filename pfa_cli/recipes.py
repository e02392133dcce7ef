"""Recipes: TOML files that name every setting of an experiment, for every algorithm.

Each overrides the ones before: the recipe's ``[base]``, its ``[algorithms.<name>]``, ``--set key=value``,
``--set <algorithm>.key=value``.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pfa_cli import registry
from pfa_cli.arguments import combinations, several
from pfa_cli.configuration import BASE_SETTINGS, Configuration, configure, explain
from pfa_cli.errors import UsageError, unknown
from pfa_cli.files import read
from pfa_cli.plugins import absolute
from pfa_cli.registry import ALGORITHMS, DatasetEntry, Entry, NetworkEntry, Option, OptionValue, flat
from pfa_cli.wording import count

if TYPE_CHECKING:  # rich is for those who print
    from rich.console import RenderableType

_OF_TRIALS = ("train_images", "test_images")  # None: all images


class Sweep(BaseModel):
    """The cells of ``pfa run <recipe> --sweep <name>``: one ``algorithm``, ``key`` and its ``values``, or a ``grid``.

    A grid has parts, each with an ``algorithm`` and settings. A list of values stands for each of them, several lists
    for every combination (see `arguments.several`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    algorithm: str | None = None
    key: str | None = None
    values: list[OptionValue] | None = None
    grid: list[dict[str, Any]] | None = None
    seeds: int = Field(gt=0)
    paper: bool = False  # `pfa reproduce` runs it, too

    def in_words(self) -> str:
        """Its parts as a line."""
        parts = self.grid or [{"algorithm": self.algorithm, str(self.key): self.values}]
        return "; ".join(
            " ".join(
                [
                    _show(part.get("algorithm")),
                    *(f"{k}={_show(v)}" for k, v in part.items() if k != "algorithm"),
                ]
            )
            for part in parts
        )

    def parts(self, folder: Path = Path()) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each configuration: its algorithm, and what ``--set`` would have to say. ``folder``: that of plug-ins' files.

        Raises:
            UsageError: the sweep is in neither form, or names no algorithm or value.
        """
        short = (self.algorithm, self.key, self.values)
        if (self.grid is None) == (None in short) or (self.grid is not None and short != (None, None, None)):
            raise UsageError("a sweep has either algorithm, key and values, or grid")
        for part in self.grid or [{"algorithm": self.algorithm, str(self.key): self.values}]:
            choices = {key: several(key, value) for key, value in part.items()}
            algorithms = choices.pop("algorithm", [])
            if not algorithms or not all(isinstance(name, str) for name in algorithms):
                raise UsageError(f"each part of a grid names its algorithm: {part}")
            if empty := [key for key, values in choices.items() if not values]:
                raise UsageError(f"{empty[0]} names no value")
            for name in algorithms:
                reference = absolute(name, folder)
                own = registry.algorithm(reference).name
                for settings in combinations(choices):
                    located = _located(settings, folder)
                    yield reference, {f"{own}.{key}": value for key, value in located.items()}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    title: str
    description: str = ""
    base: dict[str, Any]
    algorithms: dict[str, dict[str, Any]] = Field(default_factory=dict)
    sweeps: dict[str, Sweep] = Field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """An experiment for all algorithms. ``algorithms`` holds what differs from ``base`` for each of them.

    ``plugins``: the algorithms from outside that have a table in the recipe, name → where their file is.
    """

    name: str
    title: str
    description: str
    path: Path
    base: Mapping[str, Any]
    algorithms: Mapping[str, Mapping[str, Any]]
    sweeps: Mapping[str, Sweep]
    plugins: Mapping[str, str] = field(default_factory=dict)

    @property
    def argument(self) -> str:
        """What names it on the command line: the name of a shipped recipe, else its file."""
        return self.name if _recipe_files(None).get(self.name) == self.path else str(self.path)

    def configuration(self, algorithm: str, overrides: Mapping[str, Any] | None = None) -> Configuration:
        """The settings of ``algorithm``; an override that is another algorithm's option is passed over.

        ``algorithm`` is a name, or the file of a plug-in: "frsf.py:FRSF".

        Raises:
            UsageError: an unknown algorithm or key, a value that its rule forbids, or a plug-in that is of no use.
        """
        return self._configuration(algorithm, overrides or {}, _known([algorithm]))

    def _configuration(
        self, algorithm: str, overrides: Mapping[str, Any], known: Mapping[str, Entry]
    ) -> Configuration:
        settings = self._settings(registry.algorithm(algorithm), overrides, known)
        where = "--set" if overrides else str(self.path)
        return configure({**settings, "recipe": self.name, "algorithm": algorithm}, where)

    def grid(
        self, algorithms: Iterable[str], overrides: Mapping[str, Any] | None = None
    ) -> tuple[list[Configuration], list[str]]:
        """The configuration of each algorithm, and notes on what the overrides changed beside what they say.

        Raises:
            UsageError: also where an override concerns none of these algorithms.
        """
        overrides = overrides or {}
        references = list(algorithms)
        known = _known(references)
        names = [registry.algorithm(reference).name for reference in references]
        for key in overrides:
            owners = self._owners(key, overrides, known)
            if owners and not owners & set(names):
                raise UsageError(
                    f"--set {key}: a setting of {', '.join(sorted(owners))}; this run has {', '.join(names)}"
                )
        configurations = [self._configuration(reference, overrides, known) for reference in references]
        notes = [note for c in configurations if (note := self._milestones_note(c, overrides))]
        return configurations, list(dict.fromkeys(notes))

    def sweep(self, name: str) -> list[tuple[Configuration, dict[str, Any]]]:
        """The configurations of the sweep ``name``, with the overrides that make them; UsageError if there is none."""
        if not self.sweeps:
            raise UsageError(f"recipe {self.name} has no sweeps; name the values with --set instead")
        if name not in self.sweeps:
            raise unknown(f"sweep of {self.name}", name, self.sweeps)
        parts = self.sweeps[name].parts(self.path.parent)
        return [(self.configuration(algorithm, own), own) for algorithm, own in parts]

    def differing(self, configuration: Configuration) -> dict[str, Any]:
        """The settings in which ``configuration`` differs from the recipe's; milestones only where they do not scale."""
        usual = self.configuration(configuration.algorithm_reference)
        before, after = (Configuration.settings_of(c.model_dump(mode="json")) for c in (usual, configuration))
        own = flat(configuration.model_dump(mode="json"))  # with the defaults, which `after` leaves out
        keys = dict.fromkeys((*before, *after))
        found = {key: own[key] for key in keys if key in own and before.get(key) != after.get(key)}
        scaled = _scale(usual.milestones, usual.epochs, configuration.epochs)
        if list(configuration.milestones) == scaled:
            found.pop("milestones", None)
        return found

    def settings(self) -> list[tuple[str, str, str]]:
        """(key, value, meaning) of every setting that all algorithms share unless they say otherwise."""
        plain = self.configuration("bp").model_copy(update=dict(self.base))
        not_shared = self.algorithms.get("bp", {}).keys() - self.base.keys()
        shown = [
            (key, _show(getattr(plain, key)), meaning)
            for key, meaning in BASE_SETTINGS.items()
            if key in self.base
            or key in _OF_TRIALS
            or (getattr(plain, key) is not None and key not in not_shared)
        ]
        for kind, options in (("network", plain.network_options), ("dataset", plain.dataset_options)):
            meanings = _options_of(self.base, kind)
            shown += [(key, _show(value), meanings[key].meaning) for key, value in (options or {}).items()]
        return shown

    def algorithm_settings(self, algorithm: str) -> list[tuple[str, str, str]]:
        """(key, value, meaning) of the algorithm's options and of what differs from the base."""
        configuration = self.configuration(algorithm)
        differing = [key for key in self.algorithms.get(configuration.algorithm, {}) if key in BASE_SETTINGS]
        return [(key, _show(getattr(configuration, key)), BASE_SETTINGS[key]) for key in differing] + [
            (key, _show(configuration.options[key]), option.meaning)
            for key, option in configuration.algorithm_entry.options.items()
        ]

    def page(self) -> "RenderableType":
        """The recipe whole: the settings all algorithms share, and what each algorithm has of its own."""
        from rich.console import Group
        from rich.text import Text

        from pfa_cli.terminal import table

        own = [
            (name if number == 0 else "", *row)
            for name in (*ALGORITHMS, *self.plugins)
            for number, row in enumerate(self.algorithm_settings(self.plugins.get(name, name)))
        ]
        sweeps = [
            f"pfa run {self.argument} --sweep {name}: {count(sweep.seeds, 'seed')} of {sweep.in_words()}"
            for name, sweep in self.sweeps.items()
        ]
        words = ("value", "meaning")
        return Group(
            Text(f"{self.name}: {self.title}", style="bold"),
            Text(" ".join(self.description.split())),
            Text(f"{self.path}\n", style="dim"),
            table(("setting", "value", "meaning"), self.settings(), "For every algorithm", wraps=words),
            table(("algorithm", "setting", "value", "meaning"), own, "Of one algorithm", wraps=words),
            *map(Text, sweeps),
        )

    def _settings(
        self, algorithm: Entry, overrides: Mapping[str, Any], known: Mapping[str, Entry]
    ) -> dict[str, Any]:
        """What `Configuration` takes; ``known``: the algorithms that an override may name."""
        recipe: dict[str, Any] = {**self.base, **self.algorithms.get(algorithm.name, {})}
        shared = {key: value for key, value in overrides.items() if "." not in key}
        prefix = f"{algorithm.name}."
        own = {key.removeprefix(prefix): v for key, v in overrides.items() if key.startswith(prefix)}
        for key in overrides:
            self._owners(key, overrides, known)  # a misspelled key is an error for every algorithm
        others = {key for other in known.values() for key in other.options}
        others -= algorithm.options.keys() | self._shared(overrides)
        changed = {key: value for key, value in {**shared, **own}.items() if key not in others}
        settings = {**recipe, **changed}
        for role in (
            "network",
            "dataset",
        ):  # another one in its place takes none of the recipe's settings of the former
            gone = _belonging(recipe, role) - _belonging(settings, role) - changed.keys()
            settings = {key: value for key, value in settings.items() if key not in gone}
        if "epochs" in changed and "milestones" not in changed:
            settings["milestones"] = _scale(recipe.get("milestones", ()), recipe["epochs"], changed["epochs"])
        for kind, options in (
            ("options", algorithm.options),
            ("network_options", _options_of(settings, "network")),
            ("dataset_options", _options_of(settings, "dataset")),
        ):
            given = {key: settings.pop(key) for key in options if key in settings}
            if given or kind == "options":
                settings[kind] = given
        return settings

    def _owners(self, key: str, overrides: Mapping[str, Any], known: Mapping[str, Entry]) -> set[str]:
        """The algorithms that an override concerns; empty for a setting of all of them. UsageError if unknown."""
        name, dot, own = key.rpartition(".")
        shared = self._shared(overrides)
        if dot:
            if name not in known:
                raise unknown("algorithm", name, known)
            if own not in shared | known[name].options.keys():
                raise unknown(f"setting of {name}", own, shared | known[name].options.keys())
            return {name}
        if own in shared:
            return set()
        owners = {entry.name for entry in known.values() if own in entry.options}
        if not owners:
            raise unknown("setting", key, shared.union(*(entry.options for entry in known.values())))
        return owners

    def _shared(self, overrides: Mapping[str, Any]) -> set[str]:
        """What may be set for every algorithm: the settings, and the options of the networks and data sets named."""
        named = [self.base, overrides, *self.algorithms.values()]
        named += [{key.rpartition(".")[2]: value} for key, value in overrides.items()]
        options = [_options_of(settings, role) for settings in named for role in ("network", "dataset")]
        return set(BASE_SETTINGS).union(*options)

    def _milestones_note(self, configuration: Configuration, overrides: Mapping[str, Any]) -> str | None:
        before = self.configuration(configuration.algorithm_reference)
        explicit = {"milestones", f"{configuration.algorithm}.milestones"} & set(overrides)
        if explicit or before.milestones == configuration.milestones:
            return None
        return (
            f"epochs {before.epochs} → {configuration.epochs}: "
            f"milestones {_show(before.milestones)} → {_show(configuration.milestones)}"
        )


def load_recipe(name_or_path: str, recipe_dir: Path | None = None) -> Recipe:
    """The recipe called ``name_or_path``, or the file itself if it ends in ``.toml``.

    Raises:
        UsageError: no such recipe, or the file is not a valid recipe (names the file and the key).
    """
    if name_or_path.endswith(".toml"):
        return _read(Path(name_or_path))
    found = _recipe_files(recipe_dir)
    if name_or_path not in found:
        raise unknown("recipe", name_or_path, found)
    return _read(found[name_or_path])


def list_recipes(recipe_dir: Path | None = None) -> list[Recipe]:
    """All recipes by name: those of ``recipe_dir`` and the shipped ones that it does not replace."""
    return [_read(path) for _, path in sorted(_recipe_files(recipe_dir).items())]


def listing(recipes: Iterable[Recipe]) -> "RenderableType":
    """One line per recipe; a setting that differs between the algorithms with all its values."""
    from pfa_cli.terminal import table

    def values(recipe: Recipe, key: str) -> str:
        found = (getattr(recipe.configuration(name), key) for name in ALGORITHMS)
        return ", ".join(dict.fromkeys(map(str, found)))

    rows = [(r.name, r.title, values(r, "epochs"), values(r, "network")) for r in recipes]
    return table(("recipe", "what it is", "epochs", "network"), rows, wraps=("what it is",))


def _known(references: Iterable[str]) -> dict[str, Entry]:
    """The algorithms that an override may name: this package's, and plug-ins among ``references``. By name."""
    known = dict(ALGORITHMS)
    for reference in references:
        entry = registry.algorithm(reference)
        if known.setdefault(entry.name, entry) != entry:
            raise UsageError(
                f"two different algorithms are called {entry.name!r}: run one at a time, or rename one"
            )
    return known


def _options_of(settings: Mapping[str, Any], role: str) -> Mapping[str, Option]:
    """The options of the network or the data set that ``settings`` name; none if they name none."""
    entry = _named(settings, role)
    return {} if entry is None else entry.options


def _belonging(settings: Mapping[str, Any], role: str) -> set[str]:
    """The keys that mean something for the network or the data set that ``settings`` name, and not for every other."""
    entry = _named(settings, role)
    return set() if entry is None else {*entry.settings, *entry.options}


def _named(settings: Mapping[str, Any], role: str) -> NetworkEntry | DatasetEntry | None:
    name = settings.get(role)
    if not isinstance(name, str):
        return None
    return registry.network(name) if role == "network" else registry.dataset(name)


def _scale(milestones: Any, epochs: int, new_epochs: Any) -> Any:
    if not isinstance(new_epochs, int) or not isinstance(milestones, list | tuple):
        return milestones  # the check that follows says what is wrong
    return [max(1, -(-milestone * new_epochs // epochs)) for milestone in milestones]


def _show(value: Any) -> str:
    if value is None:
        return "all"
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _recipe_files(recipe_dir: Path | None) -> dict[str, Path]:
    """Recipe name → file. Installed, the recipes lie inside the package; in a checkout, at its top."""
    here = Path(__file__).parent
    packaged = here / "shipped_recipes"
    files = {
        path.stem: path
        for path in (packaged if packaged.is_dir() else here.parent / "recipes").glob("*.toml")
    }
    if recipe_dir is not None:
        try:
            found = sorted(path for path in recipe_dir.iterdir() if path.suffix == ".toml")
        except OSError as error:
            reason = "no such folder" if isinstance(error, FileNotFoundError) else error.strerror
            raise UsageError(f"--recipe-dir {recipe_dir}: {reason}; name a folder of recipes") from None
        files |= {path.stem: path for path in found}
    return files


def _read(path: Path) -> Recipe:
    try:
        file = _File.model_validate(tomllib.loads(read(path).decode("utf-8-sig")))
    except FileNotFoundError:
        raise UsageError(f"no recipe file {path}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        tables = {"": _File.model_fields, "sweeps": Sweep.model_fields}
        raise explain(error, str(path), tables) from None
    except ValueError as error:  # bytes that are not UTF-8, no TOML, or an integer of thousands of digits
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    except RecursionError:
        raise UsageError(f"{path}: not valid TOML: it is nested too deeply") from None
    folder = path.parent
    try:
        known = _known(absolute(name, folder) for name in file.algorithms)
        recipe = Recipe(
            path.stem,
            file.title,
            file.description.strip(),
            path,
            _located(file.base, folder),
            {
                registry.algorithm(absolute(name, folder)).name: _located(settings, folder)
                for name, settings in file.algorithms.items()
            },
            file.sweeps,
            {entry.name: entry.source.reference for entry in known.values() if entry.source is not None},
        )
        _check(recipe, known)
    except UsageError as error:
        text = str(error).removeprefix("--set: ").removeprefix(f"{path}: ")
        raise UsageError(f"{path}: {text}") from None
    return recipe


def _located(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """``settings``, where the files of plug-ins have their full paths; they are named relative to the recipe's folder."""
    return {
        key: absolute(value, folder) if key in ("network", "dataset") and isinstance(value, str) else value
        for key, value in settings.items()
    }


def _check(recipe: Recipe, known: Mapping[str, Entry]) -> None:
    """Every table of the file against what may stand in it, so that later errors are the command line's."""
    shared = recipe._shared({})
    for key in recipe.base:
        if key not in shared:
            raise unknown("setting in [base]", key, shared)
    for algorithm, settings in recipe.algorithms.items():
        for key in settings:
            recipe._owners(f"{algorithm}.{key}", {}, known)
    for reference in (*ALGORITHMS, *recipe.plugins.values()):
        recipe.configuration(reference)
    for name in recipe.sweeps:
        try:
            recipe.sweep(name)
        except UsageError as error:
            raise UsageError(f"sweep {name}: {str(error).removeprefix('--set: ')}") from None
