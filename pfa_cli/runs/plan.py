"""What a command asks for, as cells, and how much of it the database already holds."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from pfa_cli import registry
from pfa_cli.errors import UsageError
from pfa_cli.networks import check_network
from pfa_cli.runs.liveness import PRUNED, look_up, shown_state
from pfa_cli.store.engine import Store
from pfa_cli.store.queries import RunRow, runs
from pfa_cli.terminal import table
from pfa_cli.wording import count, duration, setting

if TYPE_CHECKING:
    from pfa_cli.configuration import Configuration
    from pfa_cli.recipes import Recipe


@dataclass(frozen=True)
class Cell:
    """One configuration with one seed. ``state`` is "new" if the database has not heard of it.

    ``expected_hours`` is what its remaining epochs need on one worker; None where no epoch of its recipe and algorithm is
    stored, or none of the kind of device that was asked for.
    ``variant`` names the settings that differ from the recipe's, such as "expansion=20".
    """

    configuration: "Configuration"
    seed: int
    state: str = "new"
    epochs_done: int = 0
    expected_hours: float | None = None
    variant: str = ""

    @property
    def algorithm(self) -> str:
        return self.configuration.algorithm

    @property
    def epochs_total(self) -> int:
        return self.configuration.epochs

    @property
    def epochs_left(self) -> int:
        """A diverged run is done before its last epoch."""
        return 0 if self.state == "done" else self.epochs_total - self.epochs_done

    @property
    def name(self) -> str:
        """Which cell of its recipe it is."""
        return " ".join(filter(None, (self.algorithm, self.variant, f"seed {self.seed}")))

    @property
    def label(self) -> str:
        """Which cell it is."""
        return f"{self.configuration.recipe} {self.name}"


@dataclass(frozen=True)
class Plan:
    """The cells of a command, in the order in which they are trained, and what to tell the user."""

    cells: Sequence[Cell]
    notes: Sequence[str] = ()

    def summary(self) -> str:
        """How many cells there are, and how many of them are done."""
        done = sum(cell.state == "done" for cell in self.cells)
        return count(len(self.cells), "cell") + (f", {done} done already" if done else "")

    @property
    def without_time(self) -> list[Cell]:
        """The cells to train of which nothing says how long they take."""
        return [cell for cell in self.cells if cell.epochs_left and cell.expected_hours is None]

    def check_prunable(self) -> None:
        """UsageError if a cell has no validation images, by whose accuracy `pfa run --prune` judges."""
        for cell in self.cells:
            if not cell.configuration.validation_images:
                raise UsageError(
                    f"--prune judges by validation accuracy, and {cell.label} has no validation images: "
                    "hold some out by --set validation_images=5000"
                )

    def without_pruned(self) -> "Plan":
        """Without the cells that were stopped by `pfa run --prune`, which does not go on with them; a note says how many."""
        left = [cell for cell in self.cells if cell.state != PRUNED]
        gone = len(self.cells) - len(left)
        return Plan(left, [*self.notes, *([f"{count(gone, 'pruned cell')} left out"] if gone else [])])

    def table(self) -> RenderableType:
        """Cells, states, epochs left and hours expected, their sums, and the notes: what `--dry-run` prints."""
        todo = [cell for cell in self.cells if cell.epochs_left]
        rows = [
            (
                cell.label,
                cell.state,
                str(cell.epochs_left),
                duration(3600 * cell.expected_hours) if cell.epochs_left and cell.expected_hours else "",
            )
            for cell in self.cells
        ]
        cells = table(
            ("cell", "state", "epochs left", "time"), rows, right=("epochs left", "time"), wraps=("cell",)
        )
        total = f"{count(len(self.cells), 'cell')}, {len(todo)} to train"
        if todo:
            total += (
                f": {count(sum(cell.epochs_left for cell in todo), 'epoch')}, {self.time()} on one worker"
            )
        return Group(cells, Text(total), *(Text(note) for note in self.notes))

    def time(self) -> str:
        """What one worker needs for what is left, as far as it is known."""
        known = sum(cell.expected_hours or 0 for cell in self.cells if cell.epochs_left)
        missing = len(self.without_time)
        unknown = f"{count(missing, 'cell')} without an estimate" if missing else ""
        return " + ".join(filter(None, (duration(3600 * known) if known else "", unknown))) or duration(0)


def make_plan(
    store: Store | None,
    recipe: "Recipe",
    algorithms: Iterable[str],
    seeds: Iterable[int],
    *combinations: Mapping[str, Any],
) -> Plan:
    """The grid algorithms × ``combinations`` of overrides × seeds, seed by seed, so that complete comparisons exist early.

    Raises:
        UsageError: an override that the recipe does not know or that its rules forbid, or more images in a batch than
            there are.
    """
    algorithms = list(algorithms)
    found = [recipe.grid(algorithms, overrides) for overrides in combinations or [{}]]
    configurations = [configuration for grid, _ in found for configuration in grid]
    return _cells(store, recipe, configurations, seeds, [note for _, notes in found for note in notes])


def make_sweep_plan(
    store: Store | None,
    recipe: "Recipe",
    sweep: str,
    seeds: Iterable[int] | None = None,
    *combinations: Mapping[str, Any],
    algorithms: Iterable[str] | None = None,
) -> Plan:
    """The cells of one of the recipe's sweeps, of some of its ``algorithms``, × ``seeds``, or as many as the recipe says.

    Raises:
        UsageError: no such sweep, none of its cells is of these algorithms, or an override that would undo it.
    """
    parts = recipe.sweep(sweep)
    set_by_it = {key for _, own in parts for key in own} | {
        key.partition(".")[2] for _, own in parts for key in own
    }
    combinations = combinations or ({},)
    if taken := set_by_it & combinations[0].keys():
        raise UsageError(f"--set {min(taken)}: the sweep {sweep} sets it already")
    names = list(dict.fromkeys(configuration.algorithm for configuration, _ in parts))
    if algorithms is not None:
        wanted = {registry.algorithm(reference).name for reference in algorithms}
        if absent := sorted(wanted - set(names)):
            raise UsageError(f"--algos {absent[0]}: the sweep {sweep} has {', '.join(names)}")
        parts = [part for part in parts if part[0].algorithm in wanted]
    found = [
        recipe.grid([configuration.algorithm_reference], {**overrides, **own})
        for overrides in combinations
        for configuration, own in parts
    ]
    chosen = range(recipe.sweeps[sweep].seeds) if seeds is None else list(seeds)
    configurations = [configuration for grid, _ in found for configuration in grid]
    return _cells(store, recipe, configurations, chosen, [note for _, notes in found for note in notes])


def united(plans: Sequence[Plan]) -> Plan:
    """The cells of all plans, each cell once."""
    cells = {_key(cell): cell for plan in plans for cell in plan.cells}
    return Plan(list(cells.values()), list(dict.fromkeys(note for plan in plans for note in plan.notes)))


def refreshed(plan: Plan, store: Store | None, device: str | None = None) -> Plan:
    """The plan with the states, epochs and times that the database holds now.

    ``device``: "cpu" or "cuda"; the times are then of epochs trained on such a device only.
    """
    recipes = sorted({cell.configuration.recipe for cell in plan.cells})
    rows = [row for recipe in recipes for row in runs(store, recipe, device)] if store else []
    look_up(rows)
    known = {(row.recipe, row.algorithm, row.seed, row.config_hash): row for row in rows}
    epoch_seconds = EpochSeconds(rows)
    return replace(plan, cells=[_with_row(cell, known.get(_key(cell)), epoch_seconds) for cell in plan.cells])


class EpochSeconds:
    """Mean seconds of an epoch, with evaluation: by configuration, by recipe and algorithm, by recipe."""

    def __init__(self, rows: Iterable[RunRow]) -> None:
        self._sums: dict[tuple[str, ...], tuple[float, int]] = defaultdict(lambda: (0.0, 0))
        for row in rows:
            if row.seconds_per_epoch is not None:
                for key in ((row.config_hash,), (row.recipe, row.algorithm), ("recipe", row.recipe, "")):
                    seconds, epochs = self._sums[key]
                    n = row.epochs_measured
                    self._sums[key] = (seconds + row.seconds_per_epoch * n, epochs + n)

    def of(self, config_hash: str, recipe: str, algorithm: str) -> float | None:
        """From this configuration's epochs, else its recipe's and algorithm's; None if there are none."""
        return self._mean(1, (config_hash,), (recipe, algorithm))

    def about(self, config_hash: str, recipe: str, algorithm: str, *, least: int) -> float | None:
        """As ``of``, but rather the mean of all algorithms than nothing; None below ``least`` epochs."""
        return self._mean(least, (config_hash,), (recipe, algorithm), ("recipe", recipe, ""))

    def _mean(self, least: int, *keys: tuple[str, ...]) -> float | None:
        for key in keys:
            seconds, epochs = self._sums.get(key, (0.0, 0))
            if epochs >= least:
                return seconds / epochs
        return None


