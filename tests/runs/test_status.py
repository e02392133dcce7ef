"""`pfa status`: what it says of runs in every state, on terminals of every size, and as JSON."""

import io
import json
import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import run_cases
from rich.console import Console
from run_cases import add_run as run
from sqlalchemy import select, update

from pfa_cli.records import EpochRecord
from pfa_cli.runs import status
from pfa_cli.store import schema, writer
from pfa_cli.store.engine import Store, open_store
from pfa_cli.store.owner import Owner

HERE = Owner.current()
DEAD = Owner(HERE.host, 2**22 + 1, 1.0)  # no Linux process has a number as high
ELSEWHERE = Owner("elsewhere", 7, 1.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "pfa.db"), write=True) as store:
        yield store


def shown(
    store: Store, *, width: int = 80, height: int = 24, terminal: bool = True, whole: bool = False
) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=terminal, color_system=None)
    console.print(status.StatusTable(status.rows(store), whole=whole))
    return out.getvalue()


def test_states_are_those_of_now(store: Store) -> None:
    run(store, "bp", state="queued")
    run(store, "fa", epochs=3)
    run(store, "dfa", owner=DEAD, epochs=1)
    run(store, "sf", owner=ELSEWHERE, epochs=1)
    run(store, "kp", state="done", epochs=10)
    run(store, "wm", state="failed", error="it broke")
    run(store, "pal", state="interrupted", epochs=2)
    rows = status.rows(store)
    assert [(row.algorithm, row.state, row.epochs_done) for row in rows] == [
        ("bp", "queued", 0),
        ("fa", "running", 3),
        ("dfa", "stale", 1),
        ("sf", "running", 1),
        ("kp", "done", 10),
        ("wm", "failed", 0),
        ("pal", "interrupted", 2),
    ]
    assert [row.attempts for row in rows] == [0, 1, 1, 1, 1, 1, 1]
    text = shown(store)
    assert text.startswith("7 runs, ")
    assert "1 done, 2 running, 1 stale, 1 interrupted, 1 failed, 1 queued" in " ".join(text.split())
    assert "failed: wm seed 0: it broke" in text
    assert f"stale: dfa seed 0: no process of {HERE.host} is at work on it; `pfa run` resumes it" in " ".join(
        text.split()
    )


def test_a_stale_run_of_another_host_may_have_a_clock_that_is_behind(store: Store) -> None:
    run(store, "bp", owner=ELSEWHERE, epochs=1)
    with store.write() as connection:
        long_ago = datetime.now(UTC) - timedelta(minutes=30)
        connection.execute(update(schema.runs).values(heartbeat_at=long_ago))
    said = " ".join(shown(store).split())
    assert (
        f"no process of {ELSEWHERE.host} is at work on it, unless its clock is behind: `pfa run` looks before"
        in said
    )


def test_time_left_waits_for_two_epochs_and_counts_the_epochs_done(store: Store) -> None:
    run(store, "bp", epochs=1)
    assert status.rows(store)[0].eta_seconds is None
    run(store, "bp", 1, epochs=1)
    assert [row.eta_seconds for row in status.rows(store)] == [90.0, 90.0]
    run(store, "fa", state="queued")
    run(store, "dfa", state="interrupted", epochs=5)
    rows = status.rows(store)
    assert [row.eta_seconds for row in rows] == [90.0, 90.0, 100.0, None]
    assert "4 runs, 2 min 20 s left" in shown(store)  # (90 + 90 + 100) / 2 workers


def test_settings_in_which_runs_differ_are_named(store: Store) -> None:
    run(store, "bp", total=10)
    run(store, "bp", total=40)
    run(store, "fa")
    assert [row.variant for row in status.rows(store)] == ["epochs=10", "epochs=40", ""]


def test_the_images_of_trials_are_named_where_runs_of_the_recipe_differ_in_them(store: Store) -> None:
    run(store, "bp", settings={"train_images": 2000})
    run(store, "fa", settings={"train_images": 2000})
    assert [row.variant for row in status.rows(store)] == ["", ""]
    run(store, "mix", settings={"train_images": 1000})
    run(store, "pfa")
    named = {row.algorithm: row.variant for row in status.rows(store)}
    assert named == {
        "bp": "train_images=2000", "fa": "train_images=2000", "mix": "train_images=1000", "pfa": "train_images=640",
    }  # fmt: skip


