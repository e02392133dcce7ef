"""The view ``run_results``: one row per run with its settings and results, for people who open the database themselves.

Nothing in pfa reads it. Every upgrade makes it anew (``migrations``), so a change here needs a new revision, an empty one.
"""

from typing import Any

from sqlalchemy import Connection, Select, and_, select

from pfa_cli.store.schema import epochs, runs

RUN_RESULTS = "run_results"

_TEXTS = ("dataset", "network", "hidden_sizes", "precision")
_WHOLE_NUMBERS = ("batch_size", "train_images", "test_images", "validation_images")
_NUMBERS = ("learning_rate", "learning_rate_factor", "momentum", "weight_decay")
_MOST_PERCENT = 100.0


def make_views(connection: Connection) -> None:
    """Makes the view; one of that name must not be there."""
    query = run_results().compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    connection.exec_driver_sql(f"CREATE VIEW {RUN_RESULTS} AS {query}")


def drop_views(connection: Connection) -> None:
    """Removes the view, which would be in the way where a table is made anew."""
    connection.exec_driver_sql(f"DROP VIEW IF EXISTS {RUN_RESULTS}")


def run_results() -> Select[tuple[Any, ...]]:
    """The query of the view. A setting that a run has not is empty; ``options`` are the algorithm's own, as JSON."""
    last, best, validated = epochs.alias("last"), epochs.alias("best"), epochs.alias("validated")
    accuracy = validated.c.validation_accuracy_percent
    best_epoch = (
        select(validated.c.epoch)
        # NaN counts as greater than every number, in SQLite (where it is a text) and in PostgreSQL.
        .where(validated.c.run_id == runs.c.id, accuracy <= _MOST_PERCENT)
        .order_by(accuracy.desc(), validated.c.epoch)
        .limit(1)
        .correlate(runs)
        .scalar_subquery()
    )
    settings = runs.c.configuration
    return select(
        runs.c.id.label("run_id"),
        *(runs.c[name] for name in ("recipe", "algorithm", "seed", "config_hash", "state")),
        *(runs.c[name] for name in ("epochs_total", "epochs_done", "diverged_epoch")),
        last.c.train_loss,
        last.c.train_accuracy_percent,
        last.c.validation_accuracy_percent.label("validation_accuracy_last_epoch_percent"),
        last.c.test_accuracy_percent.label("test_accuracy_last_epoch_percent"),
        best.c.epoch.label("best_validation_epoch"),
        best.c.validation_accuracy_percent.label("validation_accuracy_best_validation_epoch_percent"),
        best.c.test_accuracy_percent.label("test_accuracy_best_validation_epoch_percent"),
        *(settings[name].as_string().label(name) for name in _TEXTS),
        *(settings[name].as_integer().label(name) for name in _WHOLE_NUMBERS),
        *(settings[name].as_float().label(name) for name in _NUMBERS),
        settings[("options", "expansion")].as_float().label("expansion"),
        settings["options"].as_string().label("options"),
        *(runs.c[name] for name in ("tags", "note", "started_at", "finished_at")),
    ).select_from(
        runs.outerjoin(last, and_(last.c.run_id == runs.c.id, last.c.epoch == runs.c.epochs_done)).outerjoin(
            best, and_(best.c.run_id == runs.c.id, best.c.epoch == best_epoch)
        )
    )
