"""Databases that hold what this installation does not know: algorithms, recipes, states, hostile names, a cell twice."""

import json
import re
import sqlite3
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from command_line import Call
from synthetic import add_grid, add_run

from pfa_cli import registry
from pfa_cli.analysis.evidence import Evidence
from pfa_cli.analysis.table1 import judge_table
from pfa_cli.registry import Entry
from pfa_cli.report.ledger import ledger
from pfa_cli.store import queries
from pfa_cli.store.engine import Store, open_store

HOSTILE = (
    r'<script>alert(1)</script>"onload="x" \input{/etc/passwd} $\frac{$ & ](javascript:x)'
    + "学习\x1b[2J\u202e|\nb"
)


def written(path: Path) -> Path:
    with open_store(str(path), write=True) as store:
        add_grid(store, "mnist", ["bp", "fa", "sf"], range(2), epochs=2)
    return path


def renamed(path: Path, what: str, old: str, new: str) -> None:
    """The rows of one algorithm or recipe under another name, as a merge from another installation brings them."""
    with sqlite3.connect(path) as connection:
        connection.execute(
            f"UPDATE runs SET {what} = ?, configuration = json_set(configuration, '$.{what}', ?) WHERE {what} = ?",
            (new, new, old),
        )
        connection.execute("UPDATE epochs SET checksum = NULL")  # as in rows of earlier versions
    connection.close()


def test_an_algorithm_whose_code_is_not_here_is_drawn_and_judged(call: Call, tmp_path: Path) -> None:
    renamed(written(tmp_path / "a.db"), "algorithm", "sf", "frsf")
    drawn = call(
        "figures", "--db", "a.db", "--out", "out", "--format", "svg", "--only", "fig2-supplement,table1"
    )
    assert drawn.code == 0, drawn.err
    assert "frsf" in drawn.out
    shown = pd.read_csv(tmp_path / "out" / "fig2-supplement.csv")
    assert set(shown.loc[(shown["algorithm"] == "frsf") & (shown["source"] == "ours"), "panel"]) == {"a", "f"}
    assert ">frsf" in (tmp_path / "out" / "fig2-supplement.svg").read_text()
    table = pd.read_csv(tmp_path / "out" / "table1.csv")
    own = table[table["algorithm"] == "frsf"]
    assert len(own) == 6 and own["paper_verdict"].isna().all()
    for command in (["compare"], ["compare", "--format", "md"], ["report", "--out", "out"], ["status"]):
        found = call(*command, "--db", "a.db")
        assert found.code == 0, found.err
    assert "frsf" in (tmp_path / "out" / "report.html").read_text()


