"""The view ``run_results``, seeds beyond 32 bits in PostgreSQL too, and many columns that may be empty.

Every upgrade makes the view anew and adds such columns where they are lacking, so they are not listed here.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """SQLite's integers have 64 bits anyway."""
    if op.get_context().dialect.name == "postgresql":
        op.alter_column("runs", "seed", type_=sa.BigInteger)
