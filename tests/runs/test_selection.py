"""Choosing runs (`pfa status`, `pfa runs`), ranking them (`pfa best`), and what `pfa runs` changes."""

import json
from pathlib import Path

import pytest
import run_cases
from command_line import Call
from run_cases import add_run
from sqlalchemy import func, select

from pfa_cli.errors import UsageError
from pfa_cli.runs import status
from pfa_cli.runs.selection import Selection, in_order
from pfa_cli.store import schema
from pfa_cli.store.engine import open_store
from pfa_cli.store.owner import Owner

RATES = (0.1, 0.2, 0.3)
NAMED = ("recipe", "algos", "state")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PFA with three learning rates and two seeds, validated; BP without validation; one of it failed, one running."""
    path = tmp_path_factory.mktemp("selection") / "pfa.db"
    with open_store(str(path), write=True) as store:
        for seed in (0, 1):
            for rate in RATES:
                add_run(
                    store, "pfa", seed, state="done", settings={"learning_rate": rate, "validation_images": 64},
                    validation_accuracy_percent=90 + 10 * rate + seed, test_accuracy_percent=95 - 10 * rate,
                )  # fmt: skip
        add_run(store, "bp", 0, state="failed", error="it broke")
        add_run(store, "bp", 1)
    return path


@pytest.fixture
def rows(database: Path) -> list[status.StatusRow]:
    with open_store(str(database), write=False) as store:
        return status.rows(store)


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ({}, 8),
        ({"algos": "pfa"}, 6),
        ({"algos": "bp,pfa", "state": "done"}, 6),
        ({"state": "failed,running"}, 2),
        ({"recipe": "mnist"}, 8),
        ({"where": ["learning_rate=1e-1"]}, 2),
        ({"where": ["learning_rate=0.1,0.2", "seed=1"]}, 2),
        ({"where": ["expansion=10"]}, 6),
        ({"where": ["b_density=1"]}, 6),  # a default
        ({"where": ["hidden_sizes=[32, 32]"]}, 8),
        ({"where": ["state=done"], "ids": ["1-3", "7"]}, 3),
    ],
)
def test_runs_are_chosen(rows: list[status.StatusRow], words: dict[str, list[str]], chosen: int) -> None:
    assert len(Selection.parse(**words).of(rows)) == chosen  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"recipe": "minst"}, "unknown recipe in this database 'minst': did you mean 'mnist'"),
        ({"algos": "pal"}, "unknown algorithm in this database 'pal'"),
        ({"state": "fialed"}, "did you mean 'failed'"),
        (
            {"where": ["learning_rat=1"]},
            "unknown setting or column 'learning_rat': did you mean 'learning_rate'",
        ),
        ({"where": ["seed"]}, "--where seed: write it as key=value"),
        ({"ids": ["9"]}, "there is no run 9 in this database"),
        ({"ids": ["1-99999999999999"]}, "there is no run 9 in this database"),
        *(
            ({"ids": [wrong], "algos": "bp"}, "runs are named by their numbers")
            for wrong in ("x", "7-5", ",")
        ),
        *(({name: wrong}, f"--{name} {wrong!r} names nothing") for name in NAMED for wrong in ("", ", ")),
    ],
)
def test_a_misspelled_choice_is_a_usage_error(
    rows: list[status.StatusRow], words: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(UsageError) as error:
        Selection.parse(**words).of(rows)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_the_highest_accuracy_comes_first_and_what_is_missing_last(rows: list[status.StatusRow]) -> None:
    assert [row.validation_accuracy_percent for row in in_order(rows, "validation")][:3] == [94, 93, 93]
    assert in_order(rows, "validation")[-1].algorithm == "bp"
    assert [row.settings["learning_rate"] for row in in_order(rows, "learning_rate")][-2:] == [0.3, 0.3]
    with pytest.raises(UsageError, match="unknown column or setting 'tset': did you mean 'test'"):
        in_order(rows, "tset")


def test_status_takes_them(call: Call, database: Path) -> None:
    done = call("status", "--where=seed=1", "--algos=pfa", "--sort=test", "--db", str(database))
    lines = [line.split() for line in done.out.splitlines() if " seed 1" in line]
    assert [line[:3] for line in lines] == [
        [str(4 + n), "pfa", f"learning_rate={RATES[n]}"] for n in range(3)
    ]
    assert call("status", "--state=stale", "--db", str(database)).out == "no such runs\n"
    first = json.loads(call("status", "--json", "--where=seed=1", "--db", str(database)).out)[0]
    assert first["settings"]["hidden_sizes"] == [32, 32] and first["run_id"] == 8


def test_at_80_columns_validation_test_and_numbers_are_shown(call: Call, database: Path) -> None:
    head = call("status", "--db", str(database)).out.splitlines()[2].split()
    assert head[:2] == ["id", "run"] and {"valid.", "test"} <= set(head)


def test_best_ranks_by_validation_and_never_by_test(call: Call, database: Path) -> None:
    done = call("best", "mnist", "--db", str(database))
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines() if "learning_rate" in line]
    assert lines == [
        [str(place), "pfa", f"learning_rate={rate}", "2", f"{90.5 + 10 * rate:.2f}", "±", "0.71",
         f"{95 - 10 * rate:.2f}", "±", "0.00"]
        for place, rate in enumerate(reversed(RATES), start=1)
    ]  # fmt: skip
    assert "2 runs left out" in done.out
    top = json.loads(call("best", "mnist", "--json", "--db", str(database)).out)[0]
    assert (top["n"], top["seeds"], top["mean"], top["diverged"]) == (2, [0, 1], 93.5, 0)
    only = call("best", "mnist", "--where=learning_rate=0.1,0.2", "--db", str(database))
    assert "0.3" not in only.out and "learning_rate=0.2" in only.out
    assert "the test set chooses nothing" in call("best", "mnist", "--by=test", "--db", str(database)).err
    without = call("best", "mnist", "--algos=bp", "--db", str(database))
    assert without.code == 1 and "--set validation_images=5000" in without.err


def test_best_ranks_runs_of_other_lengths_apart_the_longest_first(call: Call, tmp_path: Path) -> None:
    db = str(tmp_path / "pfa.db")
    with open_store(db, write=True) as store:
        for rate, total, accuracy in ((0.1, 10, 90.0), (0.2, 10, 91.0), (0.1, 2, 95.0)):
            add_run(
                store, "bp", state="done", total=total, settings={"learning_rate": rate, "validation_images": 64},
                validation_accuracy_percent=accuracy,
            )  # fmt: skip
    ranked = json.loads(call("best", "mnist", "--json", "--db", db).out)
    assert [(one["epochs"], one["rank"], one["mean"]) for one in ranked] == [
        (10, 1, 91),
        (10, 2, 90),
        (2, 1, 95),
    ]
    shown = call("best", "mnist", "--db", db).out
    assert shown.index("for 10 epochs:") < shown.index("91.00") < shown.index("90.00")
    assert shown.index("90.00") < shown.index("for 2 epochs:") < shown.index("95.00")
    assert "ranked apart" in shown


@pytest.fixture
def own(tmp_path: Path) -> str:
    """Three done runs, a live one, and a checkpoint of the first."""
    path = tmp_path / "pfa.db"
    with open_store(str(path), write=True) as store:
        for seed in range(3):
            add_run(store, "bp", seed, state="done", epochs=2, total=2)
        add_run(store, "fa", 0, owner=Owner.current())
    (cell,) = run_cases.plan(["bp"], epochs=2).cells
    folder = tmp_path / "pfa.db.checkpoints" / f"mnist-bp-seed0-{cell.configuration.hash}"
    folder.mkdir(parents=True)
    (folder / "x").touch()
    return str(path)


def counts(db: str) -> dict[str, int]:
    with open_store(db, write=False) as store:
        return {
            table.name: store.read(lambda c, table=table: c.execute(select(func.count()).select_from(table)).scalar())
            for table in (schema.runs, schema.attempts, schema.epochs)
        }  # fmt: skip


def test_delete_names_the_runs_first_and_takes_epochs_and_checkpoints_along(call: Call, own: str) -> None:
    before = counts(own)
    told = call("runs", "delete", "1", "3", "--db", own)
    assert told.code == 0 and "2 runs would be deleted" in told.out and counts(own) == before
    assert call("runs", "delete", "1", "3", "--yes", "--db", own).out == "deleted 2 runs\n"
    assert counts(own) == {"runs": 2, "attempts": 2, "epochs": before["epochs"] - 6}
    assert not list(Path(f"{own}.checkpoints").iterdir())


def test_a_run_in_training_is_left_alone(call: Call, own: str) -> None:
    for command in ("delete", "rerun"):
        refused = call("runs", command, "--algos=fa", "--yes", "--db", own)
        assert refused.code == 2 and "run 4 is being trained" in refused.err
    assert counts(own)["runs"] == 4


def test_nothing_is_chosen_by_saying_nothing(call: Call, own: str) -> None:
    for command in (["delete"], ["rerun"], ["tag", "x"], ["note", "x"]):
        assert "name the runs by their numbers" in call("runs", *command, "--yes", "--db", own).err


def test_tags_and_notes(call: Call, own: str) -> None:
    assert "3 runs would get the tags a, b" in call("runs", "tag", "a,b", "1-3", "--db", own).out
    call("runs", "tag", "a,b", "1-3", "--yes", "--db", own)
    call("runs", "tag", "b", "2", "--remove", "--yes", "--db", own)
    call("runs", "note", "too \x1b[2J long", "--where=tag=b", "--yes", "--db", own)
    rows = json.loads(call("runs", "list", "--json", "--db", own).out)
    found = {row["run_id"]: (row["tags"], row["note"]) for row in rows}
    assert found == {
        1: (["a", "b"], "too \x1b[2J long"), 2: (["a"], None), 3: (["a", "b"], "too \x1b[2J long"), 4: ([], None),
    }  # fmt: skip
    shown = call("runs", "list", "--where=tag=b", "--db", own).out
    assert "a, b" in shown and "\\u001b" in shown and "\x1b" not in shown
    assert "no word" in call("runs", "tag", " , ", "1", "--db", own).err


def test_numbers_before_the_tag_or_the_note_are_refused_with_the_right_command(call: Call, own: str) -> None:
    for given, right in (
        (("tag", "1", "keep"), "the tag comes first, then the numbers of the runs: `pfa runs tag keep 1`"),
        (("tag", "1-2", "3", "a,b"), "`pfa runs tag a,b 1-2 3`"),
        (("note", "1", "too long"), "the note comes first, then the numbers of the runs: `pfa runs note 'too long' 1`"),
    ):  # fmt: skip
        refused = call("runs", *given, "--yes", "--db", own)
        assert refused.code == 2 and right in " ".join(refused.err.split())
    assert "would get the tags 2026" in call("runs", "tag", "2026", "1", "--db", own).out


def test_rerun_trains_from_the_start(call: Call, tmp_path: Path) -> None:
    db = str(tmp_path / "pfa.db")
    settings = ["--set=train_images=64", "--set=test_images=10", "--set=hidden_sizes=[8]", "--epochs=1"]
    assert call("run", "mnist", "--algos=bp", *settings, "--db", db).code == 0
    call("runs", "tag", "kept", "1", "--yes", "--db", db)
    first = counts(db)
    assert "1 run would lose all epochs" in call("runs", "rerun", "1", "--db", db).out and counts(db) == first
    again = call("runs", "rerun", "1", "--yes", "--db", db)
    assert again.code == 0 and "begins" in again.out, again
    assert counts(db) == first
    (row,) = json.loads(call("runs", "list", "--json", "--db", db).out)
    assert (row["run_id"], row["state"], row["tags"], row["attempts"]) == (1, "done", ["kept"], 1)


def test_what_one_process_does_is_refused_to_several(
    call: Call, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = counts(own)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    for command in (["runs", "rerun", "1", "--yes"], ["reproduce"]):
        refused = call(*command, "--db", own)
        assert refused.code == 2 and "is one process" in refused.err
    assert counts(own) == before
