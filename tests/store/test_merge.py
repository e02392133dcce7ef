"""Results of two machines in one database: nothing lost, nothing twice, contradictions named."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Call
from sqlalchemy import text
from store_cells import (
    OWNER,
    beside,
    change,
    claimed,
    configuration,
    new_database,
    record,
    run_to_end,
    stored,
)

from pfa_cli.errors import UsageError
from pfa_cli.store import checksums, merge_run
from pfa_cli.store.check import check
from pfa_cli.store.engine import Store, open_store
from pfa_cli.store.errors import NoResults, StoreError
from pfa_cli.store.merge import MergeReport, merge, open_to_look
from pfa_cli.store.owner import Job, Owner
from pfa_cli.store.queries import runs
from pfa_cli.store.schema import metadata
from pfa_cli.store.tables import TABLES
from pfa_cli.store.writer import (
    Measurement,
    ensure_run,
    finish,
    record_benchmark,
    record_epoch,
    record_simulation,
)


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "ours" / "pfa.db"), write=True) as opened:
        yield opened


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "theirs" / "pfa.db"), write=True) as opened:
        yield opened


def store_checksums(store: Store) -> None:
    """Those of the epochs of run 1 as they are stored now."""
    with store.write() as connection:
        tables = [checksums.rows(connection, metadata.tables[name]) for name in ("runs", "epochs", "layers")]
        (run,), of_epochs, of_layers = tables
        for row in of_epochs:
            parts = [layer for layer in of_layers if layer["epoch"] == row["epoch"]]
            value = checksums.of_epoch(checksums.of_cell(run), row, parts)
            connection.execute(text(f"UPDATE epochs SET checksum = '{value}' WHERE epoch = {row['epoch']}"))


def content(store: Store) -> str:
    """All of the database, NaN and all."""
    return repr([stored(store, name) for name in TABLES])


def test_new_runs_come_with_all_that_belongs_to_them(ours: Store, theirs: Store) -> None:
    run_to_end(ours, seed=0)
    run_to_end(ours, seed=9)  # so that the numbers of runs and attempts differ
    for seed in (1, 2):
        run_to_end(theirs, seed=seed)
    mine = claimed(theirs, algorithm="pal")
    record_epoch(theirs, mine, replace(record(0, diverged=True), test_loss=math.inf))
    record_simulation(theirs, "path", {"expansion": 10}, {"path_angle_degrees": [17.5, math.nan]})
    record_benchmark(theirs, {"cpu": "x86"}, "mnist", [Measurement("epoch", 1.5, "seconds")])
    report = merge(str(ours.path), str(theirs.path))
    assert report == MergeReport(added=3, simulations=1, benchmarks=1)
    rows = {(row.algorithm, row.seed): row for row in runs(ours)}
    assert set(rows) == {("pfa", 0), ("pfa", 1), ("pfa", 2), ("pfa", 9), ("pal", 0)}
    diverged = rows["pal", 0]
    assert (diverged.state, diverged.diverged_epoch, diverged.checkpoint) == ("interrupted", 0, None)
    assert check(str(ours.path)).ok
    for name in ("epochs", "layers"):
        here, there = (
            [
                {
                    key: repr(value)
                    for key, value in row._asdict().items()
                    if key not in ("run_id", "attempt_id")
                }
                for row in stored(store, name)
            ]
            for store in (ours, theirs)
        )
        assert all(row in here for row in there)
        assert {"recipe", "algorithm", "seed", "config_hash"} < there[0].keys()
    attempts = stored(ours, "attempts")
    epochs = stored(ours, "epochs")
    owner = {attempt.attempt_id: attempt.run_id for attempt in attempts}
    assert all(owner[epoch.attempt_id] == epoch.run_id for epoch in epochs)


def test_merging_again_changes_nothing(ours: Store, theirs: Store) -> None:
    run_to_end(theirs, seed=1)
    run_to_end(theirs, seed=2, epochs=2)
    mine = claimed(theirs, algorithm="pal")
    record_epoch(theirs, mine, record(0, diverged=True))
    record_simulation(theirs, "path", {"expansion": 10}, {"path_angle_degrees": [math.nan]})
    record_benchmark(theirs, {"cpu": "x86"}, "mnist", [Measurement("epoch", math.nan, "seconds")] * 2)
    merge(str(ours.path), str(theirs.path))
    before = content(ours)
    assert merge(str(ours.path), str(theirs.path)) == MergeReport(unchanged=3)
    assert content(ours) == before
    assert merge(str(theirs.path), str(ours.path)) == MergeReport(unchanged=3)


def test_the_other_database_is_not_touched(ours: Store, tmp_path: Path) -> None:
    path = tmp_path / "theirs" / "pfa.db"
    with open_store(str(path), write=True) as store:
        run_to_end(store)
    before = path.read_bytes(), path.stat().st_mtime_ns
    merge(str(ours.path), str(path))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert beside(path) == ["pfa.db"]


def test_a_run_that_went_further_there_is_extended(ours: Store, theirs: Store) -> None:
    run_to_end(ours, epochs=2)
    run_to_end(theirs, epochs=4)
    assert merge(str(ours.path), str(theirs.path)) == MergeReport(extended=1)
    (row,) = runs(ours)
    assert (row.state, row.epochs_done, row.test_accuracy_percent) == ("done", 3, 93.0)
    assert row.checkpoint == "checkpoint-1"  # ours; theirs stayed there
    attempts = stored(ours, "attempts")
    assert [attempt.outcome for attempt in attempts] == ["interrupted", "done"]
    epochs = stored(ours, "epochs")
    first, second = (attempt.attempt_id for attempt in attempts)
    assert [epoch.attempt_id for epoch in epochs] == [first, first, second, second]
    assert check(str(ours.path)).ok


def test_a_run_that_went_further_here_is_left_alone(ours: Store, theirs: Store) -> None:
    run_to_end(ours, epochs=4)
    run_to_end(theirs, epochs=2)
    before = content(ours)
    assert merge(str(ours.path), str(theirs.path)) == MergeReport(unchanged=1)
    assert content(ours) == before


def test_only_timings_may_differ(ours: Store, theirs: Store) -> None:
    run_to_end(ours, epochs=2)
    mine = claimed(theirs)
    for epoch in range(3):
        record_epoch(theirs, mine, replace(record(epoch), seconds=99.0, images_per_second=1.0))
    assert merge(str(ours.path), str(theirs.path)).extended == 1


def test_a_run_of_other_numbers_is_a_conflict_and_ours_is_kept(ours: Store, theirs: Store) -> None:
    run_to_end(ours, accuracy=90.0, epochs=2)
    run_to_end(theirs, accuracy=80.0)
    run_to_end(theirs, seed=1)
    before = runs(ours)[0]
    report = merge(str(ours.path), str(theirs.path))
    assert report.added == 1  # a conflict stops nothing else
    (line,) = report.conflicts
    assert line == (
        f"mnist pfa seed 0 (configuration {configuration().hash}): epoch 0: "
        "test_accuracy_percent is 90.0 here and 80.0 there; kept ours"
    )
    assert runs(ours)[0] == before
    assert "conflict: mnist pfa seed 0" in str(report)
    assert merge(str(ours.path), str(theirs.path)).conflicts == (line,)


def test_runs_of_other_numbers_of_processes_differ_by_rounding_which_is_no_conflict(
    ours: Store, theirs: Store
) -> None:
    run_to_end(ours, accuracy=90.0)
    run_to_end(theirs, accuracy=90.01)
    with theirs.write() as connection:
        connection.execute(text("UPDATE attempts SET ranks = 2"))
    report = merge(str(ours.path), str(theirs.path))
    assert (report.conflicts, report.unchanged) == ((), 1)
    assert "1 process trained it here and 2 processes there, which differ by rounding; kept ours" in str(
        report
    )


def test_a_difference_in_a_layer_is_a_conflict_too(ours: Store, theirs: Store) -> None:
    run_to_end(ours)
    run_to_end(theirs)
    with theirs.write() as connection:
        connection.execute(
            text("UPDATE layers SET path_angle_degrees = 1 WHERE epoch = 2 AND layer_index = 1")
        )
        connection.execute(text("UPDATE epochs SET checksum = NULL"))  # as before there were checksums
    (line,) = merge(str(ours.path), str(theirs.path)).conflicts
    assert "epoch 2, layer layer2: path_angle_degrees is 21.0 here and 1.0 there" in line


@pytest.mark.parametrize("checked", [True, False], ids=["checksums", "before there were checksums"])
@pytest.mark.parametrize("epochs", [4, 2], ids=["as long", "shorter here"])
def test_a_value_that_one_database_lacks_is_no_conflict(
    ours: Store, theirs: Store, epochs: int, checked: bool
) -> None:
    """As a pfa without the metric stored it: ours gets it, and theirs without it takes nothing from ours."""
    run_to_end(ours, epochs=epochs)
    run_to_end(theirs)
    with ours.write() as connection:
        connection.execute(text("UPDATE layers SET path_angle_degrees = NULL WHERE epoch < 2"))
        connection.execute(text("UPDATE epochs SET test_accuracy_percent = NULL WHERE epoch = 1"))
        connection.execute(text("UPDATE epochs SET checksum = NULL"))
    if checked:
        store_checksums(ours)
    before = content(theirs)
    other = merge(str(theirs.path), str(ours.path))
    assert (other.conflicts, other.unchanged, content(theirs)) == ((), 1, before)
    report = merge(str(ours.path), str(theirs.path))
    assert (report.conflicts, report.extended) == ((), 1)
    assert [row.path_angle_degrees for row in stored(ours, "layers")] == [20.0, 21.0] * 4
    assert [row.test_accuracy_percent for row in stored(ours, "epochs")] == [90.0, 91.0, 92.0, 93.0]
    assert check(str(ours.path)).ok
    assert merge(str(ours.path), str(theirs.path)) == MergeReport(unchanged=1)


def test_of_a_run_that_is_running_here_no_value_is_added(ours: Store, theirs: Store) -> None:
    record_epoch(ours, claimed(ours), replace(record(0), test_accuracy_percent=None))
    record_epoch(theirs, claimed(theirs), record(0))
    before = content(ours)
    assert merge(str(ours.path), str(theirs.path)) == MergeReport(unchanged=1)
    assert content(ours) == before


def test_what_is_missing_there_is_a_conflict(ours: Store, theirs: Store) -> None:
    run_to_end(ours)
    run_to_end(theirs)
    with theirs.write() as connection:
        connection.execute(text("DELETE FROM layers WHERE epoch = 3"))
        connection.execute(text("UPDATE epochs SET checksum = NULL"))
    (line,) = merge(str(ours.path), str(theirs.path)).conflicts
    assert "rows up to epoch 3: 8 here and 6 there" in line


def test_a_run_that_is_running_here_is_left_to_its_worker(ours: Store, theirs: Store) -> None:
    mine = claimed(ours)
    record_epoch(ours, mine, record(0))
    run_to_end(theirs)
    (line,) = merge(str(ours.path), str(theirs.path)).conflicts
    assert "is running here" in line
    record_epoch(ours, mine, record(1))  # its worker noticed nothing


def test_a_run_that_is_running_there_is_interrupted_here(ours: Store, theirs: Store) -> None:
    mine = claimed(theirs, owner=OWNER)
    record_epoch(theirs, mine, record(0), "checkpoint-0")
    ensure_run(theirs, configuration("bp"), 0)  # queued: nothing to bring in
    assert merge(str(ours.path), str(theirs.path)) == MergeReport(added=1)
    (row,) = runs(ours)
    assert (row.state, row.checkpoint) == ("interrupted", None)
    record_epoch(theirs, mine, record(1))
    assert merge(str(ours.path), str(theirs.path)) == MergeReport(extended=1)
    assert runs(theirs)[-1].state == "running"


def test_what_is_written_there_during_a_merge_comes_whole_or_not_at_all(
    ours: Store, theirs: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = claimed(theirs)
    record_epoch(theirs, mine, record(0))
    append = merge_run._append

    def append_late(*arguments: Any) -> None:
        record_epoch(theirs, mine, record(len(late) + 1))
        late.append(None)
        append(*arguments)

    late: list[None] = []
    monkeypatch.setattr(merge_run, "_append", append_late)
    for expected in (MergeReport(added=1), MergeReport(extended=1)):
        assert merge(str(ours.path), str(theirs.path)) == expected
        assert check(str(ours.path)).ok
    assert [row.epochs_done for row in runs(ours)] == [1]


def test_an_attempt_that_was_under_way_there_does_not_end_with_the_next_one_here(
    ours: Store, theirs: Store
) -> None:
    record_epoch(theirs, claimed(theirs), record(0))
    merge(str(ours.path), str(theirs.path))
    last_heard = runs(ours)[0].heartbeat_at
    finish(ours, claimed(ours), "failed")
    attempts = stored(ours, "attempts")
    assert [attempt.outcome for attempt in attempts] == ["stale", "failed"]
    assert attempts[0].ended_at == last_heard < attempts[1].ended_at


def test_an_attempt_that_was_under_way_ends_here_as_it_did_there(ours: Store, theirs: Store) -> None:
    mine = claimed(theirs)
    record_epoch(theirs, mine, record(0))
    merge(str(ours.path), str(theirs.path))
    for epoch in (1, 2, 3):
        record_epoch(theirs, mine, record(epoch))
    finish(theirs, mine, "done")
    assert merge(str(ours.path), str(theirs.path)) == MergeReport(extended=1)
    (row,) = runs(ours)
    (attempt,) = stored(ours, "attempts")
    assert (row.state, attempt.outcome) == ("done", "done")
    assert attempt.ended_at is not None


def test_simulations_that_contradict_are_named_and_ours_kept(ours: Store, theirs: Store) -> None:
    for store, value in ((ours, 17.0), (theirs, 18.0)):
        record_simulation(store, "path", {"expansion": 10}, {"path_angle_degrees": [value, 0.0]})
        record_simulation(store, "path", {"expansion": 20}, {"path_angle_degrees": [12.0]})
    before = content(ours)
    (line,) = merge(str(ours.path), str(theirs.path)).conflicts
    assert line == "simulation path of {'expansion': 10}: values differ; kept ours"
    assert content(ours) == before


# The smallest eigenvalue of a square Gram matrix as two kernels of OpenBLAS found it, and an accuracy.
@pytest.mark.parametrize(
    ("here", "there"), [(2.1637353949065392e-07, 2.1637353924504356e-07), (96.79, 96.78999999999999)]
)
def test_what_differs_by_rounding_is_no_conflict(
    ours: Store, theirs: Store, here: float, there: float
) -> None:
    for store, value in ((ours, here), (theirs, there)):
        mine = claimed(store)
        record_epoch(store, mine, replace(record(0), train_loss=value))
        record_simulation(store, "eigenvalues", {"expansion": 1}, {"eigenvalue_min": [value]})
    before = content(ours)
    assert merge(str(ours.path), str(theirs.path)) == MergeReport(unchanged=1)
    assert content(ours) == before


def test_angles_near_zero_are_rounding(ours: Store, theirs: Store) -> None:
    for store, values in ((ours, [0.0, 33.0]), (theirs, [1.5e-6, 33.0000000001])):
        record_simulation(store, "spontaneous", {"steps": 400}, {"path_angle_degrees": values})
    assert merge(str(ours.path), str(theirs.path)) == MergeReport()


@pytest.mark.parametrize("there", [2.17e-07, -2.1637353949065392e-07, math.nan, math.inf])
def test_what_differs_by_more_is_one(ours: Store, theirs: Store, there: float) -> None:
    for store, value in ((ours, 2.1637353949065392e-07), (theirs, there)):
        mine = claimed(store)
        record_epoch(store, mine, replace(record(0), train_loss=value))
        record_simulation(store, "eigenvalues", {"expansion": 1}, {"eigenvalue_min": [value]})
    assert len(merge(str(ours.path), str(theirs.path)).conflicts) == 2


def test_the_other_database_may_be_named_by_a_url(ours: Store, tmp_path: Path) -> None:
    with open_store(str(tmp_path / "theirs.db"), write=True) as store:
        run_to_end(store)
    assert merge(str(ours.path), f"sqlite:///{tmp_path / 'theirs.db'}") == MergeReport(added=1)


def test_without_another_database_ours_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NoResults, match=r"no results at nope\.db to bring in"):
        merge(str(tmp_path / "new" / "ours.db"), "nope.db")
    assert not (tmp_path / "new").exists()


def test_a_merge_with_itself_or_with_nothing_is_refused(ours: Store, tmp_path: Path) -> None:
    run_to_end(ours)
    with pytest.raises(UsageError, match="is the database to merge into"):
        merge(str(ours.path), str(ours.path))
    (tmp_path / "link.db").symlink_to(str(ours.path))
    with pytest.raises(UsageError, match="is the database to merge into"):
        merge(str(ours.path), str(tmp_path / "link.db"))
    with pytest.raises(NoResults):
        merge(str(ours.path), str(tmp_path / "nothing.db"))


def test_of_several_shards_the_damaged_and_the_foreign_are_named_and_left_out(
    ours: Store, tmp_path: Path, call: Call
) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for seed in range(3):
        new_database(shards / f"{seed}.db")
        with open_store(str(shards / f"{seed}.db"), write=True) as store:
            run_to_end(store, algorithm="bp", seed=seed)
    damaged = shards / "2.db"
    damaged.write_bytes(damaged.read_bytes()[:9000])
    change(shards / "foreign.db", "CREATE TABLE cities (name TEXT)")
    (shards / "readme.txt").write_text("not a database")
    (tmp_path / "empty").mkdir()
    others = [str(tmp_path / name) for name in ("empty", "shards", "nowhere.db")]
    answer = call("merge", *others, "--db", str(ours.path))
    assert answer.code == 1
    added, *left_out = answer.out.splitlines()
    assert added.startswith("3 runs added, 0 extended, 1 unchanged")
    assert [line.startswith("left out: ") for line in left_out] == [True] * 4
    named = ("empty", "2.db", "foreign.db", "nowhere.db")
    assert all(name in line for name, line in zip(named, left_out, strict=True))
    assert {(row.algorithm, row.seed) for row in runs(ours)} == {("pfa", 0), ("bp", 0), ("bp", 1)}
    with pytest.raises(NoResults, match="a folder without databases"):
        merge(str(ours.path), str(ours.path.parent.parent / "ours" / ".."))  # a folder of folders


def test_damage_is_the_others_in_whatever_table_it_is(ours: Store, tmp_path: Path, call: Call) -> None:
    others = tmp_path / "others"
    others.mkdir()
    for seed, name in enumerate(("damaged.db", "whole.db")):
        with open_store(str(others / name), write=True) as store:
            run_to_end(store, algorithm="bp", seed=seed)
    change(others / "damaged.db", "UPDATE attempts SET started_at = 'one day'")
    answer = call("merge", str(others), "--db", str(ours.path))
    assert answer.code == 1 and "1 run added" in answer.out
    assert re.search(r"left out: the database \S*damaged\.db is damaged \(attempts\.started_at", answer.out)
    answer = call("status", "--db", str(others))
    assert answer.code == 1 and re.search(r"the database \S*damaged\.db is damaged", answer.err)


def test_a_folder_that_holds_our_database_too_is_merged_again_without_a_word(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "shard.db"), write=True) as store:
        run_to_end(store)
    whole = str(tmp_path / "whole.db")
    assert merge(whole, str(tmp_path)) == MergeReport(added=1)
    assert merge(whole, str(tmp_path)) == MergeReport(unchanged=1)


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_a_run_that_lacks_an_epoch_there_is_not_brought_in(ours: Store, theirs: Store, epoch: int) -> None:
    run_to_end(theirs, algorithm="bp")
    ensure_run(theirs, configuration("fa"), 0)
    with theirs.write() as connection:
        for name in ("layers", "epochs"):
            connection.execute(text(f"DELETE FROM {name} WHERE epoch = {epoch}"))
    with pytest.raises(StoreError, match="run 1 lacks an epoch"):
        merge(str(ours.path), str(theirs.path))
    assert runs(ours) == []


def test_a_database_that_stores_its_texts_in_another_encoding_is_merged_too(tmp_path: Path) -> None:
    other, ours = tmp_path / "other.db", tmp_path / "ours.db"
    change(other, "PRAGMA encoding = 'UTF-16'; CREATE TABLE x (y); DROP TABLE x")
    with open_store(str(other), write=True) as store:
        run_to_end(store)
    assert merge(str(ours), str(other)) == MergeReport(added=1)
    assert check(str(ours)).ok


def test_of_a_run_in_several_databases_the_one_that_a_process_works_on_is_looked_at(
    ours: Store, theirs: Store
) -> None:
    """Also where it was brought in before, by when another process worked on it, and in whatever order."""
    databases = [str(ours.path), str(theirs.path)]
    first = claimed(theirs, owner=Owner("there", 1, 1.0))
    record_epoch(theirs, first, record(0))
    merge(*databases)
    finish(theirs, first, "interrupted")
    second = claimed(theirs, owner=Owner("there", 2, 2.0, job=Job("c", "me", "7", None, 0)))
    for epoch in (1, 2):
        for names in (databases, databases[::-1]):
            with open_to_look(*names) as store:
                (row,) = runs(store)
                assert (row.state, row.pid, row.process_started) == ("running", 2, 2.0)
                assert (row.epochs_done, row.job and row.job["job_id"]) == (epoch - 1, "7")
        record_epoch(theirs, second, record(epoch))
    merge(*databases)
    assert (runs(ours)[0].pid, runs(ours)[0].epochs_done) == (2, 2)
    record_epoch(ours, claimed(ours), record(3))  # both are at work on it, and agree in what they have
    with open_to_look(*databases) as store:
        assert runs(store)[0].epochs_done == 3
    with open_to_look(*databases[::-1]) as store:
        assert runs(store)[0].epochs_done == 3


def test_a_folder_of_shards_is_looked_at_as_one_database(tmp_path: Path, call: Call) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "3.db").touch()  # its run has only begun
    whole = tmp_path / "whole.db"
    for seed in range(2):
        for path in (shards / f"{seed}.db", whole):
            with open_store(str(path), write=True) as store:
                run_to_end(store, seed=seed)
    with open_store(str(shards / "2.db"), write=True) as store:
        record_epoch(store, claimed(store, seed=5), record(0))
    before = {path: path.read_bytes() for path in shards.iterdir()}
    status = json.loads(call("status", "--json", "--db", str(shards)).out)
    assert {row["seed"]: row["state"] for row in status} == {0: "done", 1: "done", 5: "running"}
    merge(str(whole), str(shards / "2.db"))
    tables = []
    for db in (whole, shards):
        assert call("export", "--table", "layers", "--out", "x.csv", "--db", str(db)).code == 0
        tables.append(Path("x.csv").read_text())
    assert tables[0] == tables[1] and len(tables[0].splitlines()) == 1 + 2 * (4 + 4 + 1)
    assert call("figures", "--only", "table1", "--out", "t", "--db", str(shards)).code == 0
    assert {path: path.read_bytes() for path in shards.iterdir()} == before
    several = ["--db", str(shards / "0.db"), "--db", str(shards / "1.db"), "--db", str(shards / "2.db")]
    for command in (["status"], ["runs", "list"]):
        assert json.loads(call(*command, "--json", *several).out) == status
    assert json.loads(call("compare", "--json", *several).out)
    answer = call("status", "--db", str(shards / "4.db"), *several)
    assert answer.code == 1 and "no results yet at" in answer.err and "4.db" in answer.err
    with open_store(str(shards / "1.db"), write=True) as store:
        run_to_end(store, seed=0, accuracy=50.0)
    answer = call("status", "--db", str(shards))
    assert answer.code == 1 and "contradict each other" in answer.err


KILLED = """
import os, sys
from pfa_cli.store import merge_run
from pfa_cli.store.merge import merge

