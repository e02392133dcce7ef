"""A results database on a PostgreSQL server: starts at the same time, rights, passwords, a restart."""

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from command_line import Call
from postgres import Server
from sqlalchemy import Connection, NullPool, create_engine, inspect, text
from store_cells import (
    OWNER,
    PROCESSES,
    claimed,
    configuration,
    new_database,
    record,
    run_to_end,
    stored,
    together,
)

from pfa_cli.errors import PfaError
from pfa_cli.store import engine
from pfa_cli.store.check import check
from pfa_cli.store.engine import open_store
from pfa_cli.store.errors import NoResults, ServerLost, StoreError
from pfa_cli.store.merge import merge
from pfa_cli.store.queries import attempts_frame, epochs_frame, runs, simulations_frame
from pfa_cli.store.writer import (
    Measurement,
    claim,
    ensure_run,
    finish,
    heartbeat,
    record_benchmark,
    record_epoch,
    record_simulation,
    start_attempt,
)

STARTS = 20
AT_ONCE = 4


def start_on(databases: list[str], barrier: Barrier) -> None:
    """What `pfa run` does first in a database, in one database after the other, at the same time as the other processes."""
    for db in databases:
        barrier.wait(30)
        with open_store(db, write=True) as store:
            ensure_run(store, configuration(), 0)
            record_simulation(store, "path", {"expansion": 1}, {"path_angle_degrees": [17.4, 17.6]})


def test_four_processes_start_on_an_empty_database(server: Server) -> None:
    databases = [server.new_database() for _ in range(STARTS)]
    barrier = PROCESSES.Barrier(AT_ONCE)
    together(*[(start_on, (databases, barrier))] * AT_ONCE)
    for db in databases:
        with open_store(db, write=False) as store:
            assert len(runs(store)) == 1
            assert simulations_frame(store)["value"].tolist() == [17.4, 17.6]


def test_a_viewer_that_comes_while_the_tables_are_made_finds_no_results_yet(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.new_database()
    original, made = engine._schema_of, []

    def look(connection: Connection) -> Any:
        found = original(connection)
        if not made:
            made.append(url)
            open_store(url, write=True).close()
        return found

    monkeypatch.setattr(engine, "_schema_of", look)
    with pytest.raises(NoResults):
        open_store(url, write=False)


def test_a_restart_of_the_server_is_waited_for_and_nothing_is_lost_or_stored_twice(server: Server) -> None:
    told: list[str] = []
    with open_store(server.new_database(), write=True) as store:
        store.notify = told.append
        mine = claimed(store)
        record_epoch(store, mine, record(0))
        server.stop()
        server.start()  # each connection that was open is dead now
        record_epoch(store, mine, record(1))
        assert told == []
        server.stop()
        with pytest.raises(StoreError, match="does not answer"):
            heartbeat(store, mine)  # does not keep the training waiting
        start = Timer(0.5, server.start)
        start.start()
        record_epoch(store, mine, record(2))
        start.join()
        finish(store, mine, "done")
        assert epochs_frame(store)["epoch"].tolist() == [0, 1, 2]
        assert attempts_frame(store)["outcome"].tolist() == ["done"]
    assert len(told) == 1 and "waits for it, up to 10 minutes" in told[0]


@pytest.mark.parametrize("step", ["claim", "start_attempt", "record_epoch", "finish", "record_benchmark"])
def test_a_step_whose_answer_was_lost_is_repeated_and_counts_once(
    server: Server, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(server.new_database(), write=True)
    original = store.write
    lost: list[str] = []

    @contextmanager
    def write() -> Iterator[Connection]:
        with original() as connection:
            yield connection
        if lost:  # the server has stored it, and the connection broke before it could say so
            raise ServerLost(lost.pop())

    monkeypatch.setattr(store, "write", write)

    def may_lose(name: str) -> None:
        lost[:] = [name] if name == step else []

    run_id = ensure_run(store, configuration(), 0)
    may_lose("claim")
    mine = claim(store, run_id, OWNER, is_alive=lambda row: False)
    assert mine is not None
    may_lose("start_attempt")
    start_attempt(store, mine, {"device": "cpu"})
    may_lose("record_epoch")
    record_epoch(store, mine, record(0))
    may_lose("finish")
    finish(store, mine, "done")
    may_lose("record_benchmark")
    record_benchmark(store, {"cpu": "x86"}, "mnist", [Measurement("epoch", 1.5, "seconds")] * 2)
    assert lost == []
    assert len(stored(store, "benchmarks")) == 2
    assert attempts_frame(store)["outcome"].tolist() == ["done"]
    assert len(epochs_frame(store)) == 1
    store.close()


def test_damage_on_a_server_is_named_with_a_cure_that_a_server_has(server: Server, call: Call) -> None:
    url = server.new_database()
    with open_store(url, write=True) as store:
        run_to_end(store)
        with store.write() as connection:
            connection.exec_driver_sql("UPDATE epochs SET test_loss = 1 WHERE epoch = 1")
        report = check(url)
        assert report.problems == ("epoch 1 of run 1 (mnist pfa seed 0) does not match its checksum",)
        assert "`pfa runs delete NUMBER --yes`" in str(report) and "salvage" not in str(report)
        with store.write() as connection:
            connection.exec_driver_sql("UPDATE runs SET heartbeat_at = '9999-12-31'")
        answer = call("db", "check", "--db", url)
        assert answer.code == 1 and answer.out.startswith(f"{store.name}:\ndamaged: runs.heartbeat_at")
    with open_store(url, write=True) as store, store.write() as connection:
        connection.exec_driver_sql("UPDATE runs SET heartbeat_at = '2026-01-01'")
    assert "deleted 1 run" in call("runs", "delete", "1", "--yes", "--db", url).out
    assert check(url).ok


@pytest.fixture(scope="module")
def guests(server: Server) -> str:
    """The URL of a database in which the guest can do nothing."""
    url = server.create("results")
    open_store(url, write=True).close()
    return url.replace("owner@", "guest:s3cret@")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("", ""), "missing rights in the database"),
        ((":s3cret@", ":s3cret-not@"), "refused the user or the password"),
        (("guest:", "nobody:"), "refused the user or the password"),
        (("/results?", "/nowhere?"), "knows no database"),
        (("@/", "@no-such-host.invalid/"), "the host of the database .* is unknown"),
        (("@/", "@localhost:1/"), "does not answer"),
        (("@/", "@localhost:port/"), "neither a file nor a URL"),
        (("?", "?sslmode=nonsense&"), "has a setting that the driver refuses"),
        (("postgresql:", "mysql:"), "mysql databases are not supported"),
    ],
)
def test_what_a_server_refuses_is_said_in_one_sentence_without_the_password(
    guests: str, change: tuple[str, str], message: str, call: Call
) -> None:
    url = guests.replace(*change)
    if "@/" in change:
        url = url.partition("?")[0]
    for command in ("status", "simulate", "run mnist --dry-run"):
        answer = call(*command.split(), "--db", url)
        assert answer.code in (1, 2)
        assert re.search(message, answer.err), answer.err
        assert len(answer.err.splitlines()) == 1
        assert "s3cret" not in answer.err + answer.out
    with pytest.raises(PfaError) as raised:
        open_store(url, write=True)
    assert "s3cret" not in "".join(traceback.format_exception(raised.value))


