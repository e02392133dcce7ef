"""Files are written whole or not at all; a pipe, a device, a socket or a folder is refused at once."""

import os
import socket
from pathlib import Path

import pytest

from pfa_cli import files

SPECIAL = ["folder", "pipe", "socket", "/dev/zero", "/dev/full", "link to a pipe"]


def special(kind: str, folder: Path) -> Path:
    """Something of that kind that is no regular file."""
    path = Path(kind) if kind.startswith("/dev") else folder / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            here = Path.cwd()
            os.chdir(folder)  # the path of a socket may have 107 characters
            server.bind(kind)
            os.chdir(here)
    elif kind == "link to a pipe":
        os.mkfifo(folder / "target")
        path.symlink_to("target")
    return path


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_regular_file_is_neither_read_nor_replaced(tmp_path: Path, kind: str) -> None:
    path = special(kind, tmp_path)
    before = sorted(tmp_path.iterdir())
    for act in (files.read, lambda path: files.write(path, b"x"), files.refuse_special):
        with pytest.raises(OSError, match="not a regular file"):
            act(path)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_as_a_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "a.txt"
    assert files.write(path, "old ä", durable=durable) == path
    with pytest.raises(ZeroDivisionError), files.replacing(path, durable=durable) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert files.read(path) == "old ä".encode()
    files.write(path, b"new", durable=durable)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.txt", b"new")]


def test_a_new_file_has_the_permissions_that_the_user_asks_of_new_files(tmp_path: Path) -> None:
    (tmp_path / "touched").touch()
    files.write(tmp_path / "written", b"")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "touched").stat().st_mode


def test_a_link_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "link").symlink_to("target")
    files.write(tmp_path / "link", b"x")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "precious"


def test_the_longest_name_that_a_file_may_have_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 120 + ".csv")
    assert files.read(files.write(path, b"x")) == b"x"


def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.write(tmp_path / "moved" / "a.txt", b"x")
    assert not (tmp_path / "moved").exists()
