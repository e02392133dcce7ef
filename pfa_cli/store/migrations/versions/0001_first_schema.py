"""The first schema: runs with their attempts, epochs and layers; simulations; benchmarks."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("recipe", sa.String, nullable=False),
        sa.Column("algorithm", sa.String, nullable=False),
        sa.Column("seed", sa.Integer, nullable=False),
        sa.Column("config_hash", sa.String, nullable=False),
        sa.Column("configuration", _JSON, nullable=False),
        sa.Column("dataset", sa.String),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("token", sa.String),
        sa.Column("host", sa.String),
        sa.Column("pid", sa.Integer),
        sa.Column("process_started", sa.Double),
        sa.Column("heartbeat_at", sa.DateTime),
        sa.Column("epochs_total", sa.Integer, nullable=False),
        sa.Column("epochs_done", sa.Integer),
        sa.Column("diverged_epoch", sa.Integer),
        sa.Column("checkpoint", sa.String),
        sa.Column("error", sa.String),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("started_at", sa.DateTime),
        sa.Column("finished_at", sa.DateTime),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("recipe", "algorithm", "seed", "config_hash", name="uq_runs"),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("token", sa.String, nullable=False),
        sa.Column("host", sa.String),
        sa.Column("pid", sa.Integer),
        sa.Column("git_sha", sa.String),
        sa.Column("git_dirty", sa.Boolean),
        sa.Column("argv", _JSON),
        sa.Column("pfa_version", sa.String),
        sa.Column("python_version", sa.String),
        sa.Column("torch_version", sa.String),
        sa.Column("cuda_version", sa.String),
        sa.Column("device", sa.String),
        sa.Column("threads", sa.Integer),
        sa.Column("precision", sa.String),
        sa.Column("deterministic", _JSON),
        sa.Column("dataset", sa.String),
        sa.Column("resumed_epoch", sa.Integer),
        sa.Column("facts", _JSON),
        sa.Column("started_at", sa.DateTime, nullable=False),
        sa.Column("ended_at", sa.DateTime),
        sa.Column("outcome", sa.String),
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_attempts_runs", ondelete="CASCADE"),
    )
    op.create_index("ix_attempts_run_id", "attempts", ["run_id"])
    op.create_table(
        "epochs",
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("attempt_id", sa.Integer),
        sa.Column("learning_rate", sa.Double),
        sa.Column("weight_decay", sa.Double),
        sa.Column("train_loss", sa.Double),
        sa.Column("train_accuracy_percent", sa.Double),
        sa.Column("validation_loss", sa.Double),
        sa.Column("validation_accuracy_percent", sa.Double),
        sa.Column("validation_top5_accuracy_percent", sa.Double),
        sa.Column("test_loss", sa.Double),
        sa.Column("test_accuracy_percent", sa.Double),
        sa.Column("test_top5_accuracy_percent", sa.Double),
        sa.Column("seconds", sa.Double),
        sa.Column("images_per_second", sa.Double),
        sa.Column("diverged", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "epoch", name="pk_epochs"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_epochs_runs", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_epochs_attempts"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "layers",
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("layer_index", sa.Integer, nullable=False),
        sa.Column("layer", sa.String, nullable=False),
        sa.Column("weight_norm", sa.Double, nullable=False),
        sa.Column("weight_angle_degrees", sa.Double),
        sa.Column("weight_norm_ratio", sa.Double),
        sa.Column("path_angle_degrees", sa.Double),
        sa.Column("path_norm_ratio", sa.Double),
        sa.Column("error_angle_degrees", sa.Double),
        sa.PrimaryKeyConstraint("run_id", "epoch", "layer_index", name="pk_layers"),
        sa.ForeignKeyConstraint(
            ["run_id", "epoch"],
            ["epochs.run_id", "epochs.epoch"],
            name="fk_layers_epochs",
            ondelete="CASCADE",
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "simulations",
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("parameters_hash", sa.String, nullable=False),
        sa.Column("quantity", sa.String, nullable=False),
        sa.Column("item", sa.Integer, nullable=False),
        sa.Column("parameters", _JSON, nullable=False),
        sa.Column("value", sa.Double),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("kind", "parameters_hash", "quantity", "item", name="pk_simulations"),
    )
    op.create_table(
        "benchmarks",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("machine", _JSON, nullable=False),
        sa.Column("recipe", sa.String, nullable=False),
        sa.Column("measure", sa.String, nullable=False),
        sa.Column("algorithm", sa.String),
        sa.Column("value", sa.Double),
        sa.Column("unit", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_benchmarks"),
    )
