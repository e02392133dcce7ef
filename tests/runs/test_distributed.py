"""`torchrun … -m pfa_cli run`: several processes train the cells together, one of them writes and speaks."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest
import run_cases
import torch
import torch.distributed as dist
from command_line import Call
from sqlalchemy import select
from torch import nn

from pfa_cli import ranks
from pfa_cli.errors import UsageError
from pfa_cli.launched import Launched, launched
from pfa_cli.ranks import Ranks, share_statistics
from pfa_cli.recipes import load_recipe
from pfa_cli.runs import start_ranks
from pfa_cli.runs.plan import make_plan
from pfa_cli.signals import StopRequest
from pfa_cli.store import schema
from pfa_cli.store.engine import open_store
from pfa_cli.store.owner import process_started
from pfa_cli.training.device import choose_device

TORCHRUN = ("-m", "torch.distributed.run", "--standalone")
BY_TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "1",
    "WORLD_SIZE": "4",
    "RANK": "3",
    "LOCAL_WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
}


def command(
    folder: Path, algorithms: str, *launcher: str, ranks: int | None = None, **changes: object
) -> subprocess.Popen[str]:
    settings = {"epochs": 2, "train_images": 640, "test_images": 500} | changes
    return subprocess.Popen(
        [
            *(sys.executable, *launcher, "-m", "pfa_cli", "run", "mnist", "--device=cpu", "--jobs=1"),
            *(f"--algos={algorithms}", f"--db={folder / 'pfa.db'}"),
            *(f"--set={key}={value}" for key, value in settings.items()),
            *([f"--ranks={ranks}"] if ranks else []),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_two_ranks_fill_one_database_with_the_same_results(tmp_path: Path) -> None:
    algorithms = ["bp", "pfa", "pal", "dfa"]
    db = run_cases.with_simulations(tmp_path / "pfa.db")
    out, err = command(tmp_path, ",".join(algorithms), *TORCHRUN, "--nproc-per-node=2").communicate(
        timeout=run_cases.LIMIT_SECONDS
    )
    assert out.count("4 cells: 4 done") == 1, out + err
    assert "Warning" not in err
    settings = load_recipe("mnist"), algorithms, [0], {"epochs": 2, "train_images": 640, "test_images": 500}
    assert run_cases.train(tmp_path / "alone.db", make_plan(None, *settings))[0] == 0
    alone, together = run_cases.stored(tmp_path / "alone.db"), run_cases.stored(db)
    for one, two in zip(alone, together, strict=True):
        assert (one.algorithm, two.state) == (two.algorithm, "done")
        # Not to the bit: two ranks sum in another order than one. Of 500 test images a few lie on the boundary.
        assert two.test_accuracy_percent == pytest.approx(one.test_accuracy_percent, abs=1.0)
        assert two.train_accuracy_percent == pytest.approx(one.train_accuracy_percent, abs=0.5)


def test_a_killed_rank_leaves_its_cell_to_be_resumed(tmp_path: Path) -> None:
    db = tmp_path / "pfa.db"
    torchrun = command(tmp_path, "bp", *TORCHRUN, "--nproc-per-node=2", epochs=400, train_images=6400)
    (row,) = run_cases.until(lambda: run_cases.running(db, epochs=1), "a running cell")
    (follower,) = [child for child in psutil.Process(torchrun.pid).children() if child.pid != row.pid]
    follower.kill()
    out, err = torchrun.communicate(timeout=run_cases.LIMIT_SECONDS)
    assert torchrun.returncode == 1
    assert "gloo" not in out and "RuntimeError" not in err
    (row,) = run_cases.stored(db)
    assert (row.state, row.error) == ("interrupted", None)


def test_what_torchrun_says_is_understood() -> None:
    assert launched({}) == launched({"WORLD_SIZE": "1", "RANK": "0"}) == Launched(0, 1, 0, 1)
    assert launched(BY_TORCHRUN) == Launched(rank=3, size=4, local_rank=1, local_size=2)


@pytest.mark.parametrize(
    "left_over",
    [
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "abc"},
        {"WORLD_SIZE": ""},
        {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"},
        BY_TORCHRUN | {"RANK": "4"},
        BY_TORCHRUN | {"LOCAL_RANK": "x"},
        {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2"},
    ],
)
def test_variables_left_over_are_wrong_usage_that_names_them(left_over: Mapping[str, str]) -> None:
    with pytest.raises(UsageError) as error:
        launched(left_over)
    for name, value in left_over.items():
        assert name.startswith("TORCHELASTIC") or f"{name}={value}" in str(error.value)


def test_ranks_that_never_come_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "JOIN_SECONDS", 1.0)
    for name, value in BY_TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=r"rank 3 of 4 waited 1 s in vain .*`unset WORLD_SIZE RANK"):
        Ranks.join(launched(), "cpu")


def test_each_rank_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in BY_TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert choose_device("cuda") == torch.device("cuda", 1)
    with pytest.raises(UsageError, match="each process takes a GPU of its own"):
        choose_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for rank in ("1", "0"):  # also the one that would have its GPU, and would wait for the other
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(UsageError, match="2 processes on this machine, but 1 GPU"):
            choose_device("cuda")


@contextlib.contextmanager
def group_of_one(folder: Path) -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), 1), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def test_shared_statistics_are_of_the_weights_precision_under_bf16(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    images = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    expected = nn.BatchNorm2d(4)
    with group_of_one(tmp_path):
        share_statistics(network, Ranks(0, 2), torch.device("cpu"))
        with torch.autocast("cpu", torch.bfloat16):
            found, wanted = network(images), expected(network[0](images))
            found.square().mean().backward()
    assert found.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(network[1].running_mean, expected.running_mean)
    torch.testing.assert_close(network[1].running_var, expected.running_var)


LONG = {"epochs": 400, "train_images": 6400}


def test_ranks_that_pfa_starts_save_together_and_resume(tmp_path: Path) -> None:
    db = tmp_path / "pfa.db"
    process = command(tmp_path, "bp", ranks=2, **LONG)
    (row,) = run_cases.until(lambda: run_cases.running(db, epochs=1), "a running cell")
    assert row.pid != process.pid
    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=run_cases.LIMIT_SECONDS)
    assert (process.returncode, err, run_cases.states(db)) == (143, "", ["interrupted"]), out
    (row,) = run_cases.stored(db)

    again = command(tmp_path, "bp", ranks=2, **LONG)
    ranks = psutil.Process(again.pid).children
    (resumed,) = run_cases.until(
        lambda: run_cases.running(db, epochs=(row.epochs_done or 0) + 1), "the cell resumed"
    )
    (follower,) = [child for child in ranks() if child.pid != resumed.pid]
    again.kill()
    _, err = again.communicate(timeout=run_cases.LIMIT_SECONDS)
    run_cases.until(
        lambda: not follower.is_running() and process_started(resumed.pid or 0) is None, "all to end"
    )
    assert (run_cases.states(db), err) == (["interrupted"], "")
    with open_store(str(db), write=False) as store:
        attempts = store.read(lambda c: list(c.execute(select(schema.attempts)).mappings()))
    assert [(a["ranks"], a["outcome"]) for a in attempts] == [(2, "interrupted")] * 2


_STOPS_THE_LEADER = """
import os, signal, torch
def load(configuration, data_dir, device):
    if os.environ["RANK"] == "0":
        os.kill(os.getpid(), signal.SIGTERM)
    return torch.rand(64, 784), torch.zeros(64, dtype=torch.long), torch.rand(8, 784), torch.zeros(8, dtype=torch.long)