append, begun = merge_run._append, []

def killed_at_the_second_run(*arguments):
    begun.append(arguments)
    if len(begun) == 2:
        os._exit(9)
    append(*arguments)

merge_run._append = killed_at_the_second_run
merge(*sys.argv[1:])
"""


def test_every_run_is_a_transaction_of_its_own_and_a_killed_merge_can_be_repeated(
    db: str, theirs: Store
) -> None:
    """Those who train into the same database wait while one run is brought in, not for the whole merge."""
    for seed in range(3):
        run_to_end(theirs, seed=seed)
    record_simulation(theirs, "path", {"expansion": 10}, {"path_angle_degrees": [21.0]})
    killed = subprocess.run([sys.executable, "-c", KILLED, db, str(theirs.path)], timeout=60)
    assert killed.returncode == 9
    with open_store(db, write=False) as store:
        assert [(row.seed, row.state) for row in runs(store)] == [(0, "done")]
    assert check(db).ok
    assert merge(db, str(theirs.path)) == MergeReport(added=2, unchanged=1, simulations=1)
    with open_store(db, write=False) as store:
        for name in ("epochs", "layers", "simulations"):
            assert len(stored(store, name)) == len(stored(theirs, name))
    assert merge(db, str(theirs.path)) == MergeReport(unchanged=3)
