"""Which runs a command is about: by recipe, algorithm, state, setting or number."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any

from pfa_cli.errors import UsageError, names_in, unknown
from pfa_cli.runs.status import STYLES, StatusRow

_HIGHEST_FIRST = {"train", "validation", "test", "images_per_second", "epochs_done"}
_SHORT = {
    "id": "run_id",
    "train": "train_accuracy_percent",
    "validation": "validation_accuracy_percent",
    "test": "test_accuracy_percent",
    "left": "eta_seconds",
    "tag": "tags",
}


@dataclass(frozen=True)
class Selection:
    """Runs that meet every condition; a condition that is empty is met by all. ``where``: column or setting → values."""

    ids: Sequence[range] = ()
    recipes: Sequence[str] = ()
    algorithms: Sequence[str] = ()
    states: Sequence[str] = ()
    where: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @classmethod
    def parse(
        cls,
        ids: Iterable[str] = (),
        recipe: str | None = None,
        algos: str | None = None,
        state: str | None = None,
        where: Sequence[str] = (),
    ) -> "Selection":
        """Of the words of the command line; UsageError if one of them names nothing.

        >>> Selection.parse(["3", "5-7"], state="failed,stale", where=["expansion=1,2"]).ids
        [range(3, 4), range(5, 8)]
        """
        choices = {}
        if where:
            from pfa_cli.arguments import parse_choices  # brings pydantic, which takes a while to import

            choices = parse_choices(where, "--where")
        return cls(
            [numbers for text in ids for numbers in _ranges(text)],
            _names("--recipe", recipe),
            [name.lower() for name in _names("--algos", algos)],
            _names("--state", state),
            choices,
        )

    def __bool__(self) -> bool:
        return any((self.ids, self.recipes, self.algorithms, self.states, self.where))

    def of(self, rows: Sequence[StatusRow]) -> list[StatusRow]:
        """Those of ``rows`` that are selected, in their order.

        Raises:
            UsageError: a condition names what none of the rows has: a misspelled recipe, algorithm, setting or number.
        """
        for kind, wanted, there in (
            ("run", chain(*self.ids), {row.run_id for row in rows}),
            ("recipe in this database", self.recipes, {row.recipe for row in rows}),
            ("algorithm in this database", self.algorithms, {row.algorithm for row in rows}),
            ("state", self.states, {row.state for row in rows} | STYLES.keys()),
            ("setting or column", self.where, set().union(*map(_values, rows)) | _SHORT.keys()),
        ):
            if rows and (missing := next((each for each in wanted if each not in there), None)) is not None:
                raise _unknown(kind, missing, there)
        return [row for row in rows if self._has(row)]

    def _has(self, row: StatusRow) -> bool:
        return (
            (not self.ids or any(row.run_id in numbers for numbers in self.ids))
            and (not self.recipes or row.recipe in self.recipes)
            and (not self.algorithms or row.algorithm in self.algorithms)
            and (not self.states or row.state in self.states)
            and all(any(_is(row, key, value) for value in values) for key, values in self.where.items())
        )


def in_order(rows: Sequence[StatusRow], key: str) -> list[StatusRow]:
    """``rows`` by a column or a setting: accuracies and epochs with the highest first, all else with the lowest.

    Raises:
        UsageError: no row has such a column or setting.
    """
    known = set().union(*map(_values, rows)) | _SHORT.keys()
    if rows and key not in known:
        raise unknown("column or setting", key, known)

    def place(row: StatusRow) -> tuple[bool, bool, Any]:
        value = _value(row, key)
        if isinstance(value, bool | int | float):
            return value != value, False, -value if key in _HIGHEST_FIRST else value
        return value is None, True, str(value)

    return sorted(rows, key=place)


def _values(row: StatusRow) -> dict[str, Any]:
    """The columns and settings of a run; a setting's name goes before a column's."""
    columns = {each.name: getattr(row, each.name) for each in fields(row) if each.name != "settings"}
    return columns | dict(row.settings)


def _value(row: StatusRow, key: str) -> Any:
    values = _values(row)
    return values[key] if key in values else values.get(_SHORT.get(key, ""))


def _is(row: StatusRow, key: str, wanted: Any) -> bool:
    value = _value(row, key)
    if key in ("tag", "tags"):
        return str(wanted) in row.tags
    return bool(value == wanted) or str(value) == str(wanted)


def _unknown(kind: str, each: Any, there: set[Any]) -> UsageError:
    if kind == "run":
        return UsageError(f"there is no run {each} in this database: `pfa runs list` shows the numbers")
    return unknown(kind, str(each), map(str, there))


def _names(option: str, text: str | None) -> list[str]:
    return [] if text is None else names_in(option, text)


def _ranges(text: str) -> Iterable[range]:
    for part in text.replace(" ", "").strip(",").split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and len(part) <= 30 and int(first) <= int(last)):
            raise UsageError(f"{text}: runs are named by their numbers, 3 or 5-7: `pfa runs list` shows them")
        yield range(int(first), int(last) + 1)
