"""For all tests: the command line in this process, and the databases that many tests only read."""

import gc
import importlib.util
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Answer, Call
from postgres import Server, programs
from synthetic import PAPERS, add_grid, add_run

from pfa_cli.analysis.evidence import Evidence
from pfa_cli.analysis.findings import Findings, find
from pfa_cli.store.engine import Store, open_store
from pfa_cli.theory import simulate

# Folders may each have one; --doctest-modules would collect them as modules, whose names then clash.
# What runs on the fake GPU is a program of its own, which looks for that GPU when it is imported.
collect_ignore_glob = ["*conftest.py", "*on_fake_gpu.py"]

# `nohup pytest` and a script's background job ignore these, and processes started by tests would inherit that; a signal
# with a handler has its default again in them.
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What the imports made stays: else every `gc.collect()` of pfa's, and of the collector, looks through all of torch."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs `pfa` with the arguments given, in this process and in ``tmp_path``: a start of Python and torch costs seconds."""
    from pfa_cli.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")  # main sets it, too; this takes it back afterwards

    def run(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["pfa", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Answer(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def without_simulations(monkeypatch: pytest.MonkeyPatch) -> None:
    """`pfa run` in this process leaves out Figure 3's simulations at its end: three seconds for each new database."""
    monkeypatch.setattr("pfa_cli.runs.launch.ensure", lambda store: 0)


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run in this process tries no steps of training: an epoch of every algorithm takes a second."""
    monkeypatch.setattr(
        "pfa_cli.bench.command.epoch_seconds", lambda recipe, names, *_: dict.fromkeys(names, 1.0)
    )


EPOCHS = 4  # of the trials in `database`


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trials of every algorithm, a sweep, unfinished and diverged runs."""
    path = tmp_path_factory.mktemp("figures") / "pfa.db"
    with open_store(str(path), write=True) as store:
        simulate.run(store, tuple(simulate.Setting(x, units=48, inputs=48, draws=3) for x in (1, 10, 100)))
        add_grid(store, "mnist", [a for a in PAPERS if a not in ("wm", "pal")], range(3), epochs=EPOCHS)
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
        add_grid(store, "imagenet", ["bp", "kp", "pfa"], [0], epochs=2)
    return path


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


@pytest.fixture(scope="session")
def store(database: Path) -> Iterator[Store]:
    with open_store(str(database), write=False) as opened:
        yield opened


@pytest.fixture(scope="session")
def evidence(store: Store) -> Evidence:
    return Evidence(store)


@pytest.fixture
def compared_store(compared_database: Path) -> Iterator[Store]:
    with open_store(str(compared_database), write=False) as opened:
        yield opened


@pytest.fixture(scope="session")
def findings(compared_database: Path) -> Findings:
    with open_store(str(compared_database), write=False) as opened:
        return find(Evidence(opened))


@pytest.fixture
def new_store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "new.db"), write=True) as opened:
        yield opened


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server for this session of tests."""
    binaries = programs()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("the driver psycopg is not installed (pip install 'psycopg[binary]')")
    started = Server(binaries)
    yield started
    started.remove()
