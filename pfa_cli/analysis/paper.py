"""The paper's experiments, figures, claims and verdicts (``paper.toml``), and whether runs are its experiment.

What goes beyond the paper, and claims of our own about it, stand apart, in ``beyond.toml``.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pfa_cli.configuration import DEFAULTS
from pfa_cli.registry import described
from pfa_cli.theory.propositions import path_angle_degrees
from pfa_cli.wording import count

Relation = Literal["equal", "below", "far below"]


@dataclass(frozen=True)
class Experiment:
    """What the paper trained by one recipe. ``accuracy``: the column that its published accuracy is to be held against.

    ``notes``: what to know about the published accuracy of one algorithm.
    """

    task: str
    figure: str
    settings: Mapping[str, Any]
    algorithms: Mapping[str, Mapping[str, Any]]
    data: str = ""
    accuracy: str = "test_accuracy_percent"
    remark: str = ""
    alignment_remark: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Epochs of its schedule."""
        return int(self.settings["epochs"])


@dataclass(frozen=True)
class Figure:
    """A figure's declaration; of kind "training": a recipe, the algorithms of panel (a), and those of the other panels.

    ``others``: add the algorithms that the paper does not have, where they were run. ``reference``: an algorithm that is
    shown beside others, but makes no figure alone. ``variants``: an option by algorithm, whose other values are shown in
    (a), too. ``command``: what makes the runs that it shows.
    """

    title: str
    command: str
    kind: Literal["training", "expansion", "beyond"] = "training"
    recipe: str = ""
    accuracy: tuple[str, ...] = ()
    alignment: tuple[str, ...] = ()
    others: bool = False
    reference: str | None = None
    variants: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """One claim about one algorithm on one recipe: of accuracy (``relation``), of layers (``quantity``), or the ``sweep``.

    ``target``: where the quantity ends in every layer; ``limit``: a proposition puts it there in the limit of long training.
    ``fewer``: of accuracy at an expansion ratio below 1. ``options``: of the algorithm with these options.
    """

    title: str
    source: str
    recipe: str
    algorithm: str
    other: str = ""
    relation: Relation | None = None
    quantity: str = ""
    target: float = 0.0
    limit: bool = False
    sweep: bool = False
    fewer: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Paper:
    """All of ``paper.toml``, ``verdicts``: Table 1's, by row and algorithm; and what is not the paper's, of ``beyond.toml``.

    ``own_claims``; ``beside_table1``: recipes that Table 1 shows, although they decide none of its verdicts.
    """

    algorithms: tuple[str, ...]
    same_experiment: frozenset[str]
    experiments: Mapping[str, Experiment]
    figures: Mapping[str, Figure]
    claims: tuple[Claim, ...]
    verdicts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    own_claims: tuple[Claim, ...] = ()
    beside_table1: tuple[str, ...] = ()


@cache
def paper() -> Paper:
    """Reads ``paper.toml`` and ``beyond.toml`` once."""
    whole, beyond = tomllib.loads(_text("paper.toml")), tomllib.loads(_text("beyond.toml"))
    experiments = {name: Experiment(**table) for name, table in whole["experiments"].items()}
    for name, algorithms in beyond["algorithms"].items():
        experiments[name] = replace(
            experiments[name], algorithms={**experiments[name].algorithms, **algorithms}
        )
    return Paper(
        algorithms=tuple(whole["algorithms"]),
        same_experiment=frozenset(whole["same_experiment"]),
        experiments=experiments,
        figures={name: _figure(table) for name, table in (whole["figures"] | beyond["figures"]).items()},
        claims=tuple(claim for table in whole["claims"] for claim in _claims(table, experiments)),
        verdicts=whole["table1"],
        own_claims=tuple(claim for table in beyond["claims"] for claim in _claims(table, experiments)),
        beside_table1=tuple(beyond["beside_table1"]),
    )


def task(recipe: str) -> str:
    """What the recipe trains on, in the paper's words; a recipe that is not the paper's has its name."""
    known = paper().experiments.get(recipe)
    return known.task if known else recipe


def departures(configuration: Mapping[str, Any], data: str) -> dict[str, str]:
    """In what a run differs from the paper's experiment of its recipe: setting → words.

    Empty at the paper's scale, and for a recipe that the paper has not. An algorithm that the paper has not is held to what
    all of an experiment share; its own options are its own. ``data``: the data set's description.
    """
    experiment = paper().experiments.get(configuration["recipe"])
    if experiment is None:
        return {}
    algorithm, options = configuration["algorithm"], configuration["options"]
    papers = {**experiment.settings, **experiment.algorithms.get(algorithm, {})}
    ours = {**configuration, **options}
    nested = {
        "options",
        "network_options",
        "dataset_options",
        "sources",
    }  # of plug-ins, which have names of their own
    skipped = {"recipe", "algorithm", *nested, *paper().same_experiment}
    found = {}
    if experiment.data not in data:
        found["data"] = f"{data} in place of {experiment.task}"
    if (epochs := ours["epochs"]) != experiment.epochs:
        found["epochs"] = f"{count(epochs, 'epoch')} in place of {experiment.epochs}"
        skipped |= {"epochs", "milestones"}
    known = described(algorithm).options if algorithm in paper().algorithms else {}
    for key in dict.fromkeys((*ours, *papers)):
        usual = known[key].default if key in known else DEFAULTS.get(key)
        expected = papers.get(key, usual)
        own_option = key in options and algorithm not in paper().algorithms
        if key not in skipped and not own_option and ours.get(key) != expected:
            found[key] = _said(key, ours.get(key), expected)
    return found


def _text(name: str) -> str:
    return (files("pfa_cli.analysis") / name).read_text(encoding="utf-8")


def _said(key: str, ours: Any, papers: Any) -> str:
    words = f"{key.replace('_', ' ')} {_short(ours)}"
    return words if papers is None else f"{words} in place of {_short(papers)}"


def _short(value: Any) -> str:
    """A number of more than six significant digits with three of them; all else as it is.

    >>> _short(1 / 65536), _short(0.03125), _short(20.0)
    ('1.53e-05', '0.03125', '20.0')
    """
    exact = not isinstance(value, float) or float(f"{value:.6g}") == value
    return str(value) if exact else f"{value:.3g}"


def _figure(table: dict[str, Any]) -> Figure:
    names: dict[str, Any] = {key: tuple(table[key]) for key in ("accuracy", "alignment") if key in table}
    return Figure(**{**table, **names})


def _claims(table: Mapping[str, Any], experiments: Mapping[str, Experiment]) -> Iterator[Claim]:
    """A claim for each recipe and algorithm that the table names."""
    rest = {
        key: value
        for key, value in table.items()
        if key in ("other", "relation", "quantity", "limit", "sweep", "fewer", "options")
    }
    target = table.get("target", 0.0)
    if "expansion" in table:
        target = path_angle_degrees(1 / table["expansion"])
    for recipe in table["recipes"]:
        for name in table["algorithms"]:
            words = {
                "algorithm": described(name).label, "other": described(table.get("other", "")).label, "target": target,
                "task": experiments[recipe].task, "figure": experiments[recipe].figure,
            }  # fmt: skip
            says, source = table["says"].format(**words), table["source"].format(**words)
            yield Claim(says, source, recipe, name, target=target, **rest)
