"""For all tests."""

import sys
from pathlib import Path

import pytest
from command_line import Answer, Call

# Folders may each have one; --doctest-modules would collect them as modules, whose names then clash.
collect_ignore_glob = ["*conftest.py"]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs `pfa` with the arguments given, in this process and in ``tmp_path``: a start of Python and torch costs seconds."""
    from pfa_cli.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")  # main sets it, too; this takes it back afterwards

    def run(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["pfa", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Answer(ended.value.code, *capsys.readouterr())

    return run
