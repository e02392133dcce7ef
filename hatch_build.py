"""Writes into the package which commit it is built from; an installed package has no git to ask.

Hatchling runs it for every build (`[tool.hatch.build.hooks.custom]` in pyproject.toml).
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WHAT_COUNTS = ("pfa_cli", "recipes", "pyproject.toml")  # changes elsewhere change no result


class CommitHook(BuildHookInterface[Any]):
    """Adds ``pfa_cli/_build.py`` to the wheel or source archive, not to the working tree."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        commit, dirty = git_state(root)
        if version == "editable" or (commit is None and (root / "pfa_cli" / "_build.py").exists()):
            return  # a checkout is asked when it runs; a source archive knows from when it was made
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name, "_build.py")
        path.write_text(
            f'"""Which commit this package was built from."""\n\nCOMMIT = {commit!r}\nDIRTY = {dirty!r}\n'
        )
        build_data["force_include"][str(path)] = "pfa_cli/_build.py"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def git_state(root: Path) -> tuple[str | None, bool | None]:
    """The commit of the checkout ``root`` and whether files differ from it; (None, None) if it is no checkout."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():  # within some other project's checkout
        return None, None
    changes = _git(root, "status", "--porcelain", "--", *WHAT_COUNTS)
    return _git(root, "rev-parse", "HEAD"), None if changes is None else bool(changes)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
