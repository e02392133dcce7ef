"""The view ``run_results`` (``views.py``), which every upgrade makes anew."""

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Nothing but that."""
