"""A run's life, who may write to it, and what a resumed attempt replaces."""

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from store_cells import OWNER, claimed, configuration, record, run_to_end, stored

from pfa_cli.records import EpochRecord
from pfa_cli.store import writer
from pfa_cli.store.engine import Store, open_store
from pfa_cli.store.errors import LostCell, StoreError
from pfa_cli.store.owner import Owner
from pfa_cli.store.queries import (
    RunRow,
    attempts_frame,
    epochs_frame,
    layers_frame,
    runs,
    simulations_frame,
)
from pfa_cli.store.writer import (
    Measurement,
    claim,
    ensure_run,
    finish,
    heartbeat,
    record_benchmark,
    record_epoch,
    record_simulation,
    start_attempt,
)

OTHER = Owner("there", 2, 2.0)


@pytest.fixture
def store(db: str) -> Iterator[Store]:
    with open_store(db, write=True) as opened:
        yield opened


def only_run(store: Store) -> RunRow:
    (row,) = runs(store)
    return row


def dead(row: RunRow) -> bool:
    return False


def living(row: RunRow) -> bool:
    return True


def never_asked(row: RunRow) -> bool:
    raise AssertionError(f"asked about a run that is {row.state}")


def test_a_cell_is_queued_once(store: Store) -> None:
    cell = configuration()
    assert ensure_run(store, cell, 0) == ensure_run(store, cell, 0)
    assert ensure_run(store, cell, 1) != ensure_run(store, cell, 0)
    assert ensure_run(store, configuration(expansion=20.0), 0) != ensure_run(store, cell, 0)
    assert ensure_run(store, configuration("bp"), 0) != ensure_run(store, cell, 0)
    rows = runs(store)
    assert len(rows) == 4
    row = next(row for row in rows if row.config_hash == cell.hash and row.seed == 0)
    assert row.configuration == cell.model_dump(mode="json")
    assert (row.recipe, row.algorithm, row.dataset) == ("mnist", "pfa", "mnist")
    assert (row.state, row.epochs_total, row.epochs_done) == ("queued", 3, None)


def test_a_run_from_queued_to_done(store: Store) -> None:
    mine = claimed(store)
    row = only_run(store)
    assert (row.state, row.host, row.pid, row.process_started) == ("running", "here", 1, 1.0)
    assert row.heartbeat_at is not None
    assert row.started_at is not None
    assert row.heartbeat_at >= row.started_at >= row.created_at
    for epoch in range(4):
        record_epoch(store, mine, record(epoch), f"checkpoint-{epoch}")
        row = only_run(store)
        assert (row.epochs_done, row.checkpoint) == (epoch, f"checkpoint-{epoch}")
        assert row.test_accuracy_percent == 90.0 + epoch
        assert row.epochs_measured == epoch
    assert row.seconds_per_epoch == 4.0  # of epochs 1 to 3: 3, 4 and 5 s; nothing is trained in epoch 0
    finish(store, mine, "done")
    row = only_run(store)
    assert (row.state, row.error, row.checkpoint) == ("done", None, "checkpoint-3")
    assert row.finished_at is not None
    assert epochs_frame(store)["epoch"].tolist() == [0, 1, 2, 3]
    assert layers_frame(store)["layer"].tolist() == ["layer1", "layer2"] * 4


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_what_ended_early_can_be_claimed_again(store: Store, state: str) -> None:
    first = claimed(store)
    record_epoch(store, first, record(0), "checkpoint-0")
    finish(store, first, state, error="out of memory", checkpoint="checkpoint-0b")  # type: ignore[arg-type]
    assert (only_run(store).state, only_run(store).error) == (state, "out of memory")
    second = claim(store, first.run_id, OTHER, is_alive=never_asked)
    assert second is not None
    assert second.token != first.token
    assert (second.epochs_done, second.checkpoint) == (0, "checkpoint-0b")
    row = only_run(store)
    assert (row.state, row.host, row.error, row.finished_at) == ("running", "there", None, None)


def test_what_is_done_cannot_be_claimed(store: Store) -> None:
    run_id = run_to_end(store)
    assert claim(store, run_id, OTHER, is_alive=never_asked) is None


def test_what_is_running_can_be_claimed_only_if_it_is_dead(store: Store) -> None:
    first = claimed(store)
    asked = []

    def is_alive(row: RunRow) -> bool:
        asked.append(row)
        return True

    assert claim(store, first.run_id, OTHER, is_alive=is_alive) is None
    assert [(row.id, row.pid, row.process_started) for row in asked] == [(first.run_id, 1, 1.0)]
    heartbeat(store, first)  # still ours
    second = claim(store, first.run_id, OTHER, is_alive=dead)
    assert second is not None
    assert only_run(store).host == "there"


