"""Databases whose verdicts are known: the figures' synthetic runs, some of them at the paper's scale."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from figures.synthetic import add_grid, add_run

from pfa_cli.comparison import compare
from pfa_cli.comparison.findings import Findings
from pfa_cli.store.engine import Store, open_store


@pytest.fixture(scope="session")
def compared_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST at the paper's scale (3 seeds, one of KP's diverged), everything else shortened or another data set."""
    path = tmp_path_factory.mktemp("comparison") / "pfa.db"
    with open_store(str(path), write=True) as store:
        add_grid(store, "mnist", ["bp", "sf", "pfa", "pfa-o"], range(3), epochs=40)
        add_run(store, "mnist", "fa", 0, epochs=40, stop_after=5)
        add_run(store, "mnist", "kp", 0, epochs=40)
        add_run(store, "mnist", "kp", 1, epochs=40, diverge_at=3)
        for seed in range(2):
            add_run(store, "mnist", "pfa", seed, epochs=40, expansion=50.0)
        add_run(store, "mnist", "dfa", 0, epochs=2)
        add_grid(store, "cifar10", ["bp", "fa", "dfa", "pfa"], range(2), epochs=3)
        add_grid(store, "imagenet", ["bp", "sf", "pfa", "pfa-o"], [0], epochs=2)
    return path


@pytest.fixture
def compared_store(compared_database: Path) -> Iterator[Store]:
    with open_store(str(compared_database), write=False) as opened:
        yield opened


@pytest.fixture(scope="session")
def findings(compared_database: Path) -> Findings:
    with open_store(str(compared_database), write=False) as opened:
        return compare(opened)


@pytest.fixture
def empty_store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "new.db"), write=True) as opened:
        yield opened
