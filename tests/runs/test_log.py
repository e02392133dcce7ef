"""The log file beside the database, and that no run fails because of it."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import run_cases
from run_cases import add_run

from pfa_cli.runs.log import Log
from pfa_cli.store.engine import open_store


def test_the_log_has_what_the_terminal_was_told_with_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["pfa", "run", "mnist", "--db=postgresql://me:secret@host/results"])
    db = tmp_path / "pfa.db"
    code, said = run_cases.train(db, run_cases.plan(["bp"], epochs=1, train_images=64))
    assert code == 0
    lines = (tmp_path / "pfa.db.log").read_text(encoding="utf-8").splitlines()
    head = re.compile(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d \[{os.getpid()}\] ")
    assert all(head.match(line) for line in lines)
    told = [head.sub("", line) for line in lines]
    assert told[0] == "pfa run mnist --db=postgresql://me:***@host/results"
    assert told[1:] == said.splitlines()
    assert any("epoch 1/1" in line for line in told) and told[-1] == "1 cell: 1 done"
    run_cases.train(db, run_cases.plan(["bp"], epochs=1, train_images=64))
    again = (tmp_path / "pfa.db.log").read_text(encoding="utf-8").splitlines()
    assert again[: len(lines)] == lines and again[-1].endswith("nothing to do: 1 cell done already")


@pytest.mark.parametrize(
    "block", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/proc/no/such/place")], ids=["folder", "fifo", "link"]
)  # fmt: skip
def test_a_log_that_cannot_be_written_is_no_error(tmp_path: Path, block: Callable[[Path], None]) -> None:
    with open_store(str(tmp_path / "pfa.db"), write=True) as store:
        add_run(store, "bp", state="done", epochs=4, total=4)
    block(tmp_path / "pfa.db.log")
    code, said = run_cases.train(tmp_path / "pfa.db", run_cases.plan(["bp"]))
    assert (code, said) == (0, "nothing to do: 1 cell done already\n")


def test_a_log_line_cannot_command_a_terminal(tmp_path: Path) -> None:
    Log(tmp_path / "x.db", 7).say("one\x1b[2J\ntwo")
    text = (tmp_path / "x.db.log").read_text()
    assert text.count(" [7] ") == 2 and "\x1b" not in text
