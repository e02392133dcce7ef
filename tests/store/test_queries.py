"""Light rows and tidy frames: columns, types, order, filters."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy import Connection, text
from store_cells import claimed, configuration, record, run_to_end

from pfa_cli.errors import UsageError
from pfa_cli.store.engine import Store, open_store
from pfa_cli.store.queries import (
    attempts_frame,
    epochs_frame,
    layers_frame,
    runs,
    runs_frame,
    simulations_frame,
)
from pfa_cli.store.tables import KEY, TABLES, table
from pfa_cli.store.writer import ensure_run, record_epoch


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "pfa.db"), write=True) as opened:
        yield opened


def test_rows_come_in_the_order_of_their_keys(store: Store) -> None:
    for algorithm, seed in (("pfa", 1), ("bp", 1), ("pfa", 0)):
        run_to_end(store, algorithm=algorithm, seed=seed)
    assert [(row.algorithm, row.seed) for row in runs(store)] == [("bp", 1), ("pfa", 0), ("pfa", 1)]
    assert len(runs(store, "mnist")) == 3
    assert runs(store, "cifar10") == []
    ids = layers_frame(store)[["run_id", "epoch", "layer_index"]]
    assert ids.equals(ids.sort_values(["run_id", "epoch", "layer_index"]))


def test_the_last_epoch_is_that_of_the_run_and_no_other(store: Store) -> None:
    mine = claimed(store)
    assert runs(store)[0].test_accuracy_percent is None
    assert runs(store)[0].epochs_measured == 0
    for epoch in range(3):
        record_epoch(store, mine, record(epoch))
    run_to_end(store, seed=1, accuracy=50.0)
    ensure_run(store, configuration("bp"), 0)
    found = [
        (r.algorithm, r.seed, r.test_accuracy_percent, r.epochs_measured, r.seconds_per_epoch)
        for r in runs(store)
    ]
    assert found == [("bp", 0, None, 0, None), ("pfa", 0, 92.0, 2, 3.5), ("pfa", 1, 53.0, 3, 4.0)]


def test_frames_have_the_same_keys_and_fixed_types_even_when_empty(store: Store) -> None:
    frames = (runs_frame, epochs_frame, layers_frame, attempts_frame)
    empty = [frame(store) for frame in frames]
    run_to_end(store)
    for frame, before in zip(frames, empty, strict=True):
        after = frame(store)
        assert tuple(after.columns[: len(KEY)]) == KEY
        assert after.dtypes.equals(before.dtypes)
    dtypes = epochs_frame(store).dtypes.astype(str)
    assert dtypes["epoch"] == dtypes["seed"] == "int64"
    assert (
        dtypes["validation_loss"] == dtypes["test_accuracy_percent"] == "float64"
    )  # none, and some, defined
    assert dtypes["diverged"] == "bool"
    assert runs_frame(store).dtypes.astype(str)["started_at"] == "datetime64[us, UTC]"


def test_frames_can_be_narrowed_to_a_recipe(store: Store) -> None:
    run_to_end(store)
    for frame in (runs_frame, epochs_frame, layers_frame, attempts_frame):
        assert len(frame(store, "mnist")) == len(frame(store)) > 0
        assert frame(store, "cifar10").empty


def test_epochs_and_layers_come_as_the_tidy_tables_have_them(store: Store) -> None:
    """They are read by a way of their own, as SQLite stores them: NaN as a text, what is not defined as NULL."""
    for seed in range(2):
        run_to_end(store, seed=seed)
    mine, last = claimed(store, seed=2), record(0)
    layers = (replace(last.layers[0], weight_norm=math.nan), *last.layers[1:])
    record_epoch(store, mine, replace(last, train_loss=math.inf, test_loss=math.nan, layers=layers))
    for name, frame in (("epochs", epochs_frame(store)), ("layers", layers_frame(store))):
        rows = store.read(lambda connection, name=name: connection.execute(table(name)).all())
        expected = pd.DataFrame(rows, columns=list(frame)).astype(frame.dtypes)
        pd.testing.assert_frame_equal(frame, expected)


def test_the_expansion_ratio_is_a_key(store: Store) -> None:
    run_to_end(store, algorithm="bp")
    run_to_end(store, algorithm="pfa")
    ensure_run(store, configuration("pfa", expansion=20.0), 0)
    frame = runs_frame(store)
    assert frame["expansion"].fillna(0).tolist() == [0.0, 10.0, 20.0]
    assert frame["configuration"][2]["options"]["expansion"] == 20.0
    assert "token" not in frame


def test_an_unknown_table_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown table 'epoch': did you mean 'epochs'"):
        table("epoch")


@pytest.mark.parametrize("name", TABLES)
def test_every_table_can_be_narrowed_to_a_recipe(store: Store, name: str) -> None:
    assert store.read(lambda c: c.execute(table(name, "mnist")).all()) == []


def test_all_queries_of_one_read_see_one_state(store: Store) -> None:
    run_to_end(store)
    count = text("SELECT count(*) FROM runs")
    with open_store(str(store.path), write=False) as viewer:

        def look(connection: Connection) -> tuple[int, int]:
            before = connection.execute(count).scalar_one()
            run_to_end(store, seed=before)
            return before, connection.execute(count).scalar_one()

        before, after = viewer.read(look)
        assert before == after
        assert viewer.read(lambda c: c.execute(count).scalar()) == before + 1


def test_simulations_of_all_kinds_stand_together(store: Store) -> None:
    assert simulations_frame(store).empty
    assert simulations_frame(store, "path").empty
