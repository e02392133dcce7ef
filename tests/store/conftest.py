"""For the store's tests: both engines, a file of SQLite and a database of a real PostgreSQL server."""

from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What `--db` names: a new file, or a new and empty database of the server."""
    if request.param == "sqlite":
        return str(tmp_path / "pfa.db")
    new: str = request.getfixturevalue("server").new_database()
    return new
