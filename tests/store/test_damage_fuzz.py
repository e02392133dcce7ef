"""Bytes flipped at random (but the same ones every time) in small databases, and every command asked of each."""

import math
import random
from pathlib import Path
from typing import Any

import pytest
from command_line import Call
from store_cells import claimed, record, run_to_end

from pfa_cli.store.engine import open_store
from pfa_cli.store.tables import table
from pfa_cli.store.writer import Measurement, finish, record_benchmark, record_epoch, record_simulation
from pfa_cli.theory.simulate import Setting

NUMBERS = ("epochs", "layers", "simulations", "benchmarks")
# What may change without a number being wrong: who ran a cell, on what, and when.
NOT_A_RESULT = {"attempt_id", "created_at"}
OF_A_RUN = ("run_id", "recipe", "algorithm", "seed", "config_hash", "configuration", "state")
OF_A_RUN += ("epochs_total", "epochs_done", "diverged_epoch")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with something in every table."""
    path = tmp_path_factory.mktemp("whole") / "pfa.db"
    with open_store(str(path), write=True) as store:
        for algorithm in ("bp", "fa", "pfa"):
            run_to_end(store, algorithm=algorithm)
        run_to_end(store, seed=1, epochs=2)
        mine = claimed(store, algorithm="pal")
        for epoch in range(4):
            record_epoch(store, mine, record(epoch, diverged=epoch > 1))
        finish(store, mine, "done")
        record_simulation(
            store, "path", Setting(10, draws=2).parameters("path"), {"path_angle_degrees": [17.5, math.nan]}
        )
        record_benchmark(store, {"cpu": "x86"}, "mnist", [Measurement("epoch", 1.5, "seconds")])
    return path


def results(path: Path) -> dict[str, Any]:
    """Every number that was measured, and what it belongs to."""

    def rows(name: str) -> str:
        found = store.read(lambda connection: connection.execute(table(name)).mappings().all())
        if name == "runs":
            return repr([[row[column] for column in OF_A_RUN] for row in found])
        return repr([[value for key, value in row.items() if key not in NOT_A_RESULT] for row in found])

    with open_store(str(path), write=False) as store:
        return {name: rows(name) for name in ("runs", *NUMBERS)}


def damaged_copy(content: bytes, seed: int) -> bytes:
    """One byte of ``content`` flipped in one to eight bits, where there is something (and once in a while where not)."""
    chance = random.Random(seed)
    place = chance.choice([i for i, byte in enumerate(content) if byte or chance.random() < 0.002])
    changed = bytearray(content)
    changed[place] ^= chance.choice([1 << chance.randrange(8), chance.randrange(1, 256)])
    return bytes(changed)


def commands(seed: int) -> list[str]:
    """All that read or write a database; the slow ones of every tenth."""
    tables = ("runs", "attempts", *NUMBERS)
    chosen = [
        f"export --table {tables[seed % 6]} --out {seed}.csv",
        f"export --table {('epochs', 'layers')[seed % 2]} --out {seed}.csv",
        ("status", "status --json")[seed % 2],
        "run mnist --algos bp,pfa --seeds 2 --epochs 3 --dry-run",
        f"merge {seed}.db --db merged-{seed}.db",
        f"db salvage salvaged-{seed}.db",
        "db upgrade",
        "db check",
    ]
    slow = {
        0: "compare --json",
        5: f"figures --only fig2 --format svg --out {seed}",
        7: f"report --out {seed}",
    }
    return [slow[seed % 10], *chosen] if seed % 10 in slow else chosen


@pytest.mark.parametrize("databases", [16, pytest.param(200, marks=pytest.mark.long)])
def test_every_command_answers_or_says_that_the_database_is_damaged(
    databases: int, whole: Path, tmp_path: Path, call: Call
) -> None:
    content, written = whole.read_bytes(), results(whole)
    refused = 0
    for seed in range(databases):
        path = tmp_path / f"{seed}.db"
        path.write_bytes(damaged_copy(content, seed))
        before = path.read_bytes()
        answers = {}
        for command in commands(seed):
            answer = answers[command] = call(
                *command.split(), *(() if "--db" in command else ("--db", path.name))
            )
            assert answer.code in (0, 1), (seed, command)
            assert answer.code == 0 or "pfa" in answer.err + answer.out, (seed, command)
            assert "Traceback" not in answer.err + answer.out, (seed, command)
        if answers["db check"].code == 0:
            assert results(path) == written, seed
            assert all(answer.code == 0 for answer in answers.values()), seed
            continue
        refused += 1
        if answers["db upgrade"].code:
            assert path.read_bytes() == before, seed
        saved = tmp_path / f"salvaged-{seed}.db"
        if saved.exists():
            assert call("db", "check", "--db", saved.name).code == 0, seed
    assert databases // 4 < refused < databases