def _key(cell: Cell) -> tuple[str, str, int, str]:
    return (cell.configuration.recipe, cell.algorithm, cell.seed, cell.configuration.hash)


def _with_row(cell: Cell, row: RunRow | None, epoch_seconds: EpochSeconds) -> Cell:
    if row is not None:
        cell = replace(cell, state=shown_state(row), epochs_done=row.epochs_done or 0)
    seconds = epoch_seconds.of(cell.configuration.hash, cell.configuration.recipe, cell.algorithm)
    return replace(cell, expected_hours=None if seconds is None else seconds * cell.epochs_left / 3600)


def _cells(
    store: Store | None,
    recipe: "Recipe",
    configurations: Iterable["Configuration"],
    seeds: Iterable[int],
    notes: Sequence[str],
) -> Plan:
    """Each configuration once with each seed, seed by seed."""
    each = list({configuration.hash: configuration for configuration in configurations}.values())
    for configuration in each:
        configuration.check_batch()
        check_network(configuration)
    differing = [recipe.differing(configuration) for configuration in each]
    # How long a trial is stands beside every name; it is in the name where it tells cells apart.
    for key in ("epochs", "train_images", "test_images"):
        if len({settings.get(key) for settings in differing}) == 1:
            for settings in differing:
                settings.pop(key, None)
    variants = [" ".join(setting(key, value) for key, value in settings.items()) for settings in differing]
    cells = [
        Cell(configuration, seed, variant=variant)
        for seed in seeds
        for configuration, variant in zip(each, variants, strict=True)
    ]
    return refreshed(Plan(cells, list(dict.fromkeys(notes))), store)
