"""What a user says of a run: tags and a note."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds the columns, empty in all rows that are there."""
    op.add_column("runs", sa.Column("tags", sa.JSON(none_as_null=True)))
    op.add_column("runs", sa.Column("note", sa.String))