def test_a_missing_driver_is_said_with_the_command_that_installs_it(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # to import it is an error
    answer = call("status", "--db", "postgresql://pfa:s3cret@localhost/results")
    assert answer.code == 2
    assert "pip install 'pfa[postgres]'" in answer.err
    assert "s3cret" not in answer.err


def test_who_may_only_read_can_look(server: Server, guests: str) -> None:
    server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest", "results")
    with open_store(guests, write=False) as store:
        assert runs(store) == []
    with open_store(guests, write=True) as store, pytest.raises(StoreError, match="missing rights"):
        ensure_run(store, configuration(), 0)
    server.execute("REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM guest", "results")


OLDER = ["ALTER TABLE runs DROP COLUMN tags", "UPDATE alembic_version SET version_num = '0001'"]


@pytest.mark.parametrize("statements", [OLDER[:1], OLDER], ids=["without a column", "of an older schema"])
def test_an_older_database_is_looked_at_without_being_written_to(
    server: Server, call: Call, untried: None, monkeypatch: pytest.MonkeyPatch, statements: list[str]
) -> None:
    monkeypatch.setenv("PFA_CHECKPOINTS", "checkpoints")
    url = server.new_database()
    with open_store(url, write=True) as store:
        run_to_end(store)
        with store.write() as connection:
            for statement in ("DROP VIEW run_results", *statements):
                connection.execute(text(statement))
    answer = call("run", "mnist", "--algos", "pfa", "--epochs", "3", "--seeds", "2", "--dry-run", "--db", url)
    assert (answer.code, "2 cells, 1 to train" in answer.out) == (0, True), answer.err + answer.out
    assert call("status", "--db", url).code == 0
    with open_store(url, write=False) as store:
        assert [row.tags for row in runs(store)] == [None]
        assert len(stored(store, "layers")) == 8
    untouched = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool)
    assert "tags" not in {column["name"] for column in inspect(untouched).get_columns("runs")}
    open_store(url, write=True).close()
    assert check(url).ok


def test_both_engines_give_the_same_figures_tables_and_verdicts(
    server: Server, database: Path, tmp_path: Path, call: Call
) -> None:
    url, back = server.new_database(), str(tmp_path / "back.db")
    for target, source in ((url, str(database)), (back, url)):
        assert call("merge", source, "--db", target).out.endswith("benchmark values added\n")
        assert merge(target, source).added == 0
        assert check(target).ok  # with the checksums
    made = []
    for number, db in enumerate((back, url)):
        out = Path(f"{number}")
        assert (
            call("figures", "--only", "fig2,fig3", "--format", "svg", "--out", str(out), "--db", db).code == 0
        )
        for name in ("epochs", "layers", "simulations", "benchmarks"):
            assert call("export", "--table", name, "--out", str(out / f"{name}.csv"), "--db", db).code == 0
        made.append({path.name: path.read_bytes() for path in out.rglob("*.*")})
        made[-1]["verdicts"] = call("compare", "--json", "--db", db).out.encode()
    assert made[0].keys() == made[1].keys() and len(made[0]) > 6
    assert [name for name in made[0] if made[0][name] != made[1][name]] == []


def test_the_commands_of_the_documentation_run(
    server: Server, tmp_path: Path, call: Call, untried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_database(tmp_path / "results" / "pfa.db")
    url = server.new_database()
    monkeypatch.setenv("PFA_DB", url)
    monkeypatch.setenv("PFA_CHECKPOINTS", str(tmp_path / "checkpoints"))
    text = (Path(__file__).parents[2] / "docs" / "postgresql.md").read_text(encoding="utf-8")
    commands = re.findall(r"^pfa (.+)$", text, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        arguments = command.replace("postgresql://me@db.example.org/results", url).split()
        answer = call(*arguments, *(["--dry-run"] if arguments[0] == "run" else []))
        assert answer.code == 0 and answer.out, answer.err
