"""Every database that a released pfa wrote opens, keeps all it holds, and goes on."""

import math
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text
from store_cells import OWNER, beside, change, configuration, new_database, record, stored

from pfa_cli.store import engine, migrations, schema
from pfa_cli.store.check import check
from pfa_cli.store.engine import open_store
from pfa_cli.store.errors import DamagedDatabase, NoResults, StoreError
from pfa_cli.store.queries import (
    attempts_frame,
    epochs_frame,
    layers_frame,
    runs,
    simulations_frame,
)
from pfa_cli.store.writer import claim, ensure_run, finish, record_epoch, start_attempt

KEPT = sorted(Path(__file__).with_name("kept").glob("schema_*.db"))


def tables_of(source: Engine) -> dict[str, list[str]]:
    """The definitions of tables and indexes, in parts: a metric's column stands elsewhere if it was added later."""
    query = text(
        "SELECT name, sql FROM sqlite_master "
        "WHERE type != 'view' AND sql IS NOT NULL AND name != 'alembic_version'"
    )
    with source.connect() as connection:
        return {name: sorted(re.sub(r"\s+", " ", sql).split(", ")) for name, sql in connection.execute(query)}


def test_the_migrations_make_the_schema_that_the_code_knows(tmp_path: Path) -> None:
    fresh = create_engine("sqlite://")
    schema.metadata.create_all(fresh)
    with open_store(str(tmp_path / "pfa.db"), write=True) as store:
        assert tables_of(store.engine) == tables_of(fresh)
    fresh.dispose()


def test_the_revisions_are_numbered_and_the_code_knows_the_newest() -> None:
    found = [script.revision for script in migrations.scripts().walk_revisions()]
    assert found == [f"{number:04d}" for number in range(len(found), 0, -1)]
    assert found[0] == schema.SCHEMA_REVISION


def test_a_database_of_every_revision_is_kept() -> None:
    expected = [f"schema_{script.revision}.db" for script in migrations.scripts().walk_revisions()]
    assert [path.name for path in KEPT] == sorted(expected)


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.stem)
def test_a_kept_database_opens_and_goes_on(kept: Path, tmp_path: Path) -> None:
    path = tmp_path / "pfa.db"
    shutil.copyfile(kept, path)
    with open_store(str(path), write=True) as store:
        rows = {row.algorithm: row for row in runs(store)}
        assert {name: row.state for name, row in rows.items()} == {
            "bp": "interrupted",
            "fa": "queued",
            "pal": "done",
            "pfa": "done",
        }
        assert rows["pal"].diverged_epoch == 2
        assert rows["bp"].checkpoint == "epoch-1-step-100"
        epochs = epochs_frame(store)
        assert epochs.groupby("algorithm")["epoch"].apply(list).to_dict() == {
            "bp": [0, 1],
            "pal": [0, 1, 2, 3],
            "pfa": [0, 1, 2, 3],
        }
        assert epochs[epochs["algorithm"] == "pal"]["train_loss"].tolist() == [0.5, 0.5, math.inf, math.inf]
        assert layers_frame(store)["layer"].value_counts().to_dict() == {f"layer{i}": 10 for i in (1, 2, 3)}
        assert attempts_frame(store)["outcome"].tolist() == ["done", "done", "interrupted", "interrupted"]
        assert simulations_frame(store, "path")["value"].isna().tolist() == [False, True]
        assert [row.value for row in stored(store, "benchmarks")] == [2.5]

        mine = claim(store, rows["bp"].id, OWNER, is_alive=lambda row: False)
        assert mine is not None
        start_attempt(store, mine, {"device": "cpu"})
        for epoch in (2, 3):
            record_epoch(store, mine, record(epoch), f"epoch-{epoch}")
        finish(store, mine, "done")
        assert epochs_frame(store).query("algorithm == 'bp'")["epoch"].tolist() == [0, 1, 2, 3]
        assert ensure_run(store, configuration("sf"), 0) not in [row.id for row in rows.values()]


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.stem)
def test_a_kept_database_is_whole(kept: Path, tmp_path: Path) -> None:
    path = tmp_path / "pfa.db"
    shutil.copyfile(kept, path)
    open_store(str(path), write=True).close()
    assert check(str(path)).ok


NEXT_REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"


def upgrade():
    with op.batch_alter_table("runs", recreate="always") as table:  # as SQLite needs it for most changes
        table.add_column(sa.Column("colour", sa.String, server_default="blue"))
    {then}