"""


def test_a_leader_that_is_stopped_before_it_trains_tells_the_other_ranks_nothing_more(tmp_path: Path) -> None:
    """They wait for what belongs to the network that is made then, and would take it for that."""
    (tmp_path / "own.py").write_text(_STOPS_THE_LEADER)
    own = {"train_images": 64, "test_images": 8, "dataset": f"{tmp_path / 'own.py'}:load"}
    process = command(tmp_path, "bp", ranks=2, **own)
    out, err = process.communicate(timeout=run_cases.LIMIT_SECONDS)
    assert (process.returncode, err) == (143, "pfa: stopped by SIGTERM\n"), out
    assert run_cases.states(tmp_path / "pfa.db") == ["interrupted"]


def test_wrong_usage_is_said_once_by_ranks_that_pfa_starts(tmp_path: Path) -> None:
    process = command(tmp_path, "bp", ranks=2, batch_size=63)
    _, err = process.communicate(timeout=run_cases.LIMIT_SECONDS)
    assert process.returncode == 2 and list(tmp_path.iterdir()) == []
    assert err.count("batch_size (=63) must be divisible by ranks × accumulation (=2 × 1)") == 1


@pytest.mark.parametrize(
    ("other", "seconds", "code"), [("true", "1", 0), ("false", "60", -signal.SIGTERM)], ids=["done", "failed"]
)
def test_the_leader_may_go_on_alone_only_where_the_others_are_through(
    other: str, seconds: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figure 3's simulations, which the leader makes at the end, may take longer than ranks wait for one that is lost."""
    monkeypatch.setattr(start_ranks, "_END_SECONDS", 0.1)
    started = [subprocess.Popen(["sleep", seconds]), subprocess.Popen([other])]
    start_ranks._wait(started, StopRequest())
    assert started[0].returncode == code


def test_a_rank_that_stands_still_is_said_to_have_been_killed_by_pfa(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By SIGSTOP, or where the kernel no longer answers it: "killed by SIGKILL" would look as if memory had run out."""

    def start(rank: int, *_: object) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(["sleep", "60"] if rank else ["false"])
        if rank:
            process.send_signal(signal.SIGSTOP)
        return process

    monkeypatch.setattr(start_ranks, "_END_SECONDS", 0.1)
    monkeypatch.setattr(start_ranks, "_start", start)
    assert start_ranks.start_ranks(2) == 1
    said = "pfa: rank 1 did not end when it was asked to, and was killed; the same command goes on from the last checkpoint\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(("rank", "said"), [("0", 1), ("1", 0)])
def test_what_is_wrong_in_all_ranks_is_said_by_the_first(
    rank: str, said: int, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (BY_TORCHRUN | {"RANK": rank, "LOCAL_RANK": rank}).items():
        monkeypatch.setenv(name, value)
    for wrong in (["mnst"], ["mnist", "--shard=9/8"], ["mnist", "--algos=bp", "--device=tpu"]):
        done = call("run", *wrong)
        assert (done.code, len(done.err.splitlines())) == (2, said)
    done = call("run", "mnist", "--algos", "bp", "--ranks", "2")
    assert (done.code, done.err.count("leave torchrun out")) == (2, 1)
