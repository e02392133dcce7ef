"""Eight `pfa run` of the same cells start together on a new database, while others look at it all the time."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

ALGORITHMS = ("bp", "fa", "dfa", "sf", "kp", "pfa", "pfa-o", "pal")
RUN = ["run", "mnist", f"--algos={','.join(ALGORITHMS)}", "--jobs=1", "--epochs=2", "--device=cpu"]
SMALL = ["--device=cpu", "--set=train_images=640", "--set=test_images=200", "--set=hidden_sizes=[32]"]
LOOKS = (
    ["status", "--json"],
    ["figures", "--out=drawn", "--only=fig2", "--format=png"],
    ["export", "--table=epochs", "--out=seen.csv"],
)
EARLY = ("no results yet", "nothing of it")  # what a look may rightly say before there is anything to see


def _pfa(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pfa_cli", *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _numbers(folder: Path) -> pd.DataFrame:
    """Every stored number of the epochs that does not depend on the clock or on who wrote first."""
    process = _pfa(folder, "export", "--table=epochs", "--out=epochs.csv")
    assert process.communicate(timeout=60)[1] == ""
    keys = ["algorithm", "seed", "epoch"]
    frame = pd.read_csv(folder / "epochs.csv").sort_values(keys, ignore_index=True)
    return frame.drop(columns=["run_id", "attempt_id", "seconds", "images_per_second"], errors="ignore")


def test_eight_commands_and_their_viewers_do_not_disturb_each_other(tmp_path: Path) -> None:
    crowd, alone = tmp_path / "crowd", tmp_path / "alone"
    crowd.mkdir()
    alone.mkdir()
    commands = [_pfa(crowd, *RUN, *SMALL) for _ in range(8)]
    looks = 0
    while any(command.poll() is None for command in commands):
        for arguments in LOOKS:
            look = _pfa(crowd, *arguments)
            _, error = look.communicate(timeout=120)
            assert look.returncode == 0 or any(word in error for word in EARLY), error
            looks += look.returncode == 0
    for command in commands:
        _, error = command.communicate(timeout=60)
        assert (command.returncode, error) == (0, "")
    assert looks > 0
    found = _numbers(crowd)
    assert found.groupby("algorithm").size().to_dict() == dict.fromkeys(ALGORITHMS, 3)
    attempts = _pfa(crowd, "export", "--table=attempts", "--out=attempts.csv")
    assert attempts.communicate(timeout=60)[1] == ""
    assert len(pd.read_csv(crowd / "attempts.csv")) == len(ALGORITHMS)  # no cell was trained twice

    once_more = _pfa(alone, *RUN, *SMALL)  # same seeds, same machine: same rows
    assert once_more.communicate(timeout=200)[1] == ""
    pd.testing.assert_frame_equal(_numbers(alone), found, check_exact=True)
