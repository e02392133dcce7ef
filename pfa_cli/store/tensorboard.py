"""The results as TensorBoard's event files, by torch's own SummaryWriter: one folder per run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from pfa_cli.errors import PfaError
from pfa_cli.records import EpochRecord, LayerRecord, metrics
from pfa_cli.store.engine import Store
from pfa_cli.store.schema import epochs, layers, runs
from pfa_cli.store.tables import settings


def export(store: Store, out: Path) -> int:
    """Writes every run into a folder of its own in ``out``, "mnist/pfa-seed0-1f2e3d4c"; the number of runs.

    Scalars by epoch: the metrics of an epoch, and of its layers as "path_angle_degrees/fc1"; and the settings, with the
    accuracies of the last epoch, for TensorBoard's page of hyperparameters.

    Raises PfaError without the package tensorboard, where ``out`` holds event files already, or cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise PfaError(
            "TensorBoard's files need the package tensorboard: `pip install 'pfa[tensorboard]'`, or export to csv"
        ) from error
    try:
        if next(out.rglob("events.out.tfevents.*"), None) is not None:
            raise PfaError(
                f"{out} holds event files already, which these would mix with: name another folder"
            )
        out.mkdir(parents=True, exist_ok=True)

        def write_all(connection: Connection) -> int:
            for written in out.rglob("events.out.tfevents.*"):  # if the reading had to be repeated
                written.unlink()
            known = settings(connection)
            found = connection.execute(select(runs).order_by(runs.c.id)).mappings().all()
            for run in found:
                name = f"{run['recipe']}/{run['algorithm']}-seed{run['seed']}-{run['config_hash'][:8]}"
                last: dict[str, float] = {}
                with SummaryWriter(str(out / name)) as writer:
                    for tag, epoch, value in _scalars(connection, run["id"]):
                        writer.add_scalar(tag, value, epoch)
                        if tag.endswith("_accuracy_percent"):
                            last[f"last/{tag}"] = value
                    values = dict(zip(known.names, known.values[run["id"]], strict=True))
                    named = {key.removeprefix("setting_"): value for key, value in values.items()}
                    named = {"algorithm": run["algorithm"], "seed": run["seed"], **named}
                    writer.add_hparams(
                        {key: value for key, value in named.items() if value is not None}, last, run_name="."
                    )
            return len(found)

        return store.read(write_all)
    except OSError as error:
        reason = error.strerror or error
        raise PfaError(f"cannot write {out} ({reason}). Name a folder where you may write.") from error


def _scalars(connection: Connection, run: int) -> Iterator[tuple[str, int, float]]:
    """Tag, epoch and value of every number of a run that is defined."""
    tables: Any = ((epochs, metrics(EpochRecord)), (layers, metrics(LayerRecord)))
    for source, columns in tables:
        query = select(source).where(source.c.run_id == run).order_by(*source.primary_key)
        for row in connection.execute(query).mappings():
            where = f"/{row['layer']}" if source is layers else ""
            for metric in columns:
                if row[metric.name] is not None:
                    yield f"{metric.name}{where}", row["epoch"], row[metric.name]
