"""`pfa best`: the configurations of a recipe, ranked by their mean accuracy over seeds."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from rich.console import Group, RenderableType
from rich.text import Text

from pfa_cli.errors import PfaError
from pfa_cli.runs.status import StatusRow
from pfa_cli.terminal import table
from pfa_cli.wording import count, percent

BY = ("validation", "train")


@dataclass(frozen=True)
class Ranked:
    """A configuration: mean and standard deviation over its ``n`` seeds, in percent, of the last epoch.

    ``rank``: among the configurations that are trained for as many epochs.
    A diverged run counts with the accuracy that it ended with. ``std`` is None of one seed.
    """

    rank: int
    algorithm: str
    variant: str
    config_hash: str
    epochs: int
    n: int
    seeds: list[int]
    mean: float
    std: float | None
    test_mean: float | None
    test_std: float | None
    diverged: int
    unfinished: int  # runs of this configuration that do not count yet


def ranking(rows: Iterable[StatusRow], recipe: str, by: str = "validation") -> list[Ranked]:
    """The configurations with finished runs: those of the most epochs first, among them the best first.

    The test set has no part in the order.

    Raises:
        PfaError: no finished run has such an accuracy.
    """
    groups: dict[tuple[str, str], list[StatusRow]] = defaultdict(list)
    for row in rows:
        groups[row.algorithm, row.config_hash].append(row)
    found = []
    for (algorithm, config_hash), group in groups.items():
        done = [row for row in group if row.state == "done" and _accuracy(row, by) is not None]
        if done:
            mean, std = _spread([_accuracy(row, by) or 0.0 for row in done])
            test = [row.test_accuracy_percent for row in done if row.test_accuracy_percent is not None]
            test_mean, test_std = _spread(test) if test else (None, None)
            found.append(
                Ranked(
                    rank=0,
                    algorithm=algorithm,
                    variant=done[0].variant,
                    config_hash=config_hash,
                    epochs=done[0].epochs_total,
                    n=len(done),
                    seeds=[row.seed for row in done],
                    mean=mean,
                    std=std,
                    test_mean=test_mean,
                    test_std=test_std,
                    diverged=sum(row.diverged_epoch is not None for row in done),
                    unfinished=sum(row.state != "done" for row in group),
                )
            )
    if not found:
        raise PfaError(_nothing(groups, recipe, by))
    found.sort(key=lambda one: (-one.epochs, one.mean != one.mean, -one.mean))  # NaN last
    return [
        replace(one, rank=rank)
        for _, group in groupby(found, lambda one: one.epochs)
        for rank, one in enumerate(group, start=1)
    ]


def show(found: Sequence[Ranked], by: str, left_out: int) -> RenderableType:
    """The ranking as a table for each number of epochs, and what it leaves out."""
    headings = ("", "configuration", "seeds", f"{by} %", "test %")
    right = ("", "seeds", f"{by} %", "test %")
    several = len({one.epochs for one in found}) > 1
    tables: list[RenderableType] = []
    for epochs, group in groupby(found, lambda one: one.epochs):
        rows = [
            (
                str(one.rank),
                " ".join(filter(None, (one.algorithm, one.variant))),
                str(one.n),
                _with_spread(one.mean, one.std),
                _with_spread(one.test_mean, one.test_std),
            )
            for one in group
        ]
        if several:
            tables.append(Text(f"Trained for {count(epochs, 'epoch')}:"))
        tables.append(table(headings, rows, right=right, wraps=("configuration",)))
    notes = [
        f"Ranked by the mean {by} accuracy of the last epoch, ± standard deviation over seeds; test ranks nothing."
    ]
    if several:
        notes.append("Runs of different numbers of epochs are ranked apart: more epochs reach more.")
    if len({one.n for one in found}) > 1:
        notes.append("Configurations have different numbers of seeds: few seeds make a mean uncertain.")
    if unfinished := sum(one.unfinished for one in found):
        notes.append(f"{count(unfinished, 'unfinished run')} of these configurations not counted.")
    if left_out:
        notes.append(f"{count(left_out, 'run')} left out, without {by} accuracy or not finished.")
    for one in found:
        if one.diverged:
            trained = f" of {count(one.epochs, 'epoch')}" if several else ""
            notes.append(
                f"{one.rank}{trained}: {count(one.diverged, 'run')} diverged, counted "
                "with the accuracy at the end."
            )
    return Group(*tables, *map(Text, notes))


def _accuracy(row: StatusRow, by: str) -> float | None:
    return row.validation_accuracy_percent if by == "validation" else row.train_accuracy_percent


def _spread(values: Sequence[float]) -> tuple[float, float | None]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _with_spread(mean: float | None, std: float | None) -> str:
    return percent(mean) if std is None else f"{percent(mean)} ± {percent(std)}"


def _nothing(groups: object, recipe: str, by: str) -> str:
    if not groups:
        return f"no runs of {recipe} to rank: `pfa run {recipe}` starts some"
    if by == "validation":
        return (
            f"no finished run of {recipe} has a validation set, and the test set chooses nothing: hold images out of "
            f"the training set by `pfa run {recipe} --set validation_images=5000`"
        )
    return f"no run of {recipe} is finished: `pfa status` shows how far they are"
