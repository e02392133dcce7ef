"""Where data sets lie."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from pfa_cli.errors import PfaError


def default_data_dir() -> Path:
    """The folder that ``PFA_DATA`` names, else the user's cache. PfaError if the user has no home folder."""
    try:
        if named := os.environ.get("PFA_DATA"):
            return Path(named).expanduser()
        cache = platformdirs.user_cache_path("pfa", appauthor=False)
    except RuntimeError:
        cache = Path("~")
    if not cache.is_absolute():
        raise PfaError(
            "this user has no home folder, where data sets would be kept: name a folder with --data-dir or PFA_DATA"
        )
    return cache / "data"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Within it, an error of the system while reading ``path``, of the data folder, is one for a person to mend."""
    try:
        yield
    # RuntimeError: links in a circle, from Path.resolve before Python 3.13.
    except (OSError, RuntimeError) as error:
        reason, where = getattr(error, "strerror", None) or error, getattr(error, "filename", None) or path
        raise PfaError(
            f"cannot read {where}: {reason}. Make it readable, or name another data folder with --data-dir or PFA_DATA"
        ) from None
