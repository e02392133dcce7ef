"""How a database of an earlier schema becomes one of today's: one file per revision, run by alembic.

A change of the schema is: the change in ``schema.py``; a file ``versions/000N_what.py`` that makes the same
change (it never refers to ``schema.py``, which moves on); the new number in ``SCHEMA_REVISION``; and a kept
database of the new revision in ``tests/store/kept``. Revisions are numbers of four digits, in order.
"""

from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from pfa_cli.store.engine import Store
from pfa_cli.store.errors import DamagedDatabase


def scripts() -> ScriptDirectory:
    """The revisions that ship with pfa."""
    folder = Path(__file__).parent
    return ScriptDirectory(str(folder), version_locations=[str(folder / "versions")])


def upgrade(store: Store) -> None:
    """Brings an empty or older database to the newest schema in one transaction.

    Several processes may do so at once: the first one does the work while the others wait.
    """
    with store.explained(), store.engine.execution_options(write=True).connect() as connection:
        _check_references(
            connection, "OFF"
        )  # rebuilding a table drops it, which would take its children along
        try:
            with connection.begin():
                _upgrade(connection)
                broken = _broken_references(connection)
                if broken:
                    raise DamagedDatabase(
                        store.name, f"rows of {', '.join(broken)} refer to rows that do not exist"
                    )
        finally:
            _check_references(connection, "ON")


def _check_references(connection: Connection, on: str) -> None:
    if (
        connection.dialect.name == "sqlite"
    ):  # beside SQLAlchemy, which would begin a transaction; there it has no effect
        raw = connection.connection.driver_connection
        assert raw is not None
        raw.execute(f"PRAGMA foreign_keys = {on}")


def _upgrade(connection: Connection) -> None:
    context = MigrationContext.configure(connection)
    all_scripts = scripts()
    missing = list(all_scripts.iterate_revisions("head", context.get_current_revision() or "base"))
    with Operations.context(context):
        for script in reversed(missing):
            script.module.upgrade()
    context.stamp(all_scripts, "head")


def _broken_references(connection: Connection) -> list[str]:
    if connection.dialect.name != "sqlite":
        return []
    rows = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    return sorted({str(row[0]) for row in rows})
