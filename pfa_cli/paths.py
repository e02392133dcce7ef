"""Files and folders as users name them: on the command line, in the environment, in a recipe."""

import os
import stat
from pathlib import Path

from pfa_cli.errors import PfaError, UsageError


def expanded(name: str | Path) -> Path:
    """The path that a user calls ``name``; ``~`` is the home folder, in ``--out=~/x`` too, where shells leave it.

    Raises:
        UsageError: it names nothing, or there is no such home folder.
    """
    text = str(name)
    if not text or "\0" in text:
        raise UsageError(f"{text!r} is no name of a file or folder")
    path = Path(text)
    if not text.startswith("~"):
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        raise UsageError(
            f"{text}: no home folder is known for it; name the whole path, or ./{text} if that is meant"
        ) from None


def refuse_special(path: Path, cure: str) -> None:
    """PfaError if there is something at ``path`` that is no regular file: a FIFO blocks, a device never ends."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # nothing there, or what opens it says why not
    if stat.S_ISDIR(mode):
        raise PfaError(f"{path} is a folder; {cure}")
    if not stat.S_ISREG(mode):
        raise PfaError(f"{path} is not a regular file; {cure}")


def home_is_known() -> bool:
    """False without HOME where the user has no entry in the passwd database either, as in some containers."""
    return os.path.expanduser("~") != "~"  # noqa: PTH111
