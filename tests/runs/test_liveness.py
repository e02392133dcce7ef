"""Who is alive: real processes, stopped, killed and unreaped."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pfa_cli.errors import UsageError
from pfa_cli.runs import slurm
from pfa_cli.runs.liveness import grace, is_alive, shown_state
from pfa_cli.store.owner import Job, Owner, process_started

LONG_AGO = datetime.now(UTC) - timedelta(days=30)


@dataclass
class Row:
    host: str | None
    pid: int | None
    process_started: float | None
    heartbeat_at: datetime | None = LONG_AGO
    pid_namespace: str | None = Owner.current().pid_namespace
    state: str = "running"
    job: dict[str, Any] | None = None
    error: str | None = None


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def row_of(pid: int) -> Row:
    return Row(Owner.current().host, pid, process_started(pid))


def test_a_process_of_this_host_is_alive_however_old_its_heartbeat(process: subprocess.Popen[bytes]) -> None:
    assert is_alive(row_of(process.pid))


def test_a_stopped_process_is_alive(process: subprocess.Popen[bytes]) -> None:
    row = row_of(process.pid)
    process.send_signal(signal.SIGSTOP)
    assert is_alive(row) and shown_state(row) == "running"


def test_a_killed_process_is_gone_at_once_even_before_its_parent_knows(
    process: subprocess.Popen[bytes],
) -> None:
    row = row_of(process.pid)
    row.heartbeat_at = datetime.now(UTC)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still a zombie
    assert not is_alive(row) and shown_state(row) == "stale"
    process.wait()
    assert not is_alive(row)


def test_another_process_with_the_same_number_is_another(process: subprocess.Popen[bytes]) -> None:
    row = row_of(process.pid)
    assert row.process_started is not None
    row.process_started -= 1000
    assert not is_alive(row)


@pytest.mark.parametrize(
    ("age", "alive"),
    [
        (timedelta(0), True),
        (grace() - timedelta(minutes=1), True),
        (grace() + timedelta(minutes=1), False),
        (-timedelta(days=1), True),  # a clock was set back
    ],
)
def test_another_host_is_known_by_its_heartbeat(age: timedelta, alive: bool) -> None:
    row = Row("another", 1, 1.0, datetime.now(UTC) - age)
    assert is_alive(row) is alive
    assert shown_state(row) == ("running" if alive else "stale")


def test_the_grace_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row("another", 1, 1.0, datetime.now(UTC) - timedelta(minutes=2))
    monkeypatch.setenv("PFA_GRACE", "1.5")
    assert not is_alive(row)
    monkeypatch.setenv("PFA_GRACE", "2.5")
    assert is_alive(row)
    for wrong in ("soon", "0", "-1", "nan", "inf", "1e300"):
        monkeypatch.setenv("PFA_GRACE", wrong)
        with pytest.raises(UsageError, match="PFA_GRACE"):
            is_alive(row)


IN_JOB = {"SLURM_JOB_ID": "8", "SLURM_CLUSTER_NAME": "here", "SLURM_JOB_USER": "ada"}


def job(**changes: str) -> dict[str, Any]:
    """A job of another id than IN_JOB, as a row stores it."""
    found = Job.current({**IN_JOB, "SLURM_JOB_ID": "7", **changes})
    assert found is not None
    return vars(found)


@pytest.fixture
def in_job(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes this process one of Slurm's job 8, where squeue prints what it is given and ends with a code."""

    def begin(folder: Path, said: str = "", code: int = 0, **changes: str) -> None:
        for name, value in {**IN_JOB, **changes}.items():
            monkeypatch.setenv(name, value)
        squeue = folder / "squeue"
        stream = "2" if code else "1"
        squeue.write_text(f"#!/bin/sh\necho '{said}' >&{stream}\nexit {code}\n")
        squeue.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
        monkeypatch.setattr(slurm, "_answers", {})
        monkeypatch.setattr(slurm, "_no_answer_at", -math.inf)
        slurm._cluster.cache_clear()
        monkeypatch.setattr(slurm, "_ANSWER_SECONDS", 0.0)

    return begin


