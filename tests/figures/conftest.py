"""One database for all tests that only read: every algorithm, a sweep, trials, unfinished and diverged runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from synthetic import add_grid, add_run

from pfa_cli.algorithms.registry import ALGORITHMS
from pfa_cli.figures.evidence import Evidence
from pfa_cli.store.engine import Store, open_store
from pfa_cli.theory import simulate

EPOCHS = 4


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("figures") / "pfa.db"
    with open_store(str(path), write=True) as store:
        simulate.run(store, tuple(simulate.Setting(x, units=48, inputs=48, draws=3) for x in (1, 10, 100)))
        add_grid(store, "mnist", [a for a in ALGORITHMS if a not in ("wm", "pal")], range(3), epochs=EPOCHS)
        add_grid(store, "mnist", ["wm", "pal"], range(2), epochs=EPOCHS)
        add_run(store, "mnist", "wm", 2, epochs=EPOCHS, stop_after=1)
        add_run(store, "mnist", "pal", 2, epochs=EPOCHS, diverge_at=2)
        for expansion in (2.0, 50.0):
            for seed in range(2):
                add_run(store, "mnist", "pfa", seed, epochs=EPOCHS, expansion=expansion)
        add_grid(store, "mnist", ["bp", "pfa"], [0], epochs=2)  # an earlier trial
        add_grid(store, "cifar10", ["bp", "fa", "pfa"], range(2), epochs=3)
        add_run(store, "cifar10", "kp", 0, epochs=3, stop_after=2)
        add_run(store, "cifar10", "sf", 0, epochs=2)
        add_grid(store, "imagenet", ["bp", "pfa"], [0], epochs=2)
    return path


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    with open_store(str(database), write=False) as opened:
        yield opened


@pytest.fixture
def evidence(store: Store) -> Evidence:
    return Evidence(store)


@pytest.fixture
def new_store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "new.db"), write=True) as opened:
        yield opened
