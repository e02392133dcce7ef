"""Real processes on one database: they start together, write at once, are watched, and are killed."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

from store_cells import PROCESSES, configuration, record, together

from pfa_cli.store.check import check
from pfa_cli.store.engine import open_store
from pfa_cli.store.errors import NoResults
from pfa_cli.store.merge import merge, open_to_look
from pfa_cli.store.owner import Owner, process_started
from pfa_cli.store.queries import RunRow, epochs_frame, layers_frame, runs
from pfa_cli.store.writer import claim, ensure_run, finish, record_epoch, start_attempt

N_WRITERS = 8
N_SEEDS = 12
N_EPOCHS = 3
N_SHARD_EPOCHS = 10


def alive(row: RunRow) -> bool:
    return row.pid is not None and process_started(row.pid) == row.process_started


def train(db: str, barrier: Barrier, done: Path) -> None:
    """What a worker does, without the training: takes cells as long as there are any."""
    barrier.wait(30)
    me = Owner.current()
    with open_store(db, write=True) as store:
        for seed in range(N_SEEDS):
            mine = claim(store, ensure_run(store, configuration("bp"), seed), me, is_alive=alive)
            if mine is not None:
                attempt = start_attempt(store, mine, {"device": "cpu"})
                for epoch in range(N_EPOCHS + 1):
                    record_epoch(store, mine, record(epoch, accuracy=float(attempt)), f"checkpoint-{epoch}")
                finish(store, mine, "done")
    done.touch()


def watch(db: str, barrier: Barrier, done: list[Path]) -> None:
    """What viewers do, again and again until all writers are done; any error ends the process badly."""
    barrier.wait(30)
    looks = 0
    while looks < 4 or not all(path.exists() for path in done):
        try:
            with open_store(db, write=False) as store:
                for run in runs(store):
                    assert run.state in ("queued", "running", "done")
                frame = layers_frame(store)
                assert len(frame) % 2 == 0  # never half an epoch
            looks += 1
        except NoResults:
            pass
        time.sleep(0.02)


def test_eight_workers_start_together_and_are_watched(tmp_path: Path) -> None:
    db = str(tmp_path / "new" / "pfa.db")
    barrier = PROCESSES.Barrier(N_WRITERS + 2)
    done = [tmp_path / f"done{i}" for i in range(N_WRITERS)]
    writers = [(train, (db, barrier, path)) for path in done]
    together(*writers, *[(watch, (db, barrier, done))] * 2)
    with open_store(db, write=False) as store:
        rows = runs(store)
        epochs = epochs_frame(store)
    assert [run.state for run in rows] == ["done"] * N_SEEDS
    assert len(epochs) == N_SEEDS * (N_EPOCHS + 1)
    assert (epochs.groupby("run_id")["attempt_id"].nunique() == 1).all()  # no cell was trained by two workers
    assert (epochs["test_accuracy_percent"] - epochs["epoch"] == epochs["attempt_id"]).all()
    assert check(db).ok


def write_a_shard(shard: Path, barrier: Barrier, done: Path, seed: int) -> None:
    barrier.wait(30)
    with open_store(str(shard), write=True) as store:
        for algorithm in ("bp", "pfa"):
            run_id = ensure_run(store, configuration(algorithm, epochs=N_SHARD_EPOCHS), seed)
            mine = claim(store, run_id, Owner.current(), is_alive=alive)
            assert mine is not None
            start_attempt(store, mine, {"device": "cpu"})
            for epoch in range(N_SHARD_EPOCHS + 1):
                record_epoch(store, mine, record(epoch, accuracy=float(seed)))
            finish(store, mine, "done")
    done.touch()


def look_at_shards(shards: Path, barrier: Barrier, done: list[Path], whole: Path | None) -> None:
    """Looks at the folder as at one database, and brings it into ``whole``, until all is written."""
    barrier.wait(30)
    seen, finished = 0, False
    while not finished:
        finished = all(path.exists() for path in done)  # then one look more
        try:
            with open_to_look(str(shards)) as store:
                rows, layers = runs(store), layers_frame(store)
        except NoResults:
            continue
        assert len(layers) == 2 * sum(0 if row.epochs_done is None else row.epochs_done + 1 for row in rows)
        assert len(layers) >= seen  # nothing that was seen is lost
        seen = len(layers)
        if whole is not None:
            report = merge(str(whole), str(shards), str(shards / "none.db"))
            assert report.conflicts == ()
            assert all(
                "no results" in line for line in report.left_out
            )  # one that has only begun, or none.db
            assert check(str(whole)).ok
    assert seen == N_WRITERS * 2 * (N_SHARD_EPOCHS + 1) * 2


def test_eight_shards_are_written_while_three_look_at_them_and_no_row_is_lost(tmp_path: Path) -> None:
    """Also while two of the three merge them again and again."""
    shards = tmp_path / "shards"
    shards.mkdir()
    barrier = PROCESSES.Barrier(N_WRITERS + 3)
    done = [tmp_path / f"done{i}" for i in range(N_WRITERS)]
    writers = [(write_a_shard, (shards / f"{i}.db", barrier, path, i)) for i, path in enumerate(done)]
    wholes = [None, tmp_path / "whole1.db", tmp_path / "whole2.db"]
    together(*writers, *[(look_at_shards, (shards, barrier, done, whole)) for whole in wholes])
    merge(str(tmp_path / "at_rest.db"), str(shards))
    for db in ("at_rest.db", "whole1.db", "whole2.db"):
        with open_store(str(tmp_path / db), write=False) as store:
            assert [run.state for run in runs(store)] == ["done"] * 2 * N_WRITERS
            epochs = epochs_frame(store)
        assert len(epochs) == N_WRITERS * 2 * (N_SHARD_EPOCHS + 1)
        assert (epochs["test_accuracy_percent"] - epochs["epoch"] == epochs["seed"]).all()


def create(folder: Path, barrier: Barrier) -> None:
    for i in range(5):
        barrier.wait(30)
        open_store(str(folder / f"{i}.db"), write=True).close()


def test_a_new_database_is_created_once(tmp_path: Path) -> None:
    together(*[(create, (tmp_path, PROCESSES.Barrier(N_WRITERS)))] * N_WRITERS)
    for i in range(5):
        with open_store(str(tmp_path / f"{i}.db"), write=False) as store:
            assert runs(store) == []


def write_for_ever(db: str) -> None:
    with open_store(db, write=True) as store:
        mine = claim(
            store,
            ensure_run(store, configuration("bp", epochs=1_000_000), 0),
            Owner.current(),
            is_alive=alive,
        )
        assert mine is not None
        start = 0 if mine.epochs_done is None else mine.epochs_done + 1
        for epoch in range(start, 1_000_000):
            record_epoch(store, mine, record(epoch), f"checkpoint-{epoch}")


def test_kill_9_loses_nothing_that_was_stored(tmp_path: Path) -> None:
    db = str(tmp_path / "pfa.db")
    stored = -1
    for i in range(4):
        process = PROCESSES.Process(target=write_for_ever, args=(db,))
        process.start()
        seen = stored
        deadline = time.monotonic() + 30
        while seen <= stored + 3 and time.monotonic() < deadline:  # let it get somewhere
            time.sleep(0.01 * (i + 1))
            try:
                with open_store(db, write=False) as store:
                    seen = max((run.epochs_done or -1 for run in runs(store)), default=-1)
            except NoResults:
                pass
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with open_store(db, write=False) as store:
            (run,) = runs(store)
            epochs = epochs_frame(store)["epoch"].tolist()
        assert run.state == "running"
        assert not alive(run)
        assert run.epochs_done is not None
        assert run.epochs_done >= seen > stored
        assert epochs == list(range(run.epochs_done + 1))
        assert run.checkpoint == f"checkpoint-{run.epochs_done}"
        assert check(db).ok
        stored = run.epochs_done


def test_opening_a_database_twice_keeps_the_locks_of_the_first_connection(tmp_path: Path) -> None:
    """Without them the other process takes itself for the last one, and removes the log that this one writes."""
    db = tmp_path / "pfa.db"
    with open_store(str(db), write=True):
        open_store(str(db), write=True).close()
        open_store(str(db), write=False).close()
        code = "import sys; from pfa_cli.store.engine import open_store; open_store(sys.argv[1], write=True).close()"
        subprocess.run([sys.executable, "-c", code, str(db)], check=True, timeout=60)
        assert db.with_name("pfa.db-wal").exists()
