"""Small real runs for the tests of `pfa_cli.runs`: MNIST with a narrow network, and ResNet-20 on a few photographs."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image
from sqlalchemy import select

from pfa_cli.recipes import load_recipe
from pfa_cli.records import EpochRecord
from pfa_cli.registry import ALGORITHMS
from pfa_cli.runs import launch
from pfa_cli.runs.backend import Task
from pfa_cli.runs.checkpoints import folder_of
from pfa_cli.runs.plan import Plan, make_plan
from pfa_cli.store import schema, writer
from pfa_cli.store.engine import Store, open_store
from pfa_cli.store.errors import NoResults
from pfa_cli.store.owner import Owner
from pfa_cli.store.queries import RunRow, runs
from pfa_cli.terminal import Terminal
from pfa_cli.theory import simulate

SMALL = {
    "epochs": 4,
    "train_images": 640,
    "test_images": 200,
    "batch_size": 32,
    "hidden_sizes": [32, 32],
    "wm.mirror_samples": 32,
}
# Times differ from run to run, and with them the checksum; the run's number and attempt from database to database.
_NOT_RESULTS = {"run_id", "attempt_id", "seconds", "images_per_second", "checksum"}

_RESNET = """
title = "ResNet-20 on a few photographs"
[base]
dataset = "imagefolder"
network = "resnet20"
epochs = 3
batch_size = 6
learning_rate = 0.1
milestones = [2]
learning_rate_factor = 0.1
momentum = 0.9
weight_decay = 1e-4
image_size = 32
corrupt_share_percent = 0.0
probe_images = 6
[algorithms.wm]
mirror_samples = 32
"""


def plan(algorithms: Iterable[str] = ALGORITHMS, seeds: Iterable[int] = (0,), **changes: Any) -> Plan:
    """The cells of SMALL with changes, as for an empty database."""
    return make_plan(None, load_recipe("mnist"), algorithms, seeds, _settings(algorithms, changes))


def resnet_plan(folder: Path, algorithms: Iterable[str]) -> Plan:
    """ResNet-20 for a few batches; its recipe, and its photographs for ``--data-dir``, are made in ``folder``."""
    recipe = folder / "resnet20.toml"
    if not recipe.exists():
        rng = np.random.default_rng(0)
        for part, images in (("train", 6), ("val", 2)):
            for label in ("cat", "dog", "owl"):
                (folder / part / label).mkdir(parents=True)
                for number in range(images):
                    pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / part / label / f"{number}.png")
        recipe.write_text(_RESNET)
    return make_plan(None, load_recipe(str(recipe)), algorithms, [0])


def add_run(
    store: Store,
    algorithm: str,
    seed: int = 0,
    *,
    state: str = "running",
    owner: Owner | None = None,
    epochs: int = 0,
    total: int = 10,
    error: str | None = None,
    settings: Mapping[str, object] | None = None,
    **measured: float,
) -> int:
    """A run as a worker would have left it."""
    (cell,) = plan([algorithm], [seed], **({"epochs": total} | dict(settings or {}))).cells
    run_id = writer.ensure_run(store, cell.configuration, seed)
    if state == "queued":
        return run_id
    claim = writer.claim(store, run_id, owner or Owner.current(), is_alive=lambda row: False)
    assert claim is not None
    writer.start_attempt(store, claim, {})
    for epoch in range(epochs + 1):
        values = {
            "test_accuracy_percent": 80.0 + epoch,
            "seconds": 10.0,
            "images_per_second": 5000.0,
        } | measured
        writer.record_epoch(store, claim, EpochRecord(epoch, **values))
    if state != "running":
        writer.finish(store, claim, state, error=error)  # type: ignore[arg-type]
    return run_id


def tasks(db: Path, cells: Plan) -> list[Task]:
    """The cells as a back end gets them, stored as queued."""
    with open_store(str(db), write=True) as store:
        return [
            Task(n, writer.ensure_run(store, cell.configuration, cell.seed), cell.configuration, cell.seed)
            for n, cell in enumerate(cells.cells)
        ]


def train(db: Path | str, cells: Plan, data_dir: Path | None = None, **options: Any) -> tuple[int, str]:
    """Runs the cells in this process; exit code and what was printed."""
    out = io.StringIO()
    with patch.object(launch, "ensure"):  # Figure 3's simulations: seconds, and no matter of these tests
        code = launch.run_cells(
            str(db),
            cells,
            jobs=1,
            device="cpu",
            data_dir=data_dir,
            console=Terminal(file=out, width=200),
            **options,
        )
    return code, out.getvalue()


def with_simulations(db: Path) -> Path:
    """Notes in a new database that Figure 3's simulations are there, which `pfa run` makes at its end, in three seconds."""
    with open_store(str(db), write=True) as store:
        for setting in simulate.SETTINGS:
            for kind, parameters in setting.stored():
                writer.record_simulation(store, kind, parameters, {"path_angle_degrees": [0.0]})
    return db


