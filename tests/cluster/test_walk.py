"""docs/cluster.md: its commands, as a newcomer gives them."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from command_line import Call

from pfa_cli.data import default_data_dir

TEXT = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
BLOCKS = re.findall(r"(<!-- runs in the tests -->\n)?```sh\n(.*?)```", TEXT, re.DOTALL)


def test_a_newcomer_gets_from_the_login_node_to_the_figures(slurm: None, tmp_path: Path) -> None:
    fetch, submit, look, draw = [block for runs, block in BLOCKS if runs]
    fetch = fetch.replace("$PWD/data", str(default_data_dir()))  # the tests' own copy
    script = f"""
        set -e
        pfa() {{ python -m pfa_cli "$@"; }}
        {fetch}{submit}
        until pfa status > /dev/null 2>&1; do sleep 0.5; done
        {look}
        while squeue --noheader | grep -q .; do sleep 0.5; done
        pfa status --json > status.json
        {draw}"""
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Submitted batch job" in done.stdout and "#SBATCH --array=1-2" in done.stdout
    assert (tmp_path / "status.json").read_text().count('"state": "done"') == 2
    assert list((tmp_path / "results").glob("fig*.png"))


@pytest.mark.parametrize(
    "line",
    [
        line
        for runs, block in BLOCKS
        if not runs
        for line in block.splitlines()
        if line.startswith("pfa submit")
    ],
)
def test_a_script_of_every_example(line: str, call: Call) -> None:
    done = call(*shlex.split(line)[1:])
    assert done.code == 0, done.err
    checked = subprocess.run(["bash", "-n"], input=done.out, text=True, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    for option in ("array", "partition", "time", "gres"):
        if found := re.search(rf"--{option} (\S+)", line):
            value = f"1-{found[1]}" if option == "array" else found[1]
            assert f"#SBATCH --{option}={value}\n" in done.out
    assert ("--shard=" in done.out) is ("--shards" in line)
    assert "--print" not in done.out


def test_a_dry_run_submits_nothing(call: Call, tmp_path: Path) -> None:
    refused = call("submit", "mnist", "--algos=bp", "--dry-run")
    assert refused.code == 2 and "`pfa submit --print` shows the script" in refused.err
    assert not (tmp_path / "results").exists()
