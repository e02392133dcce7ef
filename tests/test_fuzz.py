"""Random command lines at every command: an answer or one sentence, and nothing written where it should not be."""

import hashlib
import os
import random
import shlex
import shutil
import signal
import sqlite3
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import Call
from privileges import ordinary_rights

from pfa_cli.cli import app
from pfa_cli.errors import PfaError

SEED = 20240607
CODES = {0, 1, 2, 130, 143}  # as the README documents them
SECONDS = 10  # of processor time for a command
PATIENCE = 40  # seconds on the clock, of a busy machine
KEPT = Path(__file__).parent / "store" / "kept"

TEXTS = [
    "", " ", ",", "all", "bp", "pfa,bp", "nonsense", "[red]x[/]", "a=b", "=", "x\ny", "\t", "ü→🙂", "\udcff",
    "\x1b[31m", "\u202e", "-", "--", "-1", "0", "1", "2-4", "9" * 30, "9" * 5000, "1e308", "nan", "inf", "-inf",
    "~", "~nobody-of-that-name/x", "x" * 5000, "%s%n", "'; DROP TABLE runs; --", "[" * 3000, "{}",
    "epochs=0", "epochs=99999999999999999999", "learning_rate=nan", "learning_rate=.1", "hidden_sizes=[]",
    "batch_size=1", "expansion=1e308", "fig2", "fig2,fig3", "csv", "svg", "epochs", "mnist", "imagenet", "cpu",
    "cuda:99", "bf16", "json", "md",
]  # fmt: skip
# Names of files, of which `places` makes some; none may lead out of the folder.
FILES = [
    "", "absent", "absent/x.db", "notes.txt", "notes.txt/x", "folder", "folder.db", "pipe", "pipe.toml", "loop",
    "unreadable", "unreadable/x.csv", "read-only/x", "/dev/full", "/dev/zero", "/dev/zero/x", "results.db", "old.db",
    "foreign.db", "damaged.db", "empty.db", "recipe.toml", "deep.toml", "digits.toml", "n" * 300, "d/" * 3000 + "x",
    "caf\udce9.db", "ü→🙂.csv", "x\ny.csv", "[red].csv", "out.csv", "out.parquet", "sqlite:///results.db", "sqlite://",
    "sqlite:///", "postgresql://nobody@localhost/x", "://", "nonsense://x", "~/x", "~nobody-of-that-name/x", "-", " ",
]  # fmt: skip

DRAWING = ("figures", "compare", "report")
DRAWN = ("fig", "training-", "table1", "comparison", "report.html")  # the beginnings of their files' names

# What fits an option, so that a line is not always refused for its first value.
FITTING = {
    "--algos": ["all", "bp", "pfa,fa"], "--seeds": ["2", "0,3", "2-4"], "--epochs": ["1"], "--sweep": ["expansion"],
    "--set": ["expansion=2", "learning_rate=.1", "batch_size=32", "train_images=64"], "--device": ["cpu", "auto"],
    "--precision": ["fp32", "bf16"], "--jobs": ["1"], "--db": ["results.db", "new.db", "caf\udce9.db"],
    "--data-dir": ["data"], "--recipe-dir": ["folder", "."], "--only": ["table1", "fig4"], "--format": ["svg", "json"],
    "--table": ["runs", "layers"], "--out": ["out", "out.csv", "out.parquet", "caf\udce9.csv"], "--seed": ["1"],
    "--synapses": ["1000"], "--interval": ["1"], "--threads": ["1"], "--repetitions": ["1"], "--steps": ["1"],
    "--minutes": ["1"],
}  # fmt: skip


def places(folder: Path) -> None:
    """Files and folders of every kind that is hard to read or must not be written."""
    (folder / "notes.txt").write_text("somebody's notes\n" * 40)
    for name in ("folder", "folder.db", "unreadable", "read-only"):
        (folder / name).mkdir()
    for name in ("pipe", "pipe.toml"):
        os.mkfifo(folder / name)
    (folder / "loop").symlink_to("loop")
    shutil.copy(KEPT / "schema_0002.db", folder / "results.db")
    shutil.copy(KEPT / "schema_0001.db", folder / "old.db")
    shutil.copy(KEPT / "schema_0002.db", folder / "caf\udce9.db")
    damaged = bytearray((KEPT / "schema_0002.db").read_bytes())
    damaged[4096:12288] = bytes(8192)
    (folder / "damaged.db").write_bytes(damaged)
    (folder / "empty.db").touch()
    with sqlite3.connect(folder / "foreign.db") as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    shutil.copy(Path(__file__).parents[1] / "recipes" / "mnist.toml", folder / "recipe.toml")
    (folder / "deep.toml").write_text("x = " + "[" * 100_000)
    (folder / "digits.toml").write_text(f"title = {'9' * 5000}")
    (folder / "unreadable").chmod(0)
    (folder / "read-only").chmod(0o555)


