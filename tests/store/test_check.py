"""What `pfa db check` finds, and that `pfa db salvage` saves what can be read, with real damage."""

import os
import sqlite3
from pathlib import Path

import pytest
from store_cells import beside, change, claimed, new_database, record, run_to_end

from pfa_cli.errors import UsageError
from pfa_cli.store.check import check
from pfa_cli.store.engine import open_store
from pfa_cli.store.errors import NoResults, StoreError
from pfa_cli.store.queries import attempts_frame, epochs_frame, layers_frame, runs, simulations_frame
from pfa_cli.store.salvage import salvage
from pfa_cli.store.writer import record_epoch, record_simulation

PAGE = 4096


def overwrite(path: Path, start: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(os.urandom(length))


def root_page(path: Path, table: str) -> int:
    with sqlite3.connect(path) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [table]).fetchone()
    connection.close()
    return int(page)


def test_nothing_is_wrong_with_a_good_database(tmp_path: Path) -> None:
    path = new_database(tmp_path / "pfa.db", seeds=2)
    report = check(str(path))
    assert report.ok
    assert str(report) == f"{path}: 2 runs, nothing wrong"
    assert beside(path) == ["pfa.db"]


def test_a_live_run_is_not_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "pfa.db"
    with open_store(str(path), write=True) as store:
        mine = claimed(store)
        assert check(str(path)).ok
        record_epoch(store, mine, record(0))
        assert check(str(path)).ok


def test_without_a_database_there_is_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(NoResults):
        check(str(tmp_path / "pfa.db"))
    with pytest.raises(NoResults):
        salvage(str(tmp_path / "pfa.db"), tmp_path / "saved.db")
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("PRAGMA foreign_keys = ON; DELETE FROM epochs WHERE epoch IN (1, 2)", "lacks epochs 1, 2"),
        ("PRAGMA foreign_keys = ON; DELETE FROM epochs WHERE epoch = 3", "lacks epoch 3"),
        ("DELETE FROM layers WHERE epoch = 2 AND layer_index = 1", "lacks layers in epoch 2"),
        ("DELETE FROM layers WHERE run_id = 1", "lacks layers in epochs 0, 1, 2, 3"),
        ("DROP TABLE simulations", "damaged: it lacks the table simulations"),
        ("DROP TABLE layers; DROP TABLE attempts", "damaged: it lacks the tables attempts, layers"),
        ("UPDATE runs SET epochs_done = 2", "has epochs up to 3, but says 2"),
        ("UPDATE runs SET state = 'dond' WHERE id = 1", "its state is none that this pfa knows"),
        ("UPDATE runs SET epochs_done = 1000000000 WHERE id = 1", "has done 1000000000 epochs of 3"),
        ("UPDATE runs SET epochs_total = 7 WHERE id = 1", "is done, but after 3 of 7 epochs"),
        ("UPDATE runs SET epochs_total = 7, state = 'failed' WHERE id = 1", "its configuration says 3"),
        ("UPDATE runs SET diverged_epoch = 2 WHERE id = 1", "diverged in epoch None, but says 2"),
        (
            "UPDATE epochs SET attempt_id = 77 WHERE epoch = 1",
            "rows of epochs refer to rows that do not exist",
        ),
        ("DELETE FROM runs WHERE id = 1", "rows of attempts refer to rows that do not exist"),
    ],
)
def test_a_run_that_is_half_written_or_makes_no_sense_is_named(
    tmp_path: Path, statement: str, what: str
) -> None:
    path = new_database(tmp_path / "pfa.db", seeds=2)
    change(path, statement)
    report = check(str(path))
    assert not report.ok
    assert what in report.problems[0]
    assert f"`pfa db salvage {path}.saved --db {path}`" in str(report)
    salvage(str(path), tmp_path / "pfa.db.saved")
    assert check(str(tmp_path / "pfa.db.saved")).ok


def test_salvage_cuts_a_half_written_run_where_it_is_whole(tmp_path: Path) -> None:
    path = new_database(tmp_path / "pfa.db", seeds=2)
    change(path, "DELETE FROM layers WHERE run_id = 2 AND epoch = 2 AND layer_index = 1")
    report = salvage(str(path), tmp_path / "saved.db")
    assert str(report).splitlines()[1] == "run 2 (mnist pfa seed 1) lost epochs: 2 of 4 saved"
    assert check(str(tmp_path / "saved.db")).ok
    with open_store(str(tmp_path / "saved.db"), write=False) as store:
        whole, cut = runs(store)
    assert (whole.id, whole.state, whole.epochs_done) == (1, "done", 3)
    assert (cut.id, cut.state, cut.epochs_done, cut.finished_at) == (2, "interrupted", 1, None)


def test_salvage_calls_no_run_whole_whose_layers_cannot_be_read(tmp_path: Path) -> None:
    path = new_database(tmp_path / "pfa.db", seeds=2)
    overwrite(path, (root_page(path, "layers") - 1) * PAGE, PAGE)
    report = salvage(str(path), tmp_path / "saved.db")
    assert report.whole == 0
    assert report.losses == [f"run {i + 1} (mnist pfa seed {i}) lost epochs: 0 of 4 saved" for i in range(2)]
    with open_store(str(tmp_path / "saved.db"), write=False) as store:
        assert [(row.state, row.epochs_done) for row in runs(store)] == [("interrupted", None)] * 2


def test_salvage_says_that_attempts_are_lost(tmp_path: Path) -> None:
    path = new_database(tmp_path / "pfa.db")
    overwrite(path, (root_page(path, "attempts") - 1) * PAGE, PAGE)
    report = salvage(str(path), tmp_path / "saved.db")
    assert report.whole == 0
    assert report.losses == ["run 1 (mnist pfa seed 0) lost attempts: when and on what machine it ran"]
    with open_store(str(tmp_path / "saved.db"), write=False) as store:
        assert len(epochs_frame(store)) == 4


