"""Where the checkpoints of a database's cells lie, and which of them nobody needs any more."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pfa_cli.configuration import Configuration
from pfa_cli.store import writer
from pfa_cli.store.engine import Store
from pfa_cli.store.queries import RunRow, runs
from pfa_cli.training import checkpoint

_CELL = re.compile(r".+-seed\d+-[0-9a-f]{16}")  # the names of cells' folders


def checkpoint_folder(store: Store, configuration: Configuration, seed: int) -> Path:
    """Where the cell's checkpoints lie: beside the database; for a server's database, in ``results``.

    Named by what the cell is and not by the run's number, which another database would give to another cell.
    """
    return _all_checkpoints(store) / _cell_name(configuration, seed)


def prepare_folder(store: Store, configuration: Configuration, seed: int, claim: writer.Claim) -> Path:
    """The cell's folder, made if missing, without checkpoints that are ahead of the database.

    Folders were once named without the database's last suffix, so that lr-0.1 and lr-0.2 shared one. What such a
    folder holds of a run that has begun is copied; the folder stays, as another database may use it, too.
    """
    folder = checkpoint_folder(store, configuration, seed)
    former = _database(store).with_suffix(".checkpoints") / _cell_name(configuration, seed)
    if claim.epochs_done is not None and not folder.exists() and former.is_dir():
        shutil.copytree(former, folder)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.discard(folder, after_epoch=claim.epochs_done)
    return folder


@dataclass(frozen=True)
class Unneeded:
    """Files of one cell that can go, and why."""

    folder: Path
    reason: str
    files: tuple[Path, ...]
    size: int  # bytes
    last: str | None = None  # the checkpoint that stays, without its momentum

    def remove(self) -> None:
        """Removes the files, and the folder if that leaves it empty."""
        for path in self.files:
            path.unlink(missing_ok=True)
        if self.last is not None:
            checkpoint.strip_momentum(self.folder, self.last)
        elif not any(self.folder.iterdir()):
            self.folder.rmdir()


def unneeded(store: Store) -> Iterator[Unneeded]:
    """What no run goes on from: all but the last checkpoint of a done cell, and those of cells not in the database."""
    base = _all_checkpoints(store)
    # Listed before the database is read: the folder of a cell that begins now is not there, or its cell is known.
    folders = [path for path in sorted(base.iterdir()) if path.is_dir()] if base.is_dir() else []
    known = {_name_of(row): row for row in runs(store)}
    for folder in folders:
        row = known.get(folder.name)
        if row is None:
            if not _CELL.fullmatch(folder.name):
                continue
            last, reason = None, "its cell is not in the database"
        elif row.state == "done":
            last, reason = row.checkpoint, "its cell is done"
        else:
            continue
        files = [
            path
            for name in checkpoint.names(folder)
            if name != last
            for path in checkpoint.paths(folder, name)
        ]
        files += checkpoint.half_written(folder)
        if last is None:
            files.append(folder / "traceback.txt")
        there = tuple(path for path in files if path.is_file())
        size = sum(path.stat().st_size for path in there)
        if last is not None:
            size += checkpoint.momentum_bytes(folder, last)
        if size:
            yield Unneeded(folder, reason, there, size, last)


def _all_checkpoints(store: Store) -> Path:
    database = _database(store)
    return database.with_name(f"{database.name}.checkpoints")


def _database(store: Store) -> Path:
    return store.path or Path("results", f"{store.engine.url.database}")


def _cell_name(c: Configuration, seed: int) -> str:
    return f"{c.recipe}-{c.algorithm}-seed{seed}-{c.hash}"


def _name_of(row: RunRow) -> str:
    return f"{row.recipe}-{row.algorithm}-seed{row.seed}-{row.config_hash}"