def test_milestones_tell_runs_apart_where_nothing_else_does(store: Store) -> None:
    for settings in ({"milestones": [3]}, {"milestones": [5]}, {"epochs": 20}):
        run(store, "bp", settings=settings)
    assert [row.variant for row in status.rows(store)] == [
        "epochs=10 milestones=[3]",
        "epochs=10 milestones=[5]",
        "epochs=20 milestones=[10,15]",
    ]


def test_a_setting_that_came_later_renames_no_run(store: Store) -> None:
    """Runs of before an option existed have no value of it."""
    run(store, "fa")
    run(store, "fa", 1)
    with store.write() as connection:
        (configuration,) = connection.execute(
            select(schema.runs.c.configuration).where(schema.runs.c.id == 1)
        ).scalars()
        configuration["options"].pop("density")
        connection.execute(
            update(schema.runs).where(schema.runs.c.id == 1).values(configuration=configuration)
        )
    run(store, "fa", settings={"density": 0.5})
    assert [row.variant for row in status.rows(store)] == ["", "", "density=0.5"]


@pytest.mark.parametrize("options", [5, [1], {"a": {"b": []}}, None])
def test_settings_that_no_pfa_wrote_are_passed_over(store: Store, options: object) -> None:
    run(store, "bp")
    run(store, "bp", 1)
    with store.write() as connection:
        strange = {"options": options, "sources": options, "epochs": "ten", "dataset_options": 7}
        connection.execute(update(schema.runs).where(schema.runs.c.id == 1).values(configuration=strange))
    assert {row.run_id for row in status.rows(store)} == {1, 2}
    assert json.loads(status.as_json(status.rows(store)))


def sweep(store: Store) -> None:
    for expansion in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0):
        run(store, "pfa", state="done", epochs=10, settings={"expansion": expansion})


def test_variants_come_in_the_order_of_their_numbers(store: Store) -> None:
    sweep(store)
    assert [row.variant.removeprefix("expansion=") for row in status.rows(store)] == [
        "1", "2", "5", "10", "20", "50", "100",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [40, 60, 80])
def test_what_tells_variants_apart_is_never_cut(store: Store, width: int) -> None:
    sweep(store)
    run(store, "pfa", 1, epochs=3)
    for height in (16, 30):  # by variant, and every run
        lines = shown(store, width=width, height=height).splitlines()
        assert max(map(len, lines)) <= width
        for expansion in (1, 10, 100):
            assert [line for line in lines if re.match(rf"[ \d]* pfa expansion={expansion} ", line)]
        assert not [line for line in lines if "…" in line]


def test_more_than_a_screenful_is_counted_by_algorithm(store: Store) -> None:
    sweep(store)
    run(store, "bp", epochs=3)
    run(store, "bp", 1, state="queued")
    lines = [line.split() for line in shown(store, height=8).splitlines() if line.strip()]
    assert lines[-3] == ["mnist", "bp", "1", "1", "running,", "1", "queued", "3/20"]
    assert lines[-2] == ["mnist", "pfa", "7", "7", "done", "70/70"]
    assert lines[-1][:4] == ["`pfa", "status", "|", "less`"]
    by_variant = shown(store, height=16).splitlines()
    assert sum("expansion=" in line for line in by_variant) == 7


def test_where_there_is_no_room_columns_go_before_names_break(store: Store) -> None:
    for total in (10, 4000):  # each named by its epochs, which makes the names long
        run(store, "pfa-o", total=total, epochs=5, train_accuracy_percent=90.0)
    for width, columns in ((200, ("train %", "test %", "images/s")), (70, ("test %",))):
        text = shown(store, width=width, terminal=False)
        assert "pfa-o epochs=4000 seed 0" in text and max(map(len, text.splitlines())) <= width
        assert all(column in text for column in columns)
    assert "train %" not in text


@pytest.mark.parametrize("width", [60, 80])
def test_a_list_of_runs_never_leaves_out_their_numbers(store: Store, width: int) -> None:
    for total in (10, 4000):
        run(store, "pfa-o", total=total, epochs=5, validation_accuracy_percent=87.65)
    with store.write() as connection:
        connection.execute(update(schema.runs).values(diverged_epoch=1, state="done"))
    text = shown(store, width=width, whole=True)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    for number in ("1", "2"):
        assert [line for line in lines if line.split()[:2] == [number, "pfa-o"] and "87.65" in line]
    assert width < 80 or "test %" in text
    assert ("id" in shown(store, width=width).split()) == (width == 80)


