"""Where data sets lie."""

import os
from pathlib import Path

import platformdirs


def default_data_dir() -> Path:
    """The folder that ``PFA_DATA`` names, else the user's cache."""
    named = os.environ.get("PFA_DATA")
    return (
        Path(named).expanduser() if named else platformdirs.user_cache_path("pfa", appauthor=False) / "data"
    )
