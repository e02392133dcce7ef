"""Which commit the code that runs is of."""

import importlib
import subprocess
from functools import cache
from pathlib import Path

import pfa_cli

PACKAGE = Path(pfa_cli.__file__).parent


@cache
def commit(package: Path = PACKAGE) -> tuple[str | None, bool | None]:
    """The commit, and whether the code differs from it: of the checkout that ``package`` is part of, else of its build.

    (None, None) for a package that was built without git, also where its environment lies in another project's checkout.
    """
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        try:
            build = importlib.import_module("pfa_cli._build")  # hatch_build.py writes it
        except ModuleNotFoundError:
            return None, None
        return build.COMMIT, build.DIRTY
    changes = _git(package, "status", "--porcelain", "--", ".")
    return _git(package, "rev-parse", "HEAD"), None if changes is None else bool(changes)


def version() -> str:
    """The version with its commit, as `pfa --version` shows it."""
    sha, dirty = commit()
    if sha is None:
        return f"pfa {pfa_cli.__version__} (of an unknown commit)"
    return f"pfa {pfa_cli.__version__} ({sha[:12]}{', with changes' if dirty else ''})"


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
