"""Damaged databases, and files that are none: refused in one sentence by whoever reads or writes, and found by check."""

import os
import shutil
import socket
import sqlite3
from pathlib import Path

import pytest
from command_line import Call
from store_cells import beside, change, claimed, configuration, new_database, run_to_end, stored

from pfa_cli.store.check import check
from pfa_cli.store.engine import open_store
from pfa_cli.store.errors import DamagedDatabase, StoreError
from pfa_cli.store.queries import attempts_frame, epochs_frame, runs
from pfa_cli.store.writer import claim, ensure_run, record_simulation, start_attempt

READERS = ["status", "export --out x.csv --table {table}", "db check", "merge pfa.db --db other.db"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept") / "pfa.db"
    with open_store(str(path), write=True) as store:
        for seed in range(2):
            run_to_end(store, seed=seed)
        record_simulation(store, "path", {"expansion": 10}, {"path_angle_degrees": [17.5]})
    return path


@pytest.fixture
def path(kept: Path, tmp_path: Path) -> Path:
    """A database of two finished runs and a simulation."""
    return Path(shutil.copyfile(kept, tmp_path / "pfa.db"))


DAMAGED_VALUES = {
    "text that is not UTF-8": ("runs", "UPDATE runs SET recipe = CAST(x'6de46973' AS TEXT) WHERE id = 1"),
    "number for a text": (
        "runs",
        "PRAGMA writable_schema = ON; UPDATE runs SET dataset = x'00' WHERE id = 1",
    ),
    "JSON cut off": ("runs", "UPDATE runs SET configuration = '{\"epochs\": ' WHERE id = 1"),
    "JSON of another kind": ("runs", "UPDATE runs SET configuration = '[]' WHERE id = 1"),
    "JSON of parameters": ("simulations", "UPDATE simulations SET parameters = '{\"expansion: 10}'"),
    "a month that is none": ("runs", "UPDATE runs SET heartbeat_at = '2026-13-45' WHERE id = 1"),
    "a year that is none": ("runs", "UPDATE runs SET created_at = '9999-12-31 23:59:59.000000' WHERE id = 1"),
    "text for a number": ("runs", "UPDATE runs SET epochs_done = 'abc' WHERE id = 1"),
    "a number too large": ("runs", "UPDATE runs SET epochs_done = 2147483648 WHERE id = 1"),
    "a negative number": ("runs", "UPDATE runs SET epochs_total = -1 WHERE id = 1"),
    "text for a measurement": ("epochs", "UPDATE epochs SET train_loss = 'no number' WHERE epoch = 1"),
    "neither true nor false": ("epochs", "UPDATE epochs SET diverged = 7 WHERE epoch = 1"),
}


@pytest.mark.parametrize("kind", DAMAGED_VALUES)
def test_a_value_that_pfa_cannot_have_written_is_one_sentence_everywhere(
    path: Path, call: Call, kind: str
) -> None:
    where, statement = DAMAGED_VALUES[kind]
    change(path, statement)
    for command in READERS:
        if command == "status" and where != "runs":
            continue
        answer = call(
            *command.format(table=where).split(), *(() if "--db" in command else ("--db", path.name))
        )
        said = answer.err + answer.out
        assert answer.code == 1, command
        assert "damaged" in said and ("`pfa db check`" in said or "`pfa db salvage" in said), command
    saved = call("db", "salvage", "saved.db", "--db", path.name)
    assert saved.code == 0 and check("saved.db").ok
    with open_store("saved.db", write=False) as store:
        assert all(run.state in ("done", "interrupted") for run in runs(store))


def test_a_state_or_an_algorithm_of_a_later_pfa_ends_no_command(path: Path, call: Call) -> None:
    change(
        path,
        "UPDATE runs SET state = 'paused', algorithm = 'later' WHERE id = 1; UPDATE epochs SET checksum = NULL",
    )
    for command in ("status", "status --json", "export --table runs --out x.csv"):
        assert call(*command.split(), "--db", path.name).code == 0, command
    assert call("merge", path.name, "--db", "other.db").code == 0
    with open_store(str(path), write=True) as store:
        assert claim(store, 1, claimed(store, algorithm="bp").owner, is_alive=lambda row: False) is None


# A unique index is what keeps a cell from being trained, and counted, twice.


def damage_index(path: Path) -> None:
    """One bit of a configuration's hash in the unique index of ``runs``: quick_check finds nothing."""
    with sqlite3.connect(path) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name LIKE 'sqlite_autoindex_runs%'"
        ).fetchone()
        (name,) = connection.execute("SELECT config_hash FROM runs WHERE id = 1").fetchone()
    connection.close()
    content = bytearray(path.read_bytes())
    content[content.index(name.encode(), 4096 * (page - 1))] ^= 1
    path.write_bytes(content)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
    connection.close()


