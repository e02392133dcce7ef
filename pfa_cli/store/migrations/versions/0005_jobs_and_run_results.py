"""Slurm's jobs of runs and attempts, and the ranks of an attempt.

And the view ``run_results`` (``views.py``), which every upgrade makes anew.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds the columns, empty in all rows that are there."""
    op.add_column("runs", sa.Column("job", sa.JSON(none_as_null=True)))
    op.add_column("attempts", sa.Column("job_id", sa.String))
    op.add_column("attempts", sa.Column("array_task", sa.Integer))
    op.add_column("attempts", sa.Column("restart_count", sa.Integer))
    op.add_column("attempts", sa.Column("node", sa.String))
    op.add_column("attempts", sa.Column("partition", sa.String))
    op.add_column("attempts", sa.Column("ranks", sa.Integer))
