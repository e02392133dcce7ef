"""Values come back as they went in: NaN, infinity and None apart, times in UTC."""

import math
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import text
from store_cells import claimed, stored

from pfa_cli.records import EpochRecord, LayerRecord
from pfa_cli.store.check import check
from pfa_cli.store.engine import open_store
from pfa_cli.store.queries import epochs_frame, runs
from pfa_cli.store.schema import Real, UtcTime
from pfa_cli.store.writer import record_epoch


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, 0.0, 5e-324, 0.1, -1.7e308])
def test_a_number_comes_back_as_it_went_in(db: str, value: float | None) -> None:
    with open_store(db, write=True) as store:
        mine = claimed(store)
        layer = LayerRecord(0, "layer1", math.nan, path_norm_ratio=value)
        record_epoch(store, mine, EpochRecord(0, train_loss=value, layers=(layer,)))
        loss = stored(store, "epochs")[0].train_loss
        ratio = stored(store, "layers")[0].path_norm_ratio
        norm = stored(store, "layers")[0].weight_norm
        assert repr(loss) == repr(ratio) == repr(value)
        assert repr(runs(store)[0].train_loss) == repr(value)
        assert math.isnan(norm)
        assert repr(epochs_frame(store)["train_loss"].item()) == repr(math.nan if value is None else value)
    assert check(db).ok  # the checksums, too


def test_nan_can_be_told_from_null_in_plain_sql(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "pfa.db"), write=True) as store:
        record_epoch(store, claimed(store), EpochRecord(0, train_loss=math.nan))
        kinds = text("SELECT typeof(train_loss), typeof(test_loss) FROM epochs")
        assert store.read(lambda c: c.execute(kinds).one()) == ("text", "null")


def test_a_database_that_knows_nan_gets_it_as_it_is() -> None:
    from sqlalchemy.dialects import postgresql, sqlite

    assert math.isnan(Real().bind_processor(postgresql.dialect())(math.nan))
    assert Real().bind_processor(sqlite.dialect())(math.nan) == "nan"


def test_times_are_stored_in_utc_whatever_their_zone() -> None:
    from sqlalchemy.dialects import sqlite

    noon = datetime(2024, 5, 1, 12, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=2)))
    stored = UtcTime().process_bind_param(noon, sqlite.dialect())
    assert stored == datetime(2024, 5, 1, 10, 0, 0, 250_000)
    read = UtcTime().dialect_impl(sqlite.dialect()).result_processor(sqlite.dialect(), None)
    assert read("2024-05-01 10:00:00.250000") == noon.astimezone(UTC)