def commands() -> dict[tuple[str, ...], list[Any]]:
    """Every command with its parameters, from the parser itself."""
    found: dict[tuple[str, ...], list[Any]] = {}

    def walk(command: Any, path: tuple[str, ...]) -> None:
        for name, child in getattr(command, "commands", {}).items():
            walk(child, (*path, name))
        if not hasattr(command, "commands"):
            found[path] = command.params

    walk(typer.main.get_command(app), ())
    return found


def random_line(rng: random.Random, known: dict[tuple[str, ...], list[Any]]) -> list[str]:
    """One command with some of its options, each with a value that fits or does not."""
    path = rng.choice(list(known))
    line = list(path)
    for parameter in known[path]:
        is_argument = parameter.param_type_name == "argument"
        if parameter.name == "watch" or rng.random() > (0.9 if is_argument else 0.3):
            continue
        takes_a_file = parameter.metavar in ("FILE", "FOLDER", "RECIPE", "DATABASE")
        value = rng.choice(FILES if takes_a_file and rng.random() < 0.9 else TEXTS)
        if rng.random() < 0.5:
            value = rng.choice(FITTING.get(parameter.opts[0], [value]))
        if is_argument:
            line += ["mnist" if "RECIPE" in (parameter.metavar or "") and rng.random() < 0.6 else value]
        elif parameter.is_flag:
            line += [rng.choice([*parameter.opts, *parameter.secondary_opts])]
        elif rng.random() < 0.5:
            line += [f"{parameter.opts[0]}={value}"]
        else:
            line += [parameter.opts[0], value]
    return line


def content(folder: Path) -> dict[str, str]:
    """What lies in a folder: the kind of each entry, and a digest of each file."""
    found = {}
    for path in sorted(folder.rglob("*")):
        is_file = path.is_file() and not path.is_symlink()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if is_file else oct(path.lstat().st_mode)
        found[str(path.relative_to(folder))] = digest
    return found


def written_by(line: list[str]) -> set[str]:
    """The first parts of the names that a command line may write to: of --out, --db, --data-dir, salvage, pictures."""
    values = [
        value
        for word, value in zip(line, [*line[1:], ""], strict=True)
        if word in ("--out", "--db", "--data-dir")
    ]
    values += [word.partition("=")[2] for word in line if word.startswith(("--out=", "--db=", "--data-dir="))]
    values += line[2:] if line[:2] == ["db", "salvage"] else []
    if line[0] in DRAWING and not any(word.startswith("--out") for word in line):
        values += DRAWN  # beside the database
    return {value.removeprefix("sqlite:///").split("/")[0] for value in values} | {"results", "data"}


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the folders work (the current one), home and tmp, which are the user's."""
    for name in ("work", "home", "tmp"):
        (tmp_path / name).mkdir()
    places(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    monkeypatch.setenv("PFA_DATA", "data")
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("pfa_cli.data.fetch._fetch_locked", no_network)
    monkeypatch.setattr("pfa_cli.bench.command.bench", lambda *_, **__: iter(()))  # it takes minutes
    return tmp_path


def no_network(download: Any, data_dir: Path) -> None:
    raise PfaError(f"{download.title} is not in {data_dir}, and this test has no network")


class TooLong(BaseException):
    """Nothing between the command and the test catches it."""


@contextmanager
def time_limit() -> Iterator[None]:
    """A command that takes longer than it may ends in an error, wherever it is."""

    def too_long(*_: object) -> None:
        raise TooLong(f"no answer within {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault(call: Call, line: list[str], scene: Path) -> str:
    """What is wrong with how `pfa` takes the command line; empty if nothing is."""
    before, began = content(scene), time.process_time()
    try:
        with ordinary_rights(), time_limit():
            answer = call(*line)
    except (Exception, TooLong):
        return traceback.format_exc()
    silent = not (answer.out or answer.err) and line[0] != "bench"
    if answer.code not in CODES or "Traceback" in answer.err or silent:
        return str(answer)
    if time.process_time() - began > SECONDS:
        return f"took {time.process_time() - began:.0f} s of processor time"
    after = content(scene)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    allowed = tuple(f"work/{name}" for name in written_by(line) if name)
    strange = {name for name in changed if not name.startswith((*allowed, "matplotlib", "home/x"))}
    return f"written: {strange}" if strange else ""


@pytest.mark.parametrize("lines", [50, pytest.param(400, marks=pytest.mark.long)])
def test_random_command_lines_get_an_answer_or_one_sentence(
    lines: int, call: Call, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(scene / "work")
    rng, known = random.Random(SEED), commands()
    faults = {}
    for _ in range(lines):
        line = random_line(rng, known)
        if wrong := fault(call, line, scene):
            faults[ascii(shlex.join(["pfa", *line]))] = wrong
    assert not faults, "\n".join(f"{line[:500]}\n{wrong[-3000:]}" for line, wrong in faults.items())
