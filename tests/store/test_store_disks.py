"""Full and read-only disks: real ones, mounted for the test where that is allowed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_cells import PROCESSES, beside, claimed, new_database, record, run_to_end

from pfa_cli.records import EpochRecord, LayerRecord
from pfa_cli.store.check import check
from pfa_cli.store.engine import open_store
from pfa_cli.store.errors import StoreError
from pfa_cli.store.queries import epochs_frame, runs
from pfa_cli.store.salvage import salvage
from pfa_cli.store.sqlite import file_system, network_warning
from pfa_cli.store.writer import finish, record_epoch


def mount(*arguments: str) -> None:
    """Skips the test where mounting is not allowed."""
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def read_only_folder(tmp_path: Path) -> Iterator[Path]:
    """Gives a folder to fill; ``remount(folder)`` makes it read-only."""
    folder = tmp_path / "fixed"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def make_read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def test_a_full_disk_takes_back_the_last_write_and_nothing_else(small_disk: Path) -> None:
    path = small_disk / "pfa.db"
    layers = tuple(LayerRecord(i, f"layer{i + 1}", 1.5) for i in range(50))
    with open_store(str(path), write=True) as store:
        mine = claimed(store, epochs=10_000)
        record_epoch(store, mine, EpochRecord(0, layers=layers))
        filler = small_disk / "filler"
        filler.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 100_000))
        last = 0
        with pytest.raises(StoreError, match=r"no space left on the disk of .*Free some space"):
            for epoch in range(1, 10_000):
                record_epoch(store, mine, EpochRecord(epoch, layers=layers))
                last = epoch
        assert last > 0
        with open_store(str(path), write=False) as viewer:
            assert epochs_frame(viewer)["epoch"].tolist() == list(range(last + 1))
        filler.unlink()
        record_epoch(store, mine, EpochRecord(last + 1, layers=layers))
        finish(store, mine, "interrupted")
    assert check(str(path)).ok
    with open_store(str(path), write=False) as viewer:
        assert runs(viewer)[0].epochs_done == last + 1


def test_a_disk_too_full_for_a_new_database_is_named(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * shutil.disk_usage(small_disk).free)
    with pytest.raises(StoreError, match="no space left"):
        open_store(str(small_disk / "pfa.db"), write=True)


def test_salvage_that_filled_the_disk_leaves_no_half_of_a_database(tmp_path: Path, small_disk: Path) -> None:
    path, saved = new_database(tmp_path / "pfa.db"), small_disk / "saved.db"
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - path.stat().st_size - 50_000))
    with pytest.raises(StoreError, match=r"no space left on the disk of .*saved\.db"):
        salvage(str(path), saved)
    assert beside(saved) == ["filler"]
    filler.unlink()
    assert salvage(str(path), saved).whole == 1  # as the message says
    assert check(str(saved)).ok


def test_a_read_only_disk_can_be_read(read_only_folder: Path) -> None:
    path = new_database(read_only_folder / "pfa.db")
    make_read_only(read_only_folder)
    with open_store(str(path), write=False) as viewer:
        assert len(epochs_frame(viewer)) == 4
    for name in ("pfa.db", "new.db", "new/pfa.db"):
        with pytest.raises(StoreError, match=r"cannot write the database .*writable, or name another"):
            open_store(str(read_only_folder / name), write=True)
    assert beside(path) == ["pfa.db"]


def test_a_read_only_disk_with_the_log_of_a_killed_writer_can_be_read(read_only_folder: Path) -> None:
    path = read_only_folder / "pfa.db"
    process = PROCESSES.Process(target=_write_and_die, args=(str(path),))
    process.start()
    process.join(30)
    make_read_only(read_only_folder)
    with open_store(str(path), write=False) as viewer:
        assert len(epochs_frame(viewer)) == 5


def test_a_read_only_disk_with_half_a_log_says_what_to_do(read_only_folder: Path) -> None:
    path = read_only_folder / "pfa.db"
    process = PROCESSES.Process(target=_write_and_die, args=(str(path),))
    process.start()
    process.join(30)
    (read_only_folder / "pfa.db-shm").unlink()
    make_read_only(read_only_folder)
    with pytest.raises(StoreError, match=r"read-only.* -wal neighbour to a folder of your own"):
        open_store(str(path), write=False)


def _write_and_die(db: str) -> None:
    store = open_store(db, write=True)
    run_to_end(store)
    record_epoch(store, claimed(store, seed=1), record(0))
    os._exit(0)  # as after kill -9, nothing is closed


def test_the_file_system_is_that_of_the_innermost_mount(small_disk: Path) -> None:
    assert file_system(small_disk / "not yet" / "pfa.db") == "tmpfs"
    assert file_system(small_disk.parent / "pfa.db") != "tmpfs"
    assert network_warning(small_disk / "pfa.db") is None


def test_a_network_file_system_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    import psutil

    mounts = [
        SimpleNamespace(mountpoint="/", fstype="ext4"),
        SimpleNamespace(mountpoint="/home", fstype="nfs4"),
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    assert network_warning(Path("/var/pfa.db")) is None
    warning = network_warning(Path("/home/someone/pfa.db"))
    assert warning is not None
    assert "(nfs4)" in warning
    assert "`pfa merge`" in warning
