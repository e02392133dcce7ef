"""How many cores there are for us: real control groups where they can be made, and the files of others."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pfa_cli import cores
from pfa_cli.errors import UsageError

V2 = ("0::/pod/container\n", "30 23 0:28 {root} {at} rw - cgroup2 cgroup2 rw\n")
V1 = (
    "5:memory:/elsewhere\n4:cpu,cpuacct:/pod/container\n",
    "30 23 0:28 {root} {at} rw - cgroup cgroup rw,cpu,cpuacct\n",
)


@pytest.fixture(autouse=True)
def ninety_six_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(96)))
    for name in ("SLURM_CPUS_PER_TASK", "PFA_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cores, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(cores, "_sharing", 1)


def machine(folder: Path, files: tuple[str, str], root: str = "/", **limits: str) -> None:
    """A machine with these control groups; ``limits``: by the name of the group, what its file says."""
    at = folder / "cgroup"
    (folder / "proc").mkdir()
    (folder / "proc" / "cgroup").write_text(files[0])
    (folder / "proc" / "mountinfo").write_text(files[1].format(root=root, at=at))
    for name, limit in limits.items():
        group = at / {"top": "", "pod": "pod", "container": "pod/container"}[name]
        group.mkdir(parents=True, exist_ok=True)
        if files is V2:
            (group / "cpu.max").write_text(limit)
        else:
            quota, period = limit.split()
            (group / "cpu.cfs_quota_us").write_text(quota)
            (group / "cpu.cfs_period_us").write_text(period)


def test_without_limits_all_cores_are_usable(tmp_path: Path) -> None:
    assert cores.usable_cores() == 96  # no /proc at all
    machine(tmp_path, V2, container="max 100000\n")
    assert cores.usable_cores() == 96


@pytest.mark.parametrize("files", [V2, V1])
@pytest.mark.parametrize(
    ("limits", "usable"),
    [
        ({"container": "200000 100000\n"}, 2),
        ({"container": "150000 100000\n"}, 2),
        ({"container": "5000 100000\n"}, 1),
        ({"pod": "300000 100000\n", "container": "800000 100000\n"}, 3),
        ({"pod": "800000 100000\n", "container": "-1 100000\n"}, 8),
    ],
)
def test_the_smallest_limit_on_the_way_up_counts(
    tmp_path: Path, files: tuple[str, str], limits: dict[str, str], usable: int
) -> None:
    machine(tmp_path, files, **limits)
    assert cores.usable_cores() == usable


def test_a_container_sees_its_group_as_the_root(tmp_path: Path) -> None:
    machine(tmp_path, V1, root="/pod/container", top="400000 100000\n")
    assert cores.usable_cores() == 4


def test_slurms_allocation_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    assert cores.usable_cores() == 8


def test_processes_that_train_side_by_side_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores.decoding_processes() == 16
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    assert cores.decoding_processes() == 8
    cores.share_cores(2)
    assert cores.decoding_processes() == 4
    cores.share_cores(100)
    assert cores.decoding_processes() == 1
    monkeypatch.setenv("PFA_WORKERS", "48")
    assert cores.decoding_processes() == 48
    monkeypatch.setenv("PFA_WORKERS", "many")
    with pytest.raises(UsageError, match=r"PFA_WORKERS \(=many\) must be a whole number"):
        cores.decoding_processes()


@pytest.fixture
def half_a_core() -> Iterator[Path]:
    """A real control group of one level below another, which allows half a CPU."""
    for base in (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")):
        group = base / f"pfa-test-{os.getpid()}"
        try:
            (group / "inner").mkdir(parents=True)
            if (group / "cpu.cfs_quota_us").exists():
                (group / "cpu.cfs_quota_us").write_text("50000")
            else:
                (group / "cpu.max").write_text("50000 100000")
        except OSError:
            for folder in (group / "inner", group):
                if folder.is_dir():
                    folder.rmdir()
            continue
        yield group / "inner"
        (group / "inner").rmdir()
        group.rmdir()
        return
    pytest.skip("no control group can be made here: it needs root")


def test_a_real_control_group(half_a_core: Path) -> None:
    code = "from pfa_cli.cores import usable_cores; print(usable_cores())"
    command = f"echo $$ > {half_a_core}/cgroup.procs && exec {sys.executable} -c '{code}'"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