def test_who_lost_the_cell_writes_nothing_more(store: Store) -> None:
    first = claimed(store)
    record_epoch(store, first, record(0))
    second = claim(store, first.run_id, OTHER, is_alive=dead)
    assert second is not None
    for write in (
        lambda: record_epoch(store, first, record(1), "stolen"),
        lambda: record_epoch(store, first, record(0, accuracy=1.0)),
        lambda: heartbeat(store, first),
        lambda: finish(store, first, "failed", error="not mine"),
        lambda: start_attempt(store, first, {}),
    ):
        before = only_run(store)
        with pytest.raises(LostCell):
            write()
        assert only_run(store) == before
    assert epochs_frame(store)["test_accuracy_percent"].tolist() == [90.0]
    record_epoch(store, second, record(1))
    finish(store, second, "done")
    with pytest.raises(LostCell):
        heartbeat(store, second)  # done means over, for its owner too


def test_a_run_that_vanished_is_lost(store: Store) -> None:
    mine = claimed(store)
    with store.write() as connection:
        connection.execute(text("DELETE FROM runs"))
    with pytest.raises(LostCell):
        record_epoch(store, mine, record(0))
    with pytest.raises(LostCell):
        claim(store, mine.run_id, OWNER, is_alive=dead)
    for frame in (epochs_frame(store), layers_frame(store), attempts_frame(store)):
        assert frame.empty


def test_a_resumed_attempt_replaces_the_epochs_it_trains_again(store: Store) -> None:
    first = claimed(store)
    for epoch in range(4):
        record_epoch(store, first, record(epoch, accuracy=10.0), f"checkpoint-{epoch}")
    second = claim(store, first.run_id, OTHER, is_alive=dead)
    assert second is not None
    attempt = start_attempt(store, second, {})
    record_epoch(
        store, second, replace(record(2, accuracy=50.0), layers=record(2).layers[:1]), "checkpoint-2"
    )
    epochs = epochs_frame(store)
    assert epochs["epoch"].tolist() == [0, 1, 2]  # 3 was of the training that is gone
    assert epochs["test_accuracy_percent"].tolist() == [10.0, 11.0, 52.0]
    assert epochs["attempt_id"].tolist() == [attempt - 1, attempt - 1, attempt]
    assert layers_frame(store)["epoch"].tolist() == [0, 0, 1, 1, 2]
    assert (only_run(store).epochs_done, only_run(store).checkpoint) == (2, "checkpoint-2")


def test_an_epoch_without_a_checkpoint_keeps_the_name_of_the_last(store: Store) -> None:
    mine = claimed(store)
    record_epoch(store, mine, record(0), "checkpoint-0")
    record_epoch(store, mine, record(1))
    assert only_run(store).checkpoint == "checkpoint-0"


def test_a_diverged_run_is_a_result(store: Store) -> None:
    mine = claimed(store)
    for epoch in range(4):
        record_epoch(store, mine, record(epoch, diverged=epoch >= 2))
    finish(store, mine, "done")
    row = only_run(store)
    assert (row.state, row.diverged_epoch) == ("done", 2)
    assert row.train_loss is not None
    assert math.isnan(row.train_loss)
    assert epochs_frame(store)["diverged"].tolist() == [False, False, True, True]


def test_training_again_what_diverged_may_end_otherwise(store: Store) -> None:
    mine = claimed(store)
    for epoch, diverged in ((0, False), (1, True), (2, True)):
        record_epoch(store, mine, record(epoch, diverged=diverged))
    record_epoch(store, mine, record(2, diverged=False))
    assert only_run(store).diverged_epoch == 1  # it did, in epoch 1
    record_epoch(store, mine, record(1, diverged=False))
    assert only_run(store).diverged_epoch is None


def test_each_attempt_is_kept_with_its_facts(store: Store) -> None:
    first = claim(store, ensure_run(store, configuration(), 0), OWNER, is_alive=dead)
    assert first is not None
    facts = {
        "git_sha": "abc",
        "git_dirty": True,
        "argv": ["pfa", "run"],
        "threads": 2,
        "deterministic": {"cudnn": True},
    }
    start_attempt(store, first, facts | {"torch_version": "2.11", "colour": "blue"})
    record_epoch(store, first, record(0))
    heartbeat(store, first)
    last_heard = only_run(store).heartbeat_at
    second = claim(store, first.run_id, OTHER, is_alive=dead)
    assert second is not None
    start_attempt(store, second, {"device": "cuda:0"})
    finish(store, second, "interrupted")
    frame = attempts_frame(store)
    assert frame["outcome"].tolist() == ["stale", "interrupted"]
    assert frame["ended_at"].iloc[0] == last_heard
    assert frame["host"].tolist() == ["here", "there"]
    assert frame["resumed_epoch"].fillna(-1).tolist() == [-1, 0]
    assert frame["device"].tolist() == [None, "cuda:0"]
    stored = frame.iloc[0]
    assert {name: stored[name] for name in facts} == facts
    assert stored["torch_version"] == "2.11"
    assert frame["facts"].tolist() == [{"colour": "blue"}, None]