def test_a_database_with_a_damaged_index_is_neither_read_nor_written(path: Path) -> None:
    damage_index(path)
    before = path.read_bytes()
    for write in (True, False):
        with pytest.raises(DamagedDatabase, match="index"):
            open_store(str(path), write=write)
    assert path.read_bytes() == before and beside(path) == ["pfa.db"]
    assert "index" in str(check(str(path)))


def test_merging_a_damaged_database_is_one_sentence(path: Path, call: Call) -> None:
    damage_index(path)
    answer = call("merge", path.name, "--db", "other.db")
    assert answer.code == 1 and "`pfa db check`" in answer.err
    new_database(Path("ours.db"))
    change(Path("ours.db"), "UPDATE epochs SET attempt_id = 77")
    answer = call("merge", "ours.db", "--db", "other.db")
    assert answer.code == 1 and "`pfa db check`" in answer.err
    answer = call("merge", "ours.db", "--db", "ours.db")
    assert answer.code == 2 and "is the database to merge into" in answer.err


# Files that are no databases.


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "/dev/zero", "/dev/full"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, call: Call, kind: str) -> None:
    name = kind if kind.startswith("/dev") else "it"
    if kind == "folder":
        Path("it").mkdir()
    elif kind == "pipe":
        os.mkfifo("it")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("it")
    new_database(Path("pfa.db"))
    for command in (
        f"status --db {name}",
        f"db check --db {name}",
        f"db upgrade --db {name}",
        f"db salvage saved.db --db {name}",
        f"merge {name} --db pfa.db",
        f"merge pfa.db --db {name}",
        f"run mnist --db {name} --dry-run",
    ):
        answer = call(*command.split())
        assert answer.code == 1, command
        assert ("is a folder" if kind == "folder" else "not a regular file") in answer.err, command
    Path("x.csv").symlink_to("/dev/full")
    if kind == "pipe":
        Path("it").rename("x.parquet")
        for out in ("x.csv", "x.parquet"):
            answer = call("export", "--out", out, "--db", "pfa.db")
            assert answer.code == 1 and "not a regular file" in answer.err
    assert not Path("saved.db").exists()


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
def test_a_pipe_beside_the_database_is_refused(path: Path, end: str) -> None:
    os.mkfifo(f"{path}{end}")
    for write in (True, False):
        with pytest.raises(StoreError, match="named pipe"):
            open_store(str(path), write=write)


# A database that is moved away from its log.


def test_a_moved_database_is_not_begun_anew_and_its_log_brings_all_back(tmp_path: Path) -> None:
    old, new = tmp_path / "a.db", tmp_path / "b.db"
    with open_store(str(old), write=True) as store:
        run_to_end(store)
        old.rename(new)
        with pytest.raises(StoreError, match=r"deleted or replaced .*a\.db-wal: keep it"):
            ensure_run(store, configuration("bp"), 0)
    before = beside(old)
    for write in (True, False):
        with pytest.raises(
            StoreError, match=r"a\.db is missing, but its log .*a\.db-wal .*holds its newest results"
        ):
            open_store(str(old), write=write)
    assert beside(old) == before
    (tmp_path / "a.db-wal").rename(tmp_path / "b.db-wal")  # as the message says
    with open_store(str(new), write=True) as store:
        assert len(epochs_frame(store)) == 4


def test_a_folder_that_was_moved_is_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "results" / "pfa.db"
    with open_store(str(path), write=True) as store:
        mine = claimed(store)
        path.parent.rename(tmp_path / "archive")
        with pytest.raises(StoreError, match="deleted or replaced"):
            start_attempt(store, mine, {})
    assert not path.parent.exists()


# Passwords in arguments.


def test_passwords_of_database_urls_are_neither_stored_nor_shown(tmp_path: Path) -> None:
    path = tmp_path / "pfa.db"
    url = "postgresql://pfa:s3cret@ß/@host:5432/results?sslpassword=s3cret&x=1"
    with open_store(str(path), write=True) as store:
        start_attempt(store, claimed(store), {"argv": ["pfa", "run", "mnist", f"--db={url}", "--db", url]})
    assert b"s3cret" not in path.read_bytes()
    change(
        path, f"""UPDATE attempts SET argv = '["pfa", "--db", "{url}"]' WHERE id = 1"""
    )  # stored by an older pfa
    with open_store(str(path), write=False) as store:
        shown = [
            attempts_frame(store)["argv"].tolist(),
            stored(store, "attempts"),
        ]
        masked = "postgresql://pfa:***@host:5432/results?sslpassword=***&x=1"
        assert attempts_frame(store)["argv"][0] == ["pfa", "--db", masked]
    assert "s3cret" not in repr(shown)
    from pfa_cli.store.merge import merge

    merge(str(tmp_path / "merged.db"), str(path))
    assert b"s3cret" not in (tmp_path / "merged.db").read_bytes()
