"""Checksums of epochs; of runs the PID namespace, the checkpoint folder and the text of plug-in files."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the columns, empty in all rows that are there."""
    op.add_column("runs", sa.Column("pid_namespace", sa.String))
    op.add_column("runs", sa.Column("checkpoint_dir", sa.String))
    op.add_column("runs", sa.Column("sources", sa.JSON(none_as_null=True)))
    op.add_column("epochs", sa.Column("checksum", sa.String))
