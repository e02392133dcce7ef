"""Opening the database: what is created, what is refused, and that a viewer leaves no trace."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text
from store_cells import PROCESSES, beside, change, claimed, new_database, record, run_to_end

from pfa_cli.errors import UsageError
from pfa_cli.store import engine
from pfa_cli.store.engine import database_file, open_store
from pfa_cli.store.errors import DamagedDatabase, NoResults, StoreError
from pfa_cli.store.queries import epochs_frame, runs
from pfa_cli.store.schema import SCHEMA_REVISION
from pfa_cli.store.writer import record_epoch


def test_the_name_comes_from_the_option_then_the_environment_then_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PFA_DB", raising=False)
    assert database_file() == tmp_path / "results" / "pfa.db"
    monkeypatch.setenv("PFA_DB", "mine.db")
    assert database_file() == tmp_path / "mine.db"
    assert database_file("other.db") == tmp_path / "other.db"
    monkeypatch.setenv("PFA_DB", "~/pfa.db")
    assert database_file() == Path.home() / "pfa.db"
    assert database_file("sqlite:///other.db") == tmp_path / "other.db"
    assert database_file("postgresql://host/pfa") is None


def test_a_database_whose_maker_was_killed_has_no_results_and_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "pfa.db"
    kill = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('PRAGMA cache_size = 1');"
        "c.execute('CREATE TABLE runs (a)'); c.execute('DROP TABLE runs');"
        "c.execute('BEGIN IMMEDIATE'); c.execute('CREATE TABLE runs (a)');"
        "c.executemany('INSERT INTO runs VALUES (?)', [('x' * 500,)] * 1000); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", kill, str(path)])
    before = path.read_bytes()
    with pytest.raises(
        NoResults, match=r"killed in the middle of a change to .* `pfa run` with the same database"
    ):
        open_store(str(path), write=False)
    assert path.read_bytes() == before
    with open_store(str(path), write=True) as store:
        run_to_end(store)
    with open_store(str(path), write=False) as store:
        assert len(runs(store)) == 1


@pytest.mark.parametrize("name", ["pfa.db", "new/deep folder/pfa.db", "50%?mode=#ro.db", "ä ß.db"])
def test_a_path_of_any_characters_is_created_with_its_folder(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with open_store(str(path), write=True) as store:
        run_to_end(store)
    with open_store(str(path), write=False) as store:
        assert len(runs(store)) == 1
    assert beside(path) == [path.name]


def test_a_url_names_the_same_file(tmp_path: Path) -> None:
    path = new_database(tmp_path / "pfa.db")
    with open_store(f"sqlite:///{path}", write=False) as store:
        assert store.path == path


@pytest.mark.parametrize(
    ("db", "message"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///x.db?mode=ro", "options"),
        ("nonsense://x", "nonsense databases are not supported"),
        ("://", "neither a file nor a URL"),
    ],
)
def test_a_name_that_makes_no_sense_is_a_usage_error(db: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_store(db, write=True)


def test_writers_use_a_log_wait_long_enough_and_check_references(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "pfa.db"), write=True) as store:
        for pragma, at_least in (("foreign_keys", 1), ("busy_timeout", 20_000), ("synchronous", 2)):
            value = store.read(lambda c, pragma=pragma: c.execute(text(f"PRAGMA {pragma}")).scalar())
            assert value >= at_least
        assert store.read(lambda c: c.execute(text("PRAGMA journal_mode")).scalar()) == "wal"


def test_a_write_transaction_holds_the_lock_from_its_first_statement(tmp_path: Path) -> None:
    path = new_database(tmp_path / "pfa.db")
    with open_store(str(path), write=True) as store, store.write() as connection:
        connection.execute(text("SELECT 1"))
        other = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()


def test_what_fails_in_a_transaction_is_not_stored(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "pfa.db"), write=True) as store:
        run_to_end(store)
        with pytest.raises(ZeroDivisionError), store.write() as connection:
            connection.execute(text("DELETE FROM layers"))
            raise ZeroDivisionError
        assert store.read(lambda c: c.execute(text("SELECT count(*) FROM layers")).scalar()) == 8


# Viewers.


def test_a_viewer_without_a_database_is_told_what_to_do_and_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(NoResults, match=r"no results yet at .*pfa\.db: run `pfa run mnist`"):
        open_store(str(tmp_path / "pfa.db"), write=False)
    (tmp_path / "empty.db").touch()
    with pytest.raises(NoResults):
        open_store(str(tmp_path / "empty.db"), write=False)
    assert beside(tmp_path / "empty.db") == ["empty.db"]
    (tmp_path / "pfa.db.shards").mkdir()
    with pytest.raises(NoResults, match=r"its shards are shown by `--db .*pfa\.db\.shards`"):
        open_store(str(tmp_path / "pfa.db"), write=False)


def test_a_viewer_changes_and_leaves_nothing(tmp_path: Path) -> None:
    path = new_database(tmp_path / "pfa.db")
    before = path.read_bytes(), path.stat().st_mtime_ns
    with open_store(str(path), write=False) as store:
        assert len(epochs_frame(store)) == 4
        assert beside(path) == ["pfa.db"]
        with pytest.raises(StoreError, match="open for reading only"), store.write():
            pass
        with pytest.raises(StoreError, match="read-only"):
            store.read(lambda c: c.execute(text("DELETE FROM layers")))
    assert beside(path) == ["pfa.db"]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_a_viewer_sees_a_live_run_epoch_by_epoch(tmp_path: Path) -> None:
    path = tmp_path / "pfa.db"
    with open_store(str(path), write=True) as store:
        mine = claimed(store)
        with open_store(str(path), write=False) as viewer:
            for epoch in range(3):
                record_epoch(store, mine, record(epoch))
                assert runs(viewer)[0].epochs_done == epoch
            with (
                store.write() as connection
            ):  # a transaction under way is not seen, and does not stop a viewer
                connection.execute(text("DELETE FROM epochs"))
                assert len(epochs_frame(viewer)) == 3
    assert beside(path) == ["pfa.db"]


def test_a_viewer_that_found_the_database_at_rest_notices_a_writer_that_came(tmp_path: Path) -> None:
    path = new_database(tmp_path / "pfa.db")
    counts = []

    def look(connection: engine.Connection) -> int:
        count = connection.execute(text("SELECT count(*) FROM runs")).scalar_one()
        if not counts:
            with open_store(str(path), write=True) as store:  # comes, writes into the main file, and is gone
                run_to_end(store, seed=1)
        counts.append(count)
        return int(connection.execute(text("SELECT count(*) FROM runs")).scalar_one())

    with open_store(str(path), write=False) as viewer:
        assert viewer.read(look) == 2
    assert counts == [1, 2]


def test_a_viewer_reads_what_a_killed_writer_left_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "pfa.db"
    process = PROCESSES.Process(target=_write_and_die, args=(str(path),))
    process.start()
    process.join(30)
    assert beside(path) == ["pfa.db", "pfa.db-shm", "pfa.db-wal"]
    with open_store(str(path), write=False) as viewer:
        assert len(epochs_frame(viewer)) == 1
    with open_store(str(path), write=True) as store:
        assert len(epochs_frame(store)) == 1


def _write_and_die(db: str) -> None:
    store = open_store(db, write=True)
    record_epoch(store, claimed(store), record(0))
    os._exit(0)  # as after kill -9, nothing is closed


# Files that are not what they should be.


def _random(path: Path) -> None:
    path.write_bytes(os.urandom(20_000))


def _truncated(path: Path) -> None:
    os.truncate(new_database(path, seeds=5), 30_000)


def _only_a_header(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0")


def _text(path: Path) -> None:
    path.write_text("epoch,accuracy\n")


def _random_page(path: Path) -> None:
    new_database(path)
    with sqlite3.connect(path) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'layers'").fetchone()
    connection.close()
    with path.open("r+b") as file:
        file.seek(4096 * (page - 1))
        file.write(b"\xff" * 4096)


@pytest.mark.parametrize("damage", [_random, _truncated, _only_a_header, _text, _random_page])
@pytest.mark.parametrize("write", [True, False], ids=["writer", "viewer"])
def test_a_damaged_file_is_named_and_not_touched(
    tmp_path: Path, damage: engine.Callable[[Path], None], write: bool
) -> None:
    path = tmp_path / "pfa.db"
    damage(path)
    before = path.read_bytes()
    with (
        pytest.raises(DamagedDatabase, match=r"pfa\.db is damaged .*`pfa db check`"),
        open_store(str(path), write=write) as store,
    ):
        store.read(lambda c: c.execute(text("SELECT sum(weight_norm) FROM layers")).all())
    assert path.read_bytes() == before
    assert beside(path) == ["pfa.db"]


@pytest.mark.parametrize("write", [True, False], ids=["writer", "viewer"])
def test_the_database_of_another_program_is_not_touched(tmp_path: Path, write: bool) -> None:
    path = tmp_path / "bookmarks.db"
    change(path, "CREATE TABLE bookmarks (url TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not one of pfa's"):
        open_store(str(path), write=write)
    assert path.read_bytes() == before
    assert beside(path) == ["bookmarks.db"]


@pytest.mark.parametrize("write", [True, False], ids=["writer", "viewer"])
@pytest.mark.parametrize("revision", ["1975ea83b712", "99", "0000", "0001", None])
def test_the_database_of_another_program_with_alembic_is_not_touched(
    tmp_path: Path, revision: str | None, write: bool
) -> None:
    path = tmp_path / "bookmarks.db"
    change(path, "CREATE TABLE bookmarks (url TEXT); CREATE TABLE alembic_version (version_num TEXT)")
    if revision is not None:
        change(path, f"INSERT INTO alembic_version VALUES ('{revision}')")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not one of pfa's"):
        open_store(str(path), write=write)
    assert path.read_bytes() == before


@pytest.mark.parametrize("write", [True, False], ids=["writer", "viewer"])
def test_a_database_that_lacks_a_table_is_damaged(tmp_path: Path, write: bool) -> None:
    path = new_database(tmp_path / "pfa.db")
    change(path, "DROP TABLE layers")
    with pytest.raises(DamagedDatabase, match=r"damaged \(it lacks the table layers\)"):
        open_store(str(path), write=write)


@pytest.mark.parametrize("write", [True, False], ids=["writer", "viewer"])
def test_a_newer_schema_is_named_and_not_touched(tmp_path: Path, write: bool) -> None:
    path = new_database(tmp_path / "pfa.db")
    change(path, "UPDATE alembic_version SET version_num = '9000'")
    before = path.read_bytes()
    with pytest.raises(
        StoreError, match=rf"newer pfa \(schema 9000, this one knows {SCHEMA_REVISION}\).*Update"
    ):
        open_store(str(path), write=write)
    assert path.read_bytes() == before


def test_a_folder_is_not_a_database(tmp_path: Path) -> None:
    for write in (True, False):
        with pytest.raises(StoreError, match="is a folder"):
            open_store(str(tmp_path), write=write)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot write the database .*by `--db`"):
        open_store(str(tmp_path / "file" / "pfa.db"), write=True)


@pytest.mark.parametrize("replace", [True, False])
def test_a_database_deleted_or_replaced_under_way_is_noticed(tmp_path: Path, replace: bool) -> None:
    path = tmp_path / "pfa.db"
    with open_store(str(path), write=True) as store:
        mine = claimed(store)
        record_epoch(store, mine, record(0))
        with open_store(str(path), write=False) as viewer:
            path.rename(tmp_path / "moved.db")
            if replace:
                shutil.copyfile(new_database(tmp_path / "else" / "pfa.db"), path)
            with pytest.raises(StoreError, match="deleted or replaced"):
                record_epoch(store, mine, record(1))
            with pytest.raises(StoreError, match="deleted or replaced"):
                runs(viewer)
    assert path.exists() == replace  # and no new empty database in its place


def test_a_current_database_opens_without_alembic_torch_or_pandas(tmp_path: Path) -> None:
    path = new_database(tmp_path / "pfa.db")
    code = (
        "import sys\n"
        "from pfa_cli.store import engine, queries, writer\n"
        "for write in (False, True):\n"
        f"    with engine.open_store({str(path)!r}, write=write) as store:\n"
        "        assert len(queries.runs(store)) == 1\n"
        "loaded = {'alembic', 'torch', 'pandas', 'numpy'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
