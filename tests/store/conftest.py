"""For the store's tests: both engines, a file of SQLite and a database of a real PostgreSQL server."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import Server, programs


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server for this session of tests."""
    binaries = programs()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("the driver psycopg is not installed (pip install 'psycopg[binary]')")
    started = Server(binaries)
    yield started
    started.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What `--db` names: a new file, or a new and empty database of the server."""
    if request.param == "sqlite":
        return str(tmp_path / "pfa.db")
    new: str = request.getfixturevalue("server").new_database()
    return new