@pytest.mark.parametrize(
    ("owner", "alive"),
    [
        ({"SLURM_JOB_ID": "8", "SLURM_RESTART_COUNT": "1"}, False),  # this job, before it was requeued
        ({"SLURM_JOB_ID": "8", "SLURM_RESTART_COUNT": "3"}, True),  # and we are the old one
        ({"SLURM_JOB_ID": "8", "SLURM_RESTART_COUNT": "2"}, True),  # another step of this job
        ({"SLURM_JOB_ID": "8", "SLURM_CLUSTER_NAME": "there", "SLURM_RESTART_COUNT": "1"}, True),
        ({"SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "1"}, True),  # another element of an array
    ],
)
def test_an_owner_in_this_job_before_its_requeue_is_dead(
    owner: dict[str, str], alive: bool, in_job: Callable[..., None], tmp_path: Path
) -> None:
    in_job(tmp_path, "no controller", 1, SLURM_RESTART_COUNT="2")
    row = Row("another", 1, 1.0, datetime.now(UTC), job=job(**owner))
    assert is_alive(row) is alive


YOUNG, OLD = timedelta(0), timedelta(days=1)


@pytest.mark.parametrize(
    ("said", "code", "age", "alive"),
    [
        ("7 RUNNING 0 None", 0, YOUNG, True),
        ("7 RUNNING 0 None", 0, OLD, False),  # the job goes on without pfa
        ("7 SUSPENDED 0 None", 0, OLD, True),
        ("7 PENDING 1 BeginTime", 0, YOUNG, False),  # requeued
        ("7 COMPLETING 0 None", 0, YOUNG, True),  # it saves
        ("", 0, YOUNG, False),  # over
        ("slurm_load_jobs error: Invalid job id specified", 1, YOUNG, False),  # long over
        ("slurm_load_jobs error: Unable to contact slurm controller", 1, YOUNG, True),
        ("slurm_load_jobs error: Unable to contact slurm controller", 1, OLD, False),
    ],
)
def test_an_owner_in_another_job_is_as_squeue_says(
    said: str, code: int, age: timedelta, alive: bool, in_job: Callable[..., None], tmp_path: Path
) -> None:
    in_job(tmp_path, said, code)
    assert is_alive(Row("another", 1, 1.0, datetime.now(UTC) - age, job=job())) is alive


@pytest.mark.parametrize("other", [{"SLURM_CLUSTER_NAME": "there"}, {"SLURM_JOB_USER": "bob"}])
def test_of_other_clusters_and_users_squeue_may_know_nothing(
    other: dict[str, str], in_job: Callable[..., None], tmp_path: Path
) -> None:
    in_job(tmp_path)
    assert is_alive(Row("another", 1, 1.0, datetime.now(UTC), job=job(**other)))
    assert not is_alive(Row("another", 1, 1.0, LONG_AGO, job=job(**other)))


@pytest.mark.parametrize("answer", [{"7": slurm.Queued("RUNNING", 0, "None")}, None], ids=["late", "never"])
def test_a_squeue_that_takes_long_is_not_waited_for_again_with_each_run(
    answer: dict[str, slurm.Queued] | None,
    in_job: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_job(tmp_path)
    clock, asked = [0.0], []

    def squeue(names: list[str]) -> dict[str, slurm.Queued] | None:
        asked.append(names)
        clock[0] += 20
        return answer

    monkeypatch.setattr(slurm, "_squeue", squeue)
    monkeypatch.setattr(slurm, "_ANSWER_SECONDS", 5.0)
    monkeypatch.setattr(slurm, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    for _ in range(3):
        assert is_alive(Row("another", 1, 1.0, datetime.now(UTC), job=job()))
    assert asked == [["7"]]
    clock[0] += 6
    assert is_alive(Row("another", 1, 1.0, datetime.now(UTC), job=job()))
    assert asked == [["7"]] * 2


def test_a_process_of_this_host_is_seen_whatever_squeue_says(
    process: subprocess.Popen[bytes], in_job: Callable[..., None], tmp_path: Path
) -> None:
    row = row_of(process.pid)
    row.job = job()
    in_job(tmp_path)
    assert is_alive(row)
    process.kill()
    process.wait()
    in_job(tmp_path, "7 RUNNING 0 None")
    assert not is_alive(row)


def test_a_job_that_pfa_has_not_written_is_none(in_job: Callable[..., None], tmp_path: Path) -> None:
    in_job(tmp_path)
    for facts in ({"colour": 1}, job() | {"restart_count": "x"}, {}):
        assert is_alive(Row("another", 1, 1.0, datetime.now(UTC), job=facts))


WAIT = """
import json, time
from dataclasses import asdict
from pfa_cli.store.owner import Owner
print(json.dumps(asdict(Owner.current())), flush=True)
time.sleep(600)
"""
LOOK = """
import json, os, sys
from datetime import datetime
from types import SimpleNamespace
from pfa_cli.runs.liveness import shown_state
if len(sys.argv) > 2:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
row = SimpleNamespace(**json.loads(sys.argv[1]), state="running")
row.heartbeat_at = datetime.fromisoformat(row.heartbeat_at)
print(shown_state(row))
"""


@pytest.fixture
def owned() -> Iterator[Callable[..., Row]]:
    """A row in the hands of a live process, which was started by ``prefix``, with a heartbeat of now."""
    with contextlib.ExitStack() as processes:

        def start(*prefix: str) -> Row:
            command = [*prefix, sys.executable, "-c", WAIT]
            process = processes.enter_context(subprocess.Popen(command, text=True, stdout=subprocess.PIPE))
            processes.callback(process.kill)
            assert process.stdout is not None
            if not (owner := process.stdout.readline()):
                pytest.skip(f"cannot start a process by {' '.join(prefix)}: it needs root")
            return Row(**json.loads(owner), heartbeat_at=datetime.now(UTC))

        yield start


def look(row: Row, *arguments: str, prefix: tuple[str, ...] = ()) -> str:
    """What a process started by ``prefix`` calls the row's state."""
    told = {name: value for name, value in asdict(row).items() if name != "state"}
    command = [*prefix, sys.executable, "-c", LOOK, json.dumps(told, default=str), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def test_a_process_in_another_pid_namespace_is_known_by_its_heartbeat(owned: Callable[..., Row]) -> None:
    row = owned(*CONTAINER)
    assert (row.host, row.pid) == (Owner.current().host, 1)  # which here is quite another process
    assert row.pid_namespace != Owner.current().pid_namespace
    assert look(row) == look(row, prefix=CONTAINER) == "running"
    row.heartbeat_at = LONG_AGO
    assert look(row) == look(row, prefix=CONTAINER) == "stale"


def test_a_process_of_the_host_is_known_by_its_heartbeat_from_within_a_container(
    owned: Callable[..., Row],
) -> None:
    row = owned()
    assert look(row, prefix=CONTAINER) == "running"
    row.heartbeat_at = LONG_AGO
    assert (look(row), look(row, prefix=CONTAINER)) == ("running", "stale")


def test_a_process_of_another_machine_of_the_same_name_is_known_by_its_heartbeat(
    owned: Callable[..., Row], tmp_path: Path
) -> None:
    """As machines made from one image are: their first PID namespaces have the same number, too."""
    other = tmp_path / "machine-id"
    other.write_text("0" * 32)
    row = owned("unshare", "--mount", "bash", "-c", f'mount --bind {other} /etc/machine-id && exec "$@"', "_")
    row.process_started = 1.0  # here that process is quite another one
    assert row.host == Owner.current().host
    assert look(row) == "running"
    row.heartbeat_at = LONG_AGO
    assert look(row) == "stale"


def test_a_process_stored_before_machines_were_told_apart_is_seen(process: subprocess.Popen[bytes]) -> None:
    row = row_of(process.pid)
    assert row.pid_namespace is not None
    row.pid_namespace = row.pid_namespace.partition(" on ")[0]
    assert is_alive(row)
    process.kill()
    process.wait()
    row.heartbeat_at = datetime.now(UTC)
    assert not is_alive(row)


@pytest.mark.parametrize("option", ["hidepid=1", "hidepid=2"])
def test_a_process_that_proc_hides_is_known_by_its_heartbeat(owned: Callable[..., Row], option: str) -> None:
    row = owned()
    hiding = ("unshare", "--mount", "bash", "-c", f'mount -t proc -o {option} proc /proc && exec "$@"', "_")
    assert look(row, "as nobody", prefix=hiding) == "running"
    row.heartbeat_at = LONG_AGO
    assert look(row, "as nobody") == "running"
    assert look(row, "as nobody", prefix=hiding) == "stale"


def test_a_proc_of_another_namespace_shows_nothing(owned: Callable[..., Row]) -> None:
    """Process 1 of the container is another than process 1 of this /proc."""
    row = owned("unshare", "--pid", "--fork", "--kill-child")
    assert (row.pid, row.process_started) == (1, None)
    assert look(row) == "running"
    row.heartbeat_at = LONG_AGO
    assert look(row) == "stale"


@pytest.mark.parametrize("state", ["queued", "done", "failed", "interrupted"])
def test_only_a_running_cell_can_be_stale(state: str) -> None:
    assert shown_state(Row(None, None, None, None, state=state)) == state
