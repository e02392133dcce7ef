"""Several `pfa run` of the same cells start together on a new database, while others look at it all the time."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import run_cases
from command_line import Call

ALGORITHMS = ("bp", "fa", "dfa", "sf", "kp", "pfa", "pfa-o", "pal")
RUN = ["run", "mnist", f"--algos={','.join(ALGORITHMS)}", "--jobs=1", "--epochs=2", "--device=cpu"]
SMALL = ["--set=train_images=640", "--set=test_images=200", "--set=hidden_sizes=[32]"]
LOOKS = (
    ["status", "--json"],
    ["figures", "--out=drawn", "--only=fig2", "--format=png"],
    ["export", "--table=epochs", "--out=seen.csv"],
)
EARLY = ("no results yet", "nothing of it")  # what a look may rightly say before there is anything to see


def _start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pfa_cli", *RUN, *SMALL],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _exported(call: Call, table: str, folder: Path, *arguments: str) -> pd.DataFrame:
    answer = call("export", f"--table={table}", f"--out={table}.csv", *arguments)
    assert (answer.code, answer.err) == (0, "")
    return pd.read_csv(folder / f"{table}.csv")


def _numbers(call: Call, folder: Path, *arguments: str) -> pd.DataFrame:
    """Every stored number of the epochs that does not depend on the clock or on who wrote first."""
    keys = ["algorithm", "seed", "epoch"]
    frame = _exported(call, "epochs", folder, *arguments).sort_values(keys, ignore_index=True)
    return frame.drop(columns=["run_id", "attempt_id", "seconds", "images_per_second"], errors="ignore")


@pytest.mark.parametrize("crowd", [3, pytest.param(8, marks=pytest.mark.long)])
def test_commands_and_their_viewers_do_not_disturb_each_other(crowd: int, call: Call, tmp_path: Path) -> None:
    commands = [_start(tmp_path) for _ in range(crowd)]
    looks = 0
    while any(command.poll() is None for command in commands):
        for arguments in LOOKS:
            look = call(*arguments)
            assert look.code == 0 or any(word in look.err for word in EARLY), look.err
            looks += look.code == 0
        time.sleep(0.5)  # else this process takes the time of a core that the commands need
    for command in commands:
        _, error = command.communicate(timeout=run_cases.LIMIT_SECONDS)
        assert (command.returncode, error) == (0, "")
    assert looks > 0
    found = _numbers(call, tmp_path)
    assert found.groupby("algorithm").size().to_dict() == dict.fromkeys(ALGORITHMS, 3)
    assert len(_exported(call, "attempts", tmp_path)) == len(ALGORITHMS)  # no cell was trained twice

    alone = run_cases.with_simulations(tmp_path / "alone.db")
    assert call(*RUN, *SMALL, f"--db={alone}").code == 0  # same seeds, same machine: same rows
    pd.testing.assert_frame_equal(_numbers(call, tmp_path, f"--db={alone}"), found, check_exact=True)
