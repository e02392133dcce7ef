"""What real machines give a command: ~, names that are not UTF-8, old encodings, no home, no rights, odd variables."""

import io
import json
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from command_line import Call
from privileges import ordinary_rights
from rich.text import Text

from pfa_cli.errors import UsageError
from pfa_cli.recipes import load_recipe
from pfa_cli.store.engine import open_store
from pfa_cli.store.schema import runs
from pfa_cli.terminal import Column, FittingTable, Terminal

ROOT = Path(__file__).parents[1]
HOSTILE = "\x1b[2J\x00\x9b31m\u202e[red]x[/red]\r\ufeff"
RECIPE = (ROOT / "recipes" / "mnist.toml").read_text(encoding="utf-8")


def process(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """`pfa` as a process of its own; a variable of the environment that is "" is not set."""
    variables = {name: value for name, value in (os.environ | environment).items() if value}
    return subprocess.run(
        [sys.executable, "-m", "pfa_cli", *arguments],
        cwd=cwd, env=variables | {"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120,
    )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A small database of runs."""
    path = tmp_path / "kept.db"
    shutil.copy(ROOT / "tests" / "store" / "kept" / "schema_0002.db", path)
    open_store(str(path), write=True).close()  # of today's schema
    return path


@pytest.mark.parametrize("form", ["--db=~/new.db", "--db=sqlite:///~/new.db"])
def test_a_database_in_the_home_folder(form: str, call: Call, home: Path, tmp_path: Path) -> None:
    assert call("merge", str(tmp_path / "none.db"), form).code == 1
    assert call("simulate", form).code == 0
    assert (
        (home / "new.db").is_file() and not (tmp_path / "~").exists() and not (tmp_path / "sqlite:").exists()
    )


def test_every_option_that_takes_a_path_knows_the_home_folder(
    call: Call, home: Path, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "mine.toml").write_text(RECIPE)
    assert call("export", "--db", str(database), "--out=~/epochs.csv").code == 0
    assert call("compare", "--db", str(database), "--out=~/made").code == 0
    assert call("merge", str(database), "--db=~/merged.db").code == 0
    assert call("merge", "~/merged.db", "--db", str(database)).code == 0
    assert call("recipes", "~/mine.toml").code == 0
    assert call("recipes", "mine", "--recipe-dir=~").code == 0
    assert (
        call("run", "~/mine.toml", "--algos=bp", "--dry-run", "--data-dir=~/data", "--db=~/none.db").code == 0
    )
    monkeypatch.setenv("PFA_DB", "~/merged.db")
    assert call("status").code == 0
    assert {path.name for path in home.iterdir()} == {"mine.toml", "epochs.csv", "made", "merged.db"}
    assert not (tmp_path / "~").exists()


def test_salvage_never_writes_into_a_database_in_the_home_folder(
    call: Call, home: Path, database: Path
) -> None:
    mine = Path(shutil.copy(database, home / "mine.db"))
    before = mine.read_bytes()
    done = call("db", "salvage", "~/mine.db", "--db", str(database))
    assert done.code == 2 and "exists already" in done.err and mine.read_bytes() == before
    assert call("db", "salvage", "~/saved.db", "--db", str(database)).code == 0
    assert (home / "saved.db").is_file()


@pytest.mark.parametrize("name", ["~nobody-of-that-name/x.csv", "", "https://host/x.csv"])
def test_a_path_that_names_nothing_is_wrong_usage(name: str, call: Call, database: Path) -> None:
    done = call("export", "--db", str(database), f"--out={name}")
    assert done.code == 2 and "\n" not in done.err.strip()


def test_a_path_that_begins_with_a_tilde_can_still_be_named(
    call: Call, tmp_path: Path, database: Path
) -> None:
    assert (
        call("export", "--db", str(database), "--out=./~x.csv").code == 0 and (tmp_path / "~x.csv").is_file()
    )


def test_names_that_are_not_utf_8_are_shown_escaped_and_come_back(
    call: Call, tmp_path: Path, database: Path
) -> None:
    name = os.fsdecode(b"caf\xe9")
    done = call("status", "--db", f"{name}.db")
    assert done.code == 1 and "caf\\xe9.db" in done.err
    assert (
        call("merge", str(database), "--db", f"{name}.db").code == 0 and (tmp_path / f"{name}.db").is_file()
    )
    (tmp_path / f"{name}.toml").write_text(RECIPE)
    assert "caf\\xe9.toml" in call("recipes", f"{name}.toml").out
    for command in (["status"], ["report"], ["compare"], ["export", "--out", f"{name}.csv"], ["db", "check"]):
        assert call(*command, "--db", f"{name}.db").code == 0, command
    assert (tmp_path / f"{name}.csv").is_file()
    assert json.loads(call("status", "--json", "--db", f"{name}.db").out)


@pytest.mark.parametrize("encoding", ["iso-8859-1", "ascii", "cp1252"])
def test_old_encodings_replace_what_they_cannot_write(
    encoding: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    assert call("run", "mnist", "--algos=bp", "--epochs=2", "--dry-run").code == 0  # its note has an arrow
    assert call("run", "mnist", "--sweep", "→", "--dry-run").code == 2
    out, err = (stream.buffer.getvalue() for stream in streams)
    assert b"epochs 40 ? 2: milestones 20, 30 ? 1, 2" in out and b"unknown sweep" in err


def test_a_file_that_may_not_be_read_is_one_sentence(call: Call, tmp_path: Path, database: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed").chmod(0)
    (tmp_path / "secret.toml").touch(mode=0)
    lines = [
        ["status", "--db", "closed/pfa.db"],
        ["run", "mnist", "--dry-run", "--db", "closed/pfa.db"],
        ["run", "closed/mine.toml", "--dry-run"],
        ["run", "secret.toml", "--dry-run"],
        ["recipes", "--recipe-dir", "closed"],
        ["export", "--db", str(database), "--out", "closed/x.csv"],
        ["figures", "--db", str(database), "--only", "table1", "--out", "closed"],
        ["merge", "closed/pfa.db", "--db", str(database)],
        ["db", "salvage", "closed/x.db", "--db", str(database)],
        ["db", "check", "--db", "closed/pfa.db"],
    ]
    for line in lines:
        with ordinary_rights():
            done = call(*line)
        assert done.code in (1, 2) and "ermission denied" in done.err, (line, done)
        assert len(done.err.strip().splitlines()) == 1, done.err
        assert "cannot save" not in done.err or "salvage" in line, done.err


@pytest.mark.parametrize("name", ["x" * 300, "loop", "d/" * 3000 + "x"])
def test_names_too_long_and_links_in_a_circle_are_one_sentence(
    name: str, call: Call, tmp_path: Path, database: Path
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for line in (
        ["status", "--db", f"{name}/pfa.db"],
        ["status", "--db", name],
        ["run", f"{name}/x.toml", "--dry-run"],
        ["recipes", "--recipe-dir", name],
        ["export", "--db", str(database), "--out", f"{name}/x.csv"],
        ["report", "--db", str(database), "--out", f"{name}/x"],
        ["merge", f"{name}/pfa.db", "--db", str(database)],
        ["db", "salvage", f"{name}/x.db", "--db", str(database)],
    ):
        done = call(*line)
        assert done.code in (1, 2) and len(done.err.strip().splitlines()) == 1, (line, done)


def test_a_deleted_working_directory_is_one_sentence(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in (["status"], ["run", "mnist", "--dry-run"], ["simulate"]):
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        done = call(*line)
        assert done.code == 1 and len(done.err.strip().splitlines()) == 1, done
        assert "Traceback" not in done.err


def test_variables_that_other_programs_leave_behind_do_no_harm(
    call: Call, tmp_path: Path, database: Path
) -> None:
    assert call("simulate", "--db", str(database)).code == 0
    long = tmp_path / ("t" * 120)
    long.mkdir()
    odd = {"COLUMNS": "0", "LINES": "x", "TERMINAL_WIDTH": "x", "TMPDIR": str(long)}
    notebook = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    assert b"expansion" in process("recipes", "mnist", cwd=tmp_path, **odd).stdout
    done = process(
        "figures",
        "--only=fig3",
        "--format=svg",
        "--out=results",
        "--db",
        str(database),
        cwd=tmp_path,
        **odd,
        **notebook,
    )
    assert done.returncode == 0 and (tmp_path / "results" / "fig3.svg").is_file(), done.stderr


def test_a_recipe_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("\ufeff" + RECIPE, encoding="utf-8")
    assert load_recipe(str(tmp_path / "mine.toml")).configuration("bp") is not None


@pytest.mark.parametrize(
    "content", [b"x = " + b"[" * 100_000, b"title = " + b"9" * 5000, b"\xff\xfe\x00", b"[a" * 5000]
)
def test_a_recipe_that_is_no_toml_is_wrong_usage(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(UsageError, match="not valid TOML"):
        load_recipe(str(tmp_path / "mine.toml"))


def test_only_a_regular_file_is_a_recipe_or_a_result(call: Call, tmp_path: Path, database: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    for line in (
        ["run", "pipe.toml", "--dry-run"],
        ["run", "zero.toml", "--dry-run"],
        ["export", "--db", str(database), "--out", "pipe.csv"],
        ["bench", "mnist", "--out", "/dev/full"],
    ):
        done = call(*line)
        assert done.code in (1, 2) and "not a regular file" in done.err, (line, done)


def test_hostile_text_is_shown_escaped_wherever_it_comes_from(
    call: Call, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(str(database), write=True) as store, store.write() as connection:
        connection.execute(runs.update().values(recipe=HOSTILE.replace("\x00", "")))
        connection.execute(runs.update().where(runs.c.id == 1).values(state="failed", error=HOSTILE))
    title = json.dumps(HOSTILE.replace("\r", ""))
    (tmp_path / "hostile.toml").write_text(RECIPE.replace(RECIPE.splitlines()[0], f"title = {title}", 1))
    lines = [
        ["status"],
        ["status", "--json"],
        ["compare"],
        ["figures", "--only", "table1"],
        ["db", "check"],
        ["run", HOSTILE.replace("\x00", ""), "--dry-run"],
        ["run", "mnist", f"--{HOSTILE}"],
        ["recipes", "hostile.toml"],
        ["recipes", "--recipe-dir", "."],
    ]
    for line in lines:
        done = call(*line, *([] if line[0] == "recipes" else ["--db", str(database)]))
        printed = done.out + done.err
        raw = {c for c in printed if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\t"}
        assert not raw and "Traceback" not in printed, (line, printed)
    assert "\\u001b[2J" in call("status", "--db", str(database)).out
    assert "[red]x[/red]" in call("recipes", "hostile.toml").out


def test_a_table_has_room_for_what_it_shows_escaped() -> None:
    file = io.StringIO()
    cells = ["\x1b[31m", Text("\u202e[b]x", style="red"), "plain"]
    Terminal(file=file, width=60).print(FittingTable([Column("a", cells), Column("b", ["1", "2", "3"])]))
    lines = [line.split() for line in file.getvalue().splitlines() if line.strip()]
    assert lines[2:] == [["\\u001b[31m", "1"], ["\\u202e[b]x", "2"], ["plain", "3"]]


def test_a_bug_still_shows_its_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pfa_cli.theory.cortex.estimate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call("cortex")