def test_a_tenth_algorithm_of_the_registry_is_drawn_and_judged(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry(
        "frsf", label="FRSF", colour="#123456", no_sign_transport=False, no_separate_phase=True, limit=lambda options: 1 / 0
    )  # fmt: skip
    monkeypatch.setattr(registry, "ALGORITHMS", {**registry.ALGORITHMS, "frsf": entry})
    renamed(written(tmp_path / "a.db"), "algorithm", "sf", "frsf")
    drawn = call(
        "figures", "--db", "a.db", "--out", "out", "--format", "svg", "--only", "fig2-supplement,table1"
    )
    assert drawn.code == 0, drawn.err
    picture = (tmp_path / "out" / "fig2-supplement.svg").read_text()
    assert "#123456" in picture and "fails: limits of FRSF." in picture
    with open_store("a.db", write=False) as store:
        table = judge_table(Evidence(store))
    assert table.columns[-1] == "frsf"
    assert [row.cells["frsf"].verdict for row in table.rows[:3]] == ["✗", "–", "✓"]
    assert {row.cells["frsf"].papers for row in table.rows} == {""}


def test_a_recipe_of_ones_own_has_a_figure(call: Call, tmp_path: Path) -> None:
    renamed(written(tmp_path / "a.db"), "recipe", "mnist", "wide")
    for arguments in ([], ["--recipe", "wide"], ["--only", "training-wide"]):
        drawn = call("figures", "--db", "a.db", "--out", "out", "--format", "svg", *arguments)
        assert drawn.code == 0, drawn.err
        shown = pd.read_csv(tmp_path / "out" / "training-wide.csv")
        assert set(shown["source"]) == {"ours", "theory"}
        panels = shown.dropna(subset="algorithm").groupby("panel")["algorithm"].unique().map(list).to_dict()
        assert panels == {"a": ["bp", "fa", "sf"], "b": ["fa"], "c": ["sf"]}
    assert call("report", "--db", "a.db", "--out", "out").code == 0
    assert "Recipe wide." in (tmp_path / "out" / "report.html").read_text()
    wrong = call("figures", "--db", "a.db", "--recipe", "wid")
    assert (wrong.code, "did you mean 'wide'?" in wrong.err) == (2, True)


def test_hostile_names_run_nothing_and_end_no_command(call: Call, tmp_path: Path) -> None:
    renamed(written(tmp_path / "a.db"), "algorithm", "sf", HOSTILE)
    with open_store("a.db", write=True) as store:
        add_run(store, "mnist", "dfa", 0, epochs=2)
    renamed(tmp_path / "a.db", "algorithm", "dfa", "=cmd|' /C calc'!A0")
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("UPDATE attempts SET host = ?, dataset = ?", (HOSTILE, HOSTILE))
        connection.execute("UPDATE runs SET error = ?, state = 'failed' WHERE algorithm = 'fa'", (HOSTILE,))
        connection.execute("UPDATE layers SET layer = ?  WHERE layer = 'fc1'", (HOSTILE,))
        connection.execute("UPDATE epochs SET checksum = NULL")
    connection.close()
    for command in (
        ["figures", "--format", "svg", "--only", "fig2,fig2-supplement,table1", "--out", "out"],
        ["figures", "--format", "png", "--recipe", "mnist", "--out", "out"],
    ):
        found = call(*command, "--db", "a.db")
        assert found.code == 0, found.err
        assert "\x1b[2J" not in found.out and "\u202e" not in found.out
    for command in ("report", "compare"):
        assert call(command, "--db", "a.db", "--out", "out").code == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "&lt;script&gt;" in page
    assert not re.search(r"<script|<[^>]*\sonload=|\x1b|\u202e", page)
    for picture in (tmp_path / "out").glob("*.svg"):
        tree = ElementTree.parse(picture)  # well-formed, so that no name ends a tag or an attribute
        assert not {"script", "foreignObject"} & {element.tag.rpartition("}")[2] for element in tree.iter()}
        assert not [name for element in tree.iter() for name in element.keys() if name.startswith("on")]  # noqa: SIM118
    assert r"\input" not in (tmp_path / "out" / "table1.tex").read_text().replace(
        r"\textbackslash{}input", ""
    )
    for name in ("table1.md", "comparison.md"):
        text = (tmp_path / "out" / name).read_text()
        assert "<script" not in text and "](javascript" not in text and "\x1b" not in text
    for csv in (tmp_path / "out").glob("*.csv"):
        assert not re.search(r"(^|,)\"?[=@]", csv.read_text(), re.MULTILINE), csv


def test_an_unknown_state_is_an_unfinished_run(call: Call, tmp_path: Path) -> None:
    with sqlite3.connect(written(tmp_path / "a.db")) as connection:
        connection.execute("UPDATE runs SET state = 'paused' WHERE algorithm = 'sf'")
    connection.close()
    for command in ("figures --only table1", "figures --recipe mnist --format png", "compare"):
        found = call(*command.split(), "--db", "a.db", "--out", "out")
        assert found.code in (0, 1) and "Traceback" not in found.err
        assert found.code == 0 or "db check" in found.err


def test_a_cell_that_is_stored_twice_counts_once(new_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged unique index lets the same cell in again; a mean over seeds must not count it twice."""
    add_grid(new_store, "mnist", ["bp", "pfa"], range(2), epochs=2)
    again = add_run(new_store, "mnist", "pfa", 5, epochs=2, stop_after=1)
    whole = queries.runs_frame(new_store)
    twin = whole["run_id"] == again
    stored_twice = whole.assign(seed=whole["seed"].where(~twin, 0))
    monkeypatch.setattr(queries, "runs_frame", lambda store: stored_twice)
    evidence = Evidence(new_store)
    comparison = evidence.comparison("mnist")
    assert comparison is not None
    cohort = comparison.cohorts["pfa"]
    assert cohort.pooled["seed"].tolist() == [0, 1]
    assert again not in cohort.run_ids and cohort.waiting.empty
    assert any(
        line.startswith("Stored twice, counted once: mnist, PFA, seed 0")
        for line in ledger(evidence).failures
    )


def test_json_has_no_hostile_character(call: Call, tmp_path: Path) -> None:
    renamed(written(tmp_path / "a.db"), "algorithm", "sf", HOSTILE)
    assert json.loads(call("compare", "--json", "--db", "a.db").out)["data"]
