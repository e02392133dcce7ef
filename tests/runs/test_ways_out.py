"""`pfa run` on photographs ends, whatever happens: decoders that outlive it, stuck ones, closed pipes, full devices.

All cases run at the same time, since most of their time is starting.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import run_cases

Process = subprocess.Popen[str]
Case = Callable[[Path], Process]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    run_cases.resnet_plan(folder, ["bp"])
    recipe = (folder / "resnet20.toml").read_text()
    (folder / "long.toml").write_text(recipe.replace("epochs = 3", "epochs = 10000"))
    for case in ENDINGS:
        run_cases.with_simulations(folder / f"{case.__name__}.db")
    return folder


def start(
    folder: Path,
    name: str,
    recipe: str,
    *launcher: str,
    wrapper: tuple[str, ...] = (),
    data: str = ".",
    imports: str = "",
    **options: object,
) -> Process:
    """``imports``: a folder with modules that are imported in place of others."""
    command = [*wrapper, sys.executable, *launcher, "-m", "pfa_cli", "run", str(folder / recipe)]
    command += ["--algos=bp", "--jobs=1"]
    command += [
        f"--db={folder / name}.db",
        f"--data-dir={folder / data}",
        "--device=cpu",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PFA_WORKERS": "1", "PYTHONWARNINGS": "ignore"}
    if imports:
        environment["PYTHONPATH"] = os.pathsep.join([str(folder / imports), *sys.path])
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, text=True, env=environment, start_new_session=True, **streams)


def lines(process: Process, until: str) -> None:
    assert process.stdout is not None
    while until not in (line := process.stdout.readline()):
        assert line, process.stderr and process.stderr.read()


def closed_pipe(folder: Path) -> Process:
    process = start(folder, "closed_pipe", "long.toml", stderr=subprocess.DEVNULL)
    lines(process, "epoch 1/")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    return process


def full_device(folder: Path) -> Process:
    with Path("/dev/full").open("w") as full:
        return start(folder, "full_device", "resnet20.toml", stdout=full)


def stuck_decoder(folder: Path) -> Process:
    process = start(folder, "stuck_decoder", "long.toml")
    lines(process, "epoch 1/")
    helpers = psutil.Process(process.pid).children(recursive=True)
    for decoder in [helper for helper in helpers if helper.ppid() != process.pid]:
        decoder.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    process.terminate()
    return process


def hang_up(folder: Path) -> Process:
    process = start(folder, "hang_up", "long.toml")
    lines(process, "epoch 1/")
    os.killpg(process.pid, signal.SIGHUP)  # to decoders, too, as a terminal does
    return process


def killed(folder: Path) -> Process:
    process = start(folder, "killed", "long.toml")
    lines(process, "epoch 1/")
    process.kill()
    return process


def ranks(folder: Path) -> Process:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    return start(folder, "ranks", "resnet20.toml", *launcher)


def unreadable_photograph(folder: Path) -> Process:
    for part in ("train", "val"):
        shutil.copytree(folder / part, folder / "unreadable" / part)
    (folder / "unreadable/train/cat/0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    return start(folder, "unreadable_photograph", "resnet20.toml", data="unreadable")


def no_shared_memory(folder: Path) -> Process:
    """As in a container: a /dev/shm of its own, with room for the semaphores and for less than two batches."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("a /dev/shm of its own needs root")
    small = 'mount -t tmpfs -o size=48k none /dev/shm && exec "$0" "$@"'
    return start(folder, "no_shared_memory", "resnet20.toml", wrapper=("unshare", "-m", "bash", "-c", small))


def during_the_imports(folder: Path) -> Process:
    (folder / "slow").mkdir()
    (folder / "slow" / "torch.py").write_text("import time\ntime.sleep(100)\n")
    process = start(folder, "during_the_imports", "long.toml", imports="slow")
    lines(process, "starting")
    process.send_signal(signal.SIGUSR1)
    return process


ENDINGS: dict[Case, tuple[int, list[str]]] = {
    closed_pipe: (143, ["interrupted"]),
    full_device: (0, ["done"]),
    stuck_decoder: (143, ["interrupted"]),
    hang_up: (143, ["interrupted"]),
    killed: (-signal.SIGKILL, ["running"]),
    ranks: (0, ["done"]),
    unreadable_photograph: (1, ["failed"]),
    no_shared_memory: (1, ["failed"]),
    during_the_imports: (143, []),
}


@dataclass
class Ending:
    code: int
    said: str
    left: list[int]  # processes of its group that outlived it by a minute


def run(case: Case, folder: Path) -> Ending:
    process = case(folder)
    try:
        said = process.communicate(timeout=run_cases.LIMIT_SECONDS)
        deadline = time.monotonic() + 60
        while (left := alive_in_group(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return Ending(process.returncode, str(said), left)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        for stream in (process.stdout, process.stderr):
            if stream is not None:  # left open, it would fail a later test by its warning
                stream.close()


# Every day tests/test_signals.py looks at full devices, tests/data/test_imagefolder.py at unreadable photographs.
LONG = (full_device, unreadable_photograph)


@pytest.fixture(scope="module")
def started(photographs: Path) -> Iterator[Callable[[Case], Future[Ending]]]:
    """Gives the ending of a case, having started all of every day, or all the long ones, with the first of them."""
    endings: dict[Case, Future[Ending]] = {}

    def ending(case: Case) -> Future[Ending]:
        if case not in endings:
            together = [other for other in ENDINGS if (other in LONG) == (case in LONG)]
            endings.update({other: pool.submit(run, other, photographs) for other in together})
        return endings[case]

    with ThreadPoolExecutor(len(ENDINGS)) as pool:
        yield ending


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.__name__, marks=[pytest.mark.long] if case in LONG else [])
        for case in ENDINGS
    ],
)
def test_a_run_on_photographs_ends(
    case: Case, started: Callable[[Case], Future[Ending]], photographs: Path
) -> None:
    ending = started(case).result()
    code, states = ENDINGS[case]
    assert ending.code == code, ending.said
    assert "Traceback" not in ending.said
    if case is no_shared_memory:
        assert "--shm-size" in ending.said and "PFA_WORKERS=0" in ending.said
    assert run_cases.states(photographs / f"{case.__name__}.db") == states
    assert not ending.left


def alive_in_group(group: int) -> list[int]:
    """The processes of a process group, without those that have ended and whose parent has not asked how."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found