"""


@pytest.fixture
def next_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes pfa one revision newer; ``then`` is a line to end its migration with."""

    def make(then: str = "") -> None:
        revision = f"{int(schema.SCHEMA_REVISION) + 1:04d}"
        versions = tmp_path / "versions"
        shutil.copytree(Path(migrations.__file__).with_name("versions"), versions, dirs_exist_ok=True)
        code = NEXT_REVISION.format(revision=revision, before=schema.SCHEMA_REVISION, then=then)
        (versions / f"{revision}_colour.py").write_text(code)
        scripts = ScriptDirectory(str(tmp_path), version_locations=[str(versions)])
        monkeypatch.setattr(migrations, "scripts", lambda: scripts)
        monkeypatch.setattr(engine, "SCHEMA_REVISION", revision)

    return make


def test_an_older_database_is_brought_up_to_date_and_loses_nothing(
    tmp_path: Path, next_revision: Callable[..., None]
) -> None:
    path = new_database(tmp_path / "data" / "pfa.db", seeds=2)
    next_revision()
    before = path.read_bytes()
    with open_store(str(path), write=False) as viewer:  # sees today's schema in a copy in memory
        assert (
            viewer.read(lambda c: c.execute(text("SELECT colour FROM runs")).scalars().all()) == ["blue"] * 2
        )
        assert len(layers_frame(viewer)) == 16
    assert path.read_bytes() == before
    assert beside(path) == ["pfa.db"]
    with open_store(str(path), write=True) as store:
        assert (
            store.read(lambda c: c.execute(text("SELECT colour FROM runs")).scalars().all()) == ["blue"] * 2
        )
        assert len(epochs_frame(store)) == 8  # rebuilding the table of runs did not take their epochs along
        assert len(layers_frame(store)) == 16
        assert store.read(lambda c: c.execute(text("PRAGMA foreign_keys")).scalar()) == 1
    assert beside(path) == ["pfa.db"]
    with open_store(str(path), write=False) as store:
        assert len(runs(store)) == 2


def test_older_databases_are_read_without_alembic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pfa_cli.store.migrations", None)  # to import it is an error
    for kept in KEPT:
        before = kept.read_bytes()
        with open_store(str(kept), write=False) as store:
            assert len(runs(store)) == 4 and len(layers_frame(store)) == 30
        assert kept.read_bytes() == before


def test_columns_that_may_be_empty_are_added_where_they_are_lacking(tmp_path: Path) -> None:
    path = shutil.copyfile(KEPT[-1], tmp_path / "pfa.db")
    change(
        path,
        "DROP VIEW run_results; ALTER TABLE runs DROP COLUMN tags; ALTER TABLE simulations DROP COLUMN checksum",
    )
    with open_store(str(path), write=False) as viewer:
        assert [row.tags for row in runs(viewer)] == [None] * 4
    open_store(str(path), write=True).close()
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT tags FROM run_results").fetchall()
    connection.close()
    assert len(found) == 4
    assert check(str(path)).ok


@pytest.mark.parametrize("write", [True, False], ids=["writer", "viewer"])
@pytest.mark.parametrize(
    ("statement", "lacks"),
    [
        ("DROP TABLE layers", "it lacks the table layers"),
        ("ALTER TABLE attempts DROP COLUMN started_at", "its table attempts lacks the column started_at"),
    ],
)
def test_an_older_database_that_lacks_what_must_be_there_is_damaged_and_not_touched(
    tmp_path: Path, statement: str, lacks: str, write: bool
) -> None:
    path = Path(shutil.copyfile(KEPT[0], tmp_path / "pfa.db"))
    change(path, statement)
    with sqlite3.connect(path) as connection:
        before = [*connection.iterdump()]
    with pytest.raises(DamagedDatabase, match=lacks):
        open_store(str(path), write=write)
    assert [*connection.iterdump()] == before
    connection.close()


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_where_there_is_no_database_none_is_made_to_be_upgraded(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "data" / "typo.db"
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    with pytest.raises(NoResults):
        open_store(str(path), write=True, create=False)
    assert path.parent.exists() == path.exists() == (content is not None)
    assert content is None or path.read_bytes() == content


def test_a_database_that_is_there_is_opened_where_none_may_be_made(
    tmp_path: Path, next_revision: Callable[..., None]
) -> None:
    path = new_database(tmp_path / "data" / "pfa.db")
    next_revision()
    with open_store(str(path), write=True, create=False) as store:
        assert len(runs(store)) == 1


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        ("raise ZeroDivisionError", ZeroDivisionError),
        ('op.execute("DELETE FROM runs")', StoreError),  # leaves epochs without their run
    ],
)
def test_an_upgrade_that_fails_changes_nothing(
    tmp_path: Path,
    next_revision: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    failure: str,
    error: type[Exception],
) -> None:
    path = new_database(tmp_path / "data" / "pfa.db")
    next_revision(failure)
    with pytest.raises(error):
        open_store(str(path), write=True)
    monkeypatch.undo()
    with open_store(str(path), write=True) as store:
        assert len(epochs_frame(store)) == 4
    assert check(str(path)).ok