def start(
    db: Path | str, algorithms: str, *arguments: str, recipe: str = "mnist", **changes: Any
) -> subprocess.Popen[str]:
    """`pfa run` of the same cells as `plan`, in a process group of its own, as a shell would give it."""
    settings = _settings(algorithms.split(","), changes) if recipe == "mnist" else {}
    if isinstance(db, Path) and not db.exists():
        with_simulations(db)
    run = [
        sys.executable,
        "-m",
        "pfa_cli",
        "run",
        recipe,
        f"--algos={algorithms}",
        f"--db={db}",
        "--device=cpu",
    ]
    return subprocess.Popen(
        [*run, *(f"--set={key}={value}" for key, value in settings.items()), *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ
        | {"OMP_NUM_THREADS": "1"},  # as the workers set it themselves; also while torch is imported
        start_new_session=True,
    )


LIMIT_SECONDS = (
    300.0  # for what takes seconds on a machine with nothing else to do; what hangs does so for ever
)


def until(condition: Callable[[], Any], what: str, seconds: float = LIMIT_SECONDS) -> Any:
    """Waits for ``condition`` to become true; its value."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.05)
    return found


def stored(db: Path | str) -> list[RunRow]:
    """The runs, read as `pfa status` reads them; none if there is no database yet."""
    try:
        with open_store(str(db), write=False) as store:
            return runs(store)
    except NoResults:
        return []


def running(db: Path | str, *, epochs: int = 0) -> list[RunRow]:
    """The running cells with at least so many epochs stored."""
    return [row for row in stored(db) if row.state == "running" and (row.epochs_done or 0) >= epochs]


def states(db: Path | str) -> list[str]:
    return [row.state for row in stored(db)]


def results(db: Path | str) -> dict[tuple[str, str, int, str], list[Any]]:
    """All that was measured, and the final tensors, by cell: equal for equal trainings, bit for bit."""
    found = {}
    with open_store(str(db), write=False) as store:
        for row in runs(store):
            tensors = (folder_of(store, row) / f"{row.checkpoint}.safetensors").read_bytes()
            values = [row.state, row.diverged_epoch, tensors]
            for table in (schema.epochs, schema.layers):
                query = select(table).where(table.c.run_id == row.id).order_by(*table.primary_key)
                for measured in store.read(lambda c, query=query: list(c.execute(query).mappings())):
                    values.append({k: repr(v) for k, v in measured.items() if k not in _NOT_RESULTS})
            found[row.recipe, row.algorithm, row.seed, row.config_hash] = values
    return found


def _settings(algorithms: Iterable[str], changes: dict[str, Any]) -> dict[str, Any]:
    """SMALL with changes, without what concerns none of these algorithms."""
    own = {key: value for key, value in SMALL.items() if "." not in key or key.split(".")[0] in algorithms}
    return own | changes
