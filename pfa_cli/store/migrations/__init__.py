"""How a database of an earlier schema becomes one of today's: one file per revision, run by alembic.

A column that may be empty, as that of a metric (`pfa_cli.records`), needs none of this: an upgrade adds those that a
database lacks. Any other change of the schema is: the change in ``schema.py``; a file ``versions/000N_what.py`` that makes
the same change (it never refers to ``schema.py``, which moves on); the new number in ``SCHEMA_REVISION``; and a kept
database of the new revision in ``tests/store/kept``. Revisions are numbers of four digits, in order. A revision that
changes what ``checksums.py`` covers has to compute the checksums anew.
"""

from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from pfa_cli.store.errors import DamagedValue
from pfa_cli.store.schema import add_missing_columns
from pfa_cli.store.server import lock_upgrade
from pfa_cli.store.sqlite import broken_references
from pfa_cli.store.views import drop_views, make_views


def scripts() -> ScriptDirectory:
    """The revisions that ship with pfa."""
    folder = Path(__file__).parent
    return ScriptDirectory(str(folder), version_locations=[str(folder / "versions")])


def upgrade(connection: Connection) -> None:
    """Brings an empty or older database to the newest schema in one transaction, which it begins and ends.

    Several processes may do so at once: the first one does the work while the others wait.
    """
    _check_references(connection, "OFF")  # rebuilding a table drops it, which would take its children along
    try:
        with connection.begin():
            lock_upgrade(connection)
            _upgrade(connection)
            if connection.dialect.name == "sqlite":
                for broken in broken_references(connection):
                    raise DamagedValue(broken)
    finally:
        _check_references(connection, "ON")


def _check_references(connection: Connection, on: str) -> None:
    """Beside SQLAlchemy, which would begin a transaction; there the pragma has no effect."""
    if connection.dialect.name == "sqlite":
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute(f"PRAGMA foreign_keys = {on}")


def _upgrade(connection: Connection) -> None:
    context = MigrationContext.configure(connection)
    all_scripts = scripts()
    missing = list(all_scripts.iterate_revisions("head", context.get_current_revision() or "base"))
    drop_views(connection)
    with Operations.context(context):
        for script in reversed(missing):
            script.module.upgrade()
    add_missing_columns(connection)
    make_views(connection)
    context.stamp(all_scripts, "head")
