"""``pfa db check``: what is wrong with a database, and how to mend it. Reads only."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Row, func, select, text

from pfa_cli.store import checksums
from pfa_cli.store.engine import database_file, open_store
from pfa_cli.store.errors import DamagedDatabase
from pfa_cli.store.schema import STATES, epochs, layers, metadata, runs
from pfa_cli.store.sqlite import broken_references
from pfa_cli.wording import count

_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class CheckReport:
    """What a check found: how many runs could be read, what is wrong, and what to do about it."""

    name: str
    runs: int
    problems: tuple[str, ...]
    cure: str

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        if self.ok:
            return f"{self.name}: {count(self.runs, 'run')}, nothing wrong"
        return "\n".join([f"{self.name}:", *self.problems, self.cure])


def check(db: str | None = None) -> CheckReport:
    """Looks at the pages, the references, every value and the runs of the database that ``db`` names.

    Raises NoResults if there is none, and StoreError if it cannot be read as one of pfa's (another kind of
    database, or another schema). All else that is wrong is in the report.
    """
    try:
        with open_store(db, write=False) as store:
            name = store.name
            n_runs, problems = store.read(_look)
    except DamagedDatabase as error:
        name, n_runs, problems = error.place, 0, [f"damaged: {error.reason}"]
    cure = _ON_A_SERVER if database_file(db) is None else _way_out(name)
    return CheckReport(name, n_runs, tuple(problems), cure)


def _look(connection: Connection) -> tuple[int, list[str]]:
    """How many runs there are, and what is wrong. Raises DamagedValue at the first value that pfa cannot have written."""
    if connection.dialect.name == "sqlite" and (broken := broken_pages(connection)):
        return 0, [f"damaged: {'; '.join(broken)}"]
    for table in metadata.sorted_tables:
        with connection.execute(select(table), execution_options={"yield_per": _ROWS_AT_ONCE}) as rows:
            for _ in rows:
                pass
    changed = (f"{what} does not match its checksum" for what in checksums.wrong(connection))
    n_runs = connection.execute(select(func.count(runs.c.id))).scalar_one()
    return n_runs, [*_half_written(connection), *changed]


def broken_pages(connection: Connection, schema: str = "main") -> list[str]:
    """What is wrong with the pages, indexes and references of an SQLite database."""
    lines = list(connection.execute(text(f"PRAGMA {schema}.integrity_check(10)")).scalars())
    if lines != ["ok"]:
        return [" ".join(line.split()) for line in lines]
    return broken_references(connection, schema)


def _half_written(connection: Connection) -> Iterator[str]:
    stored: dict[int, list[int]] = defaultdict(list)
    diverged: dict[int, int] = {}
    every = select(epochs.c.run_id, epochs.c.epoch, epochs.c.diverged).order_by(
        epochs.c.run_id, epochs.c.epoch
    )
    for run_id, epoch, has_diverged in connection.execute(every):
        stored[run_id].append(epoch)
        if has_diverged:
            diverged.setdefault(run_id, epoch)
    n_layers: dict[int, dict[int, int]] = defaultdict(dict)
    per_epoch = select(layers.c.run_id, layers.c.epoch, func.count()).group_by(
        layers.c.run_id, layers.c.epoch
    )
    for run_id, epoch, n in connection.execute(per_epoch):
        n_layers[run_id][epoch] = n
    for run in connection.execute(select(runs).order_by(runs.c.id)):
        for what in _wrong_with(run, stored[run.id], n_layers[run.id], diverged.get(run.id)):
            yield f"run {run.id} ({run.recipe} {run.algorithm} seed {run.seed}, {run.state}): {what}"


def _wrong_with(run: Row, have: list[int], counts: dict[int, int], diverged: int | None) -> Iterator[str]:
    """``have``: its stored epochs in order; ``counts``: their numbers of layers; ``diverged``: the first that did."""
    done = -1 if run.epochs_done is None else run.epochs_done
    if run.state not in STATES:
        yield f"its state is none that this pfa knows ({', '.join(STATES)})"
    if done > run.epochs_total:
        yield f"has done {done} epochs of {run.epochs_total}"
    elif have != list(range(done + 1)):
        missing = sorted(set(range(done + 1)) - set(have))
        yield (
            f"lacks {_listed('epoch', missing)}"
            if missing
            else f"has epochs up to {have[-1]}, but says {done}"
        )
    elif run.state == "done" and done != run.epochs_total and run.diverged_epoch is None:
        yield f"is done, but after {done} of {count(run.epochs_total, 'epoch')}"
    elif run.configuration.get("epochs", run.epochs_total) != run.epochs_total:
        said = run.configuration["epochs"]
        yield f"has {count(run.epochs_total, 'epoch')} in all, but its configuration says {said}"
    elif run.diverged_epoch != diverged:
        yield f"diverged in epoch {diverged}, but says {run.diverged_epoch}"
    thin = [epoch for epoch in have if counts.get(epoch, 0) < max(counts.values(), default=1)]
    if thin:
        yield f"lacks layers in {_listed('epoch', thin)}"


def _listed(noun: str, numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:10]))
    return f"{noun}{'s' * (len(numbers) > 1)} {shown}{', …' * (len(numbers) > 10)}"


_ON_A_SERVER = (
    "If there is a backup of the server's database that is whole, take that. Else delete the runs that are named, by "
    "`pfa runs delete NUMBER --yes`: the next `pfa run` trains them again."
)


def _way_out(path: str) -> str:
    """It leaves the database alone and keeps the numbers of runs, so that checkpoints still fit."""
    file = Path(path).name
    return (
        f"End every pfa that uses {path}. If you have an older copy that is whole, take that. Else save what can be "
        f"read by `pfa db salvage {path}.saved --db {path}`; then move {file} to another folder, together with "
        f"{file}-wal and {file}-shm if they are there (the -wal holds the newest results), and rename {file}.saved "
        f"to {file}. The next `pfa run` computes what was lost."
    )
