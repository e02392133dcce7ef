"""Checksums of the rows of simulations and benchmarks."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds the columns, empty in all rows that are there."""
    op.add_column("simulations", sa.Column("checksum", sa.String))
    op.add_column("benchmarks", sa.Column("checksum", sa.String))