def test_salvage_says_that_runs_are_lost(tmp_path: Path) -> None:
    path = new_database(tmp_path / "pfa.db", seeds=30)
    with sqlite3.connect(path) as connection:
        query = "SELECT pageno FROM dbstat WHERE name = 'runs' AND pagetype = 'leaf' ORDER BY path"
        first = connection.execute(query).fetchone()[0]
    connection.close()
    overwrite(path, (first - 1) * PAGE, PAGE)
    report = salvage(str(path), tmp_path / "saved.db")
    assert 0 < report.whole < 30
    assert report.losses == [f"some runs cannot be read and are lost; {report.whole} runs left"]


def test_salvage_saves_runs_of_any_number(tmp_path: Path) -> None:
    path = new_database(tmp_path / "pfa.db", seeds=2)
    tables = {"runs": "id", "attempts": "run_id", "epochs": "run_id", "layers": "run_id"}
    change(
        path, ";".join(f"UPDATE {name} SET {id} = {id} + 70000 WHERE {id} = 2" for name, id in tables.items())
    )
    report = salvage(str(path), tmp_path / "saved.db")
    assert (report.whole, report.losses) == (2, [])
    with open_store(str(tmp_path / "saved.db"), write=False) as store:
        assert [row.id for row in runs(store)] == [1, 70002]


def test_salvage_of_a_good_database_is_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "pfa.db"
    saved = tmp_path / "saved.db"
    with open_store(str(path), write=True) as store:
        run_to_end(store)
        record_epoch(store, claimed(store, algorithm="bp"), record(0, diverged=True), "checkpoint-0")
        record_simulation(store, "path", {"expansion": 10}, {"path_angle_degrees": [17.5]})
        report = salvage(str(path), saved)  # with a log beside it
        frames = (epochs_frame, layers_frame, attempts_frame, simulations_frame)
        with open_store(str(saved), write=False) as copy:
            for frame in frames:
                assert frame(copy).equals(frame(store))
            done, running = sorted(runs(copy), key=lambda row: row.id)
    assert (report.whole, report.losses) == (2, [])
    assert (done.state, running.state) == ("done", "interrupted")
    assert (running.epochs_done, running.checkpoint, running.diverged_epoch) == (0, "checkpoint-0", 0)


def test_a_truncated_database_is_named_and_mostly_saved(tmp_path: Path) -> None:
    path = new_database(tmp_path / "pfa.db", seeds=30)
    os.truncate(path, path.stat().st_size * 3 // 4)
    before = path.read_bytes()
    report = check(str(path))
    assert report.problems[0].startswith("damaged: ")
    saved = salvage(str(path), tmp_path / "saved.db")
    assert saved.whole + len(saved.losses) > 3
    assert check(str(tmp_path / "saved.db")).ok
    assert path.read_bytes() == before
    assert beside(path) == ["pfa.db", "saved.db"]


def test_a_page_of_random_bytes_is_named_and_the_rest_saved(tmp_path: Path) -> None:
    path = new_database(tmp_path / "pfa.db", seeds=30)
    overwrite(path, (path.stat().st_size // PAGE // 2) * PAGE, PAGE)
    before = path.read_bytes()
    assert check(str(path)).problems[0].startswith("damaged: ")
    saved = salvage(str(path), tmp_path / "saved.db")
    assert saved.whole > 0
    assert check(str(tmp_path / "saved.db")).ok
    assert path.read_bytes() == before


def test_a_table_without_worth_for_others_may_be_lost(tmp_path: Path) -> None:
    path = tmp_path / "pfa.db"
    with open_store(str(path), write=True) as store:
        run_to_end(store)
        record_simulation(store, "path", {"expansion": 10}, {"path_angle_degrees": [17.5]})
    overwrite(path, (root_page(path, "simulations") - 1) * PAGE, PAGE)
    saved = salvage(str(path), tmp_path / "saved.db")
    assert (saved.whole, saved.losses) == (1, ["the simulations could not be saved"])
    assert check(str(tmp_path / "saved.db")).ok


@pytest.mark.parametrize("table", ["sqlite_master", "runs"])
def test_a_database_of_which_nothing_can_be_read_says_so(tmp_path: Path, table: str) -> None:
    path = new_database(tmp_path / "pfa.db")
    overwrite(path, 100 if table == "sqlite_master" else (root_page(path, table) - 1) * PAGE, PAGE - 100)
    with pytest.raises(StoreError, match=r"no run can be read of .*older copy"):
        salvage(str(path), tmp_path / "saved.db")
    assert beside(path) == ["pfa.db"]


def test_salvage_never_writes_over_a_file(tmp_path: Path) -> None:
    path = new_database(tmp_path / "pfa.db")
    with pytest.raises(UsageError, match="exists already"):
        salvage(str(path), path)
    with pytest.raises(UsageError, match="only a database in a file"):
        salvage("postgresql://host/pfa", tmp_path / "saved.db")


@pytest.mark.parametrize("name", ["file/saved.db", "file/new/saved.db", "not writable/saved.db"])
def test_salvage_names_a_place_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    path = new_database(tmp_path / "pfa.db")
    (tmp_path / "file").touch()
    (tmp_path / "not writable").symlink_to("/proc/self")  # where even root may write nothing
    with pytest.raises(StoreError, match=r"cannot save .*pfa\.db in .*saved\.db \(.*where you may write"):
        salvage(str(path), tmp_path / name)


def test_salvage_of_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder"):
        salvage(str(tmp_path), tmp_path / "new" / "saved.db")
    assert not (tmp_path / "new").exists()