def test_a_diverged_run_says_so(store: Store) -> None:
    (cell,) = run_cases.plan(["bp"]).cells
    run_id = writer.ensure_run(store, cell.configuration, 0)
    claim = writer.claim(store, run_id, HERE, is_alive=lambda row: False)
    assert claim is not None
    writer.record_epoch(store, claim, EpochRecord(0))
    writer.record_epoch(
        store, claim, EpochRecord(1, train_loss=math.nan, test_accuracy_percent=math.nan, diverged=True)
    )
    writer.finish(store, claim, "done")
    assert "done, diverged in epoch 1" in shown(store)
    (row,) = json.loads(status.as_json(status.rows(store)))
    assert (row["diverged_epoch"], row["test_accuracy_percent"], row["train_accuracy_percent"]) == (
        1,
        "nan",
        None,
    )


def test_what_a_later_version_wrote_is_shown_as_it_is(store: Store) -> None:
    run(store, "bp", epochs=1)
    with store.write() as connection:
        connection.execute(update(schema.runs).values(state="paused", algorithm="frsf", recipe="theirs"))
    for height in (5, 24):
        assert "frsf" in shown(store, height=height)
        assert "1 paused" in shown(store, height=height)


@pytest.fixture
def paper(store: Store) -> Store:
    """45 cells, as the paper has them, in all states."""
    for algorithm in ("bp", "fa", "dfa", "sf", "kp", "wm", "pal", "pfa", "pfa-o"):
        run(store, algorithm, 0, state="done", epochs=10)
        run(store, algorithm, 1, state="failed", epochs=2, error="out of memory: " + "long story " * 20)
        run(store, algorithm, 2, owner=DEAD, epochs=2)
        run(store, algorithm, 3, epochs=4)
        run(store, algorithm, 4, state="queued")
    return store


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 50), (100, 30), (200, 60), (200, 24)])
def test_the_papers_cells_fit_the_terminal(paper: Store, width: int, height: int) -> None:
    lines = shown(paper, width=width, height=height).splitlines()
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    for algorithm in ("bp", "pfa-o"):
        assert any(algorithm in line.split()[:2] for line in lines)
    assert any("out of memory" in line for line in lines)


def test_a_tall_terminal_and_a_pipe_get_every_run(paper: Store) -> None:
    for text in (shown(paper, width=120, height=70), shown(paper, terminal=False)):
        assert sum(" seed " in line and "/10" in line for line in text.splitlines()) == 45


def test_json_has_every_run(paper: Store) -> None:
    rows = json.loads(status.as_json(status.rows(paper)))
    assert len(rows) == 45
    first = rows[0]
    assert (first["recipe"], first["algorithm"], first["seed"], first["state"]) == ("mnist", "bp", 0, "done")
    assert (first["epochs_done"], first["epochs_total"], first["test_accuracy_percent"]) == (10, 10, 90.0)
    assert first["heartbeat_at"].endswith("+00:00")


def test_an_empty_database_says_how_to_begin(store: Store) -> None:
    assert "no runs yet: `pfa run mnist`" in shown(store)
    assert json.loads(status.as_json(status.rows(store))) == []


def test_watch_follows_the_database_until_ctrl_c(tmp_path: Path) -> None:
    out = io.StringIO()
    db = tmp_path / "pfa.db"
    opened = []

    def open_it() -> Store:
        opened.append(time.monotonic())
        if len(opened) == 3:
            with open_store(str(db), write=True) as store:
                run(store, "bp", epochs=1)
        if len(opened) == 6:
            signal.raise_signal(signal.SIGINT)
        return open_store(str(db), write=False)

    status.watch(open_it, Console(file=out, width=100), interval=0.01)
    text = out.getvalue()
    assert text.index("no results yet") < text.index("bp seed 0")


def test_neither_torch_nor_pandas_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, pfa_cli.runs.status, pfa_cli.runs.plan, pfa_cli.runs.progress\n"
        "print([name for name in ('torch', 'pandas', 'numpy', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