def test_an_epoch_needs_no_attempt(store: Store) -> None:
    mine = claim(store, ensure_run(store, configuration(), 0), OWNER, is_alive=never_asked)
    assert mine is not None
    record_epoch(store, mine, EpochRecord(0))
    assert epochs_frame(store)["attempt_id"].isna().all()


def test_a_simulation_replaces_the_one_of_the_same_parameters(store: Store) -> None:
    record_simulation(
        store, "path", {"expansion": 10, "seed": 0}, {"path_angle_degrees": [17.0, math.nan, 18.0]}
    )
    record_simulation(store, "path", {"expansion": 20, "seed": 0}, {"path_angle_degrees": [12.0]})
    record_simulation(
        store, "path", {"seed": 0, "expansion": 10}, {"path_angle_degrees": [17.5], "path_norm_ratio": [1.05]}
    )
    frame = simulations_frame(store, "path").sort_values(["expansion", "quantity"])
    assert frame["quantity"].tolist() == ["path_angle_degrees", "path_norm_ratio", "path_angle_degrees"]
    assert frame["value"].tolist() == [17.5, 1.05, 12.0]
    assert frame["expansion"].tolist() == [10, 10, 20]
    assert simulations_frame(store, "eigenvalues").empty


def test_benchmarks_are_kept_with_their_machine(store: Store) -> None:
    machine = {"cpu": "x86", "cores": 2}
    record_benchmark(store, machine, "mnist", [Measurement("epoch", 1.5, "seconds", "bp")])
    record_benchmark(store, machine, "mnist", [])
    (row,) = stored(store, "benchmarks")
    assert (row.machine, row.recipe, row.algorithm) == (machine, "mnist", "bp")
    assert (row.measure, row.value, row.unit) == ("epoch", 1.5, "seconds")


def test_the_owner_is_stored_with_its_pid_namespace(store: Store) -> None:
    me = Owner.current()
    assert claim(store, ensure_run(store, configuration(), 0), me, is_alive=never_asked) is not None
    assert only_run(store).pid_namespace == me.pid_namespace


def test_a_clock_set_back_makes_no_negative_durations(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    day = timedelta(days=1)
    start = datetime.now(UTC)
    times = {"now": start, "clock": 0.0}
    monkeypatch.setattr(writer, "_now", lambda: times["now"])
    monkeypatch.setattr(writer, "_clock", lambda: times["clock"])

    def attempt(outcome: str) -> None:
        mine = claim(store, ensure_run(store, configuration(), 0), OWNER, is_alive=dead)
        assert mine is not None
        start_attempt(store, mine, {})
        times["now"], times["clock"] = times["now"] - day, times["clock"] + 60
        heartbeat(store, mine)
        if outcome != "stale":
            finish(store, mine, outcome)  # type: ignore[arg-type]

    for outcome in ("interrupted", "stale", "done"):
        attempt(outcome)
    seconds = (attempts_frame(store)["ended_at"] - attempts_frame(store)["started_at"]).dt.total_seconds()
    assert seconds.tolist() == [60.0, 0.0, 60.0]
    row = only_run(store)
    assert row.started_at is not None and row.finished_at is not None
    assert row.finished_at >= row.started_at
    assert row.heartbeat_at == start - 3 * day  # the time of day, with which others compare theirs


def test_an_epoch_whose_forerunner_the_server_forgot_is_refused(store: Store) -> None:
    mine = claimed(store)
    for epoch in (0, 1):
        record_epoch(store, mine, record(epoch))
    with store.write() as connection:  # as a server does that crashes before it has written what it confirmed
        for table in ("layers", "epochs"):
            connection.execute(text(f"DELETE FROM {table} WHERE epoch = 1"))
        connection.execute(text("UPDATE runs SET epochs_done = 0"))
    with pytest.raises(
        StoreError, match=r"lacks epoch 1 of run 1, which was stored: .* run the same command again"
    ):
        record_epoch(store, mine, record(2))
    record_epoch(store, mine, record(1))
    record_epoch(store, mine, record(2))
    assert epochs_frame(store)["epoch"].tolist() == [0, 1, 2]
