"""Where the checkpoints of a database's cells lie, and which of them nobody needs any more."""

import hashlib
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pfa_cli.configuration import Configuration
from pfa_cli.errors import PfaError, UsageError
from pfa_cli.runs.plan import Cell
from pfa_cli.store import server, writer
from pfa_cli.store.engine import Store, database_file
from pfa_cli.store.queries import RunRow, runs

_ROW_BYTES = 130  # of the database, per epoch and layer: measured with all metrics
_CELL = re.compile(r".+-seed\d+-[0-9a-f]{16}")  # the names of cells' folders


def check_checkpoint_dir(db: str | None, chosen: Path | None) -> None:
    """UsageError if nothing says where the checkpoints of a server's database are to lie."""
    if chosen is None and database_file(db) is None:
        raise UsageError(
            "a database on a server needs a folder for the checkpoints that all machines of the runs can reach: name it by "
            "`--checkpoint-dir FOLDER` or PFA_CHECKPOINTS"
        )


def keep_checkpoints_in(store: Store, chosen: Path | None, run_ids: Iterable[int]) -> None:
    """Stores with the runs that their checkpoints lie in ``chosen``, in a folder of this database's own.

    A run that has checkpoints already keeps their folder while that is there.
    """
    if chosen is None:
        return
    if store.path is None:
        name = f"{store.engine.url.database}-{store.read(server.identity)}"
    else:
        name = f"{store.path.name}-{hashlib.sha256(str(store.path).encode()).hexdigest()[:8]}"
    folder = chosen.absolute() / f"{name}.checkpoints"
    wanted = set(run_ids)
    for row in runs(store):
        default_is_used = (
            row.checkpoint_dir is None and row.epochs_done is not None and store.path is not None
        )
        is_there = row.checkpoint_dir is not None and Path(row.checkpoint_dir).is_dir()
        if row.id in wanted and not default_is_used and not is_there and row.checkpoint_dir != str(folder):
            writer.set_checkpoint_dir(store, row.id, str(folder))


def checkpoint_folder(
    store: Store, configuration: Configuration, seed: int, checkpoint_dir: str | None = None
) -> Path:
    """Where the cell's checkpoints lie: in ``checkpoint_dir``, which is stored with the run, else beside the database.

    Named by what the cell is and not by the run's number, which another database would give to another cell.
    """
    c = configuration
    return _folder(store, checkpoint_dir) / _cell_name(c.recipe, c.algorithm, seed, c.hash)


def folder_of(store: Store, row: RunRow) -> Path:
    """Where the run's checkpoints lie."""
    return _folder(store, row.checkpoint_dir) / _cell_name(
        row.recipe, row.algorithm, row.seed, row.config_hash
    )


def prepare_folder(store: Store, folder: Path, epochs_done: int | None) -> None:
    """Makes the cell's folder if it is missing, and removes checkpoints that are ahead of the database.

    Folders were once named without the database's last suffix, so that lr-0.1 and lr-0.2 shared one. What such a
    folder holds of a run that has begun is copied; the folder stays, as another database may use it, too.
    """
    from pfa_cli.training import checkpoint  # imports torch

    if store.path is not None and epochs_done is not None and not folder.exists():
        former = store.path.with_suffix(".checkpoints") / folder.name
        if former.is_dir():
            shutil.copytree(former, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise PfaError(
            f"{error.filename} is a file where the folder of a cell's checkpoints belongs: move it away, then run the same "
            "command again"
        ) from None
    checkpoint.discard(folder, after_epoch=epochs_done)


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
        from pfa_cli.training import checkpoint

        for path in self.files:
            path.unlink(missing_ok=True)
        if self.last is not None:
            checkpoint.strip_momentum(self.folder, self.last)
        elif not any(self.folder.iterdir()):
            self.folder.rmdir()


def unneeded(store: Store) -> Iterator[Unneeded]:
    """What no run goes on from: all but the last checkpoint of a done cell, and those of cells not in the database."""
    from pfa_cli.training import checkpoint

    bases = {row.checkpoint_dir for row in runs(store)} | {None}
    # Listed before the database is read: the folder of a cell that begins now is not there, or its cell is known.
    folders = [
        path
        for base in sorted(_folder(store, name) for name in bases)
        if base.is_dir()
        for path in sorted(base.iterdir())
        if path.is_dir()
    ]
    known = {folder_of(store, row): row for row in runs(store)}
    for folder in folders:
        row = known.get(folder)
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


def disk_needed(store: Store | None, cells: Iterable[Cell], *, kept: int, at_a_time: int) -> float:
    """Bytes that the cells will still take, about: rows of the database, and checkpoints.

    Of a done cell ``kept`` checkpoints stay, the last without momentum; a cell in training has two. How large one is, a
    done cell of the same recipe and algorithm in ``store`` says; else it is taken to hold each weight with two of feedback.
    """
    measured = {} if store is None else _sizes(store)
    rows, stay, training = 0.0, 0.0, []
    sizes: dict[str, tuple[int, int]] = {}
    for cell in cells:
        if not cell.epochs_left:
            continue
        if cell.configuration.hash not in sizes:
            sizes[cell.configuration.hash] = _size(cell.configuration)
        layers, weights = sizes[cell.configuration.hash]
        last = measured.get((cell.configuration.recipe, cell.algorithm), 3 * 4 * weights)
        whole = last + 4 * weights * (cell.configuration.momentum > 0)
        rows += cell.epochs_left * (layers + 1) * _ROW_BYTES
        stay += last * (kept > 0) + whole * (kept > 1)
        training.append(2 * whole)
    return rows + stay + sum(sorted(training, reverse=True)[:at_a_time])


def free_bytes(folder: Path) -> int:
    """How much room there is where ``folder`` is, or will be."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def _sizes(store: Store) -> dict[tuple[str, str], int]:
    """Bytes of a done cell's last checkpoint, by recipe and algorithm."""
    from pfa_cli.training import checkpoint

    found = {}
    for row in runs(store):
        if row.state == "done" and row.checkpoint is not None:
            files = checkpoint.paths(folder_of(store, row), row.checkpoint)
            if all(path.is_file() for path in files):
                found[row.recipe, row.algorithm] = sum(path.stat().st_size for path in files)
    return found


def _size(configuration: Configuration) -> tuple[int, int]:
    """Layers and weights of the network; of one whose data have to be read first, none."""
    import torch

    from pfa_cli.networks import build_network

    shape, n_classes = configuration.input_shape, configuration.dataset_entry.n_classes
    if shape is None or n_classes is None:
        return 0, 0
    with torch.device("meta"):
        network = build_network(configuration, n_classes, shape)
    weights = list(network.parameters())
    return sum(w.ndim > 1 for w in weights), sum(w.numel() for w in weights)


def _folder(store: Store, checkpoint_dir: str | None) -> Path:
    """The folder of the checkpoints of all cells; for a server's run of before they had one, the former default."""
    if checkpoint_dir is not None:
        return Path(checkpoint_dir)
    database = store.path or Path("results", f"{store.engine.url.database}")
    return database.with_name(f"{database.name}.checkpoints")


def _cell_name(recipe: str, algorithm: str, seed: int, config_hash: str) -> str:
    return f"{recipe}-{algorithm}-seed{seed}-{config_hash}"
