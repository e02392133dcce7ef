"""What is installed knows its commit: real wheels, built from clones with and without git."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from pfa_cli import __version__

ROOT = Path(__file__).parents[1]


def run(*command: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project of this one's package and build, with one commit."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "hatch_build.py", "README.md"):
        shutil.copy(ROOT / name, folder)
    for name in ("pfa_cli", "recipes"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    git = ("git", "-c", "user.name=n", "-c", "user.email=e@example.org")
    run("git", "init", "-q", folder=folder)
    run("git", "add", ".", folder=folder)
    run(*git, "commit", "-qm", "first", folder=folder)
    return folder


def version_of(archive: Path, folder: Path) -> str:
    """What the built wheel calls itself."""
    run(sys.executable, "-m", "zipfile", "-e", str(archive), str(folder), folder=folder)
    return run(sys.executable, "-m", "pfa_cli", "--version", folder=folder, PYTHONPATH=str(folder))


def built(source: Path, folder: Path, kind: str = "wheel") -> Path:
    folder.mkdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder), folder=source)
    (archive,) = folder.iterdir()
    return archive


def test_a_wheel_knows_its_commit_and_whether_it_differs(checkout: Path, tmp_path: Path) -> None:
    sha = run("git", "rev-parse", "HEAD", folder=checkout)[:12]
    assert version_of(built(checkout, tmp_path / "clean"), tmp_path / "clean") == f"pfa {__version__} ({sha})"
    assert not (checkout / "pfa_cli" / "_build.py").exists()
    assert run("git", "status", "--porcelain", folder=checkout) == ""

    changed = tmp_path / "changed"
    shutil.copytree(checkout, changed)
    (changed / "pfa_cli" / "new.py").write_text("")
    wheel = built(changed, tmp_path / "dirty")
    assert version_of(wheel, tmp_path / "dirty") == f"pfa {__version__} ({sha}, with changes)"


def test_a_source_archive_hands_its_commit_on_and_without_git_there_is_none(
    checkout: Path, tmp_path: Path
) -> None:
    sha = run("git", "rev-parse", "HEAD", folder=checkout)[:12]
    archive = built(checkout, tmp_path / "sdist", "sdist")
    with tarfile.open(archive) as packed:  # which this project made
        packed.extraction_filter = staticmethod(lambda member, path: member)
        packed.extractall(tmp_path / "unpacked")
    (source,) = (tmp_path / "unpacked").iterdir()
    assert version_of(built(source, tmp_path / "wheel"), tmp_path / "wheel") == f"pfa {__version__} ({sha})"

    (source / "pfa_cli" / "_build.py").unlink()
    run("git", "init", "-q", folder=tmp_path)  # another project's checkout around it
    wheel = built(source, tmp_path / "unknown")
    assert version_of(wheel, tmp_path / "unknown") == f"pfa {__version__} (of an unknown commit)"


def test_a_checkout_is_asked_when_it_runs() -> None:
    sha = run("git", "rev-parse", "HEAD", folder=ROOT)[:12]
    assert sha in run(sys.executable, "-m", "pfa_cli", "--version", folder=ROOT)
