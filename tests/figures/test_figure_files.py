"""``build``: which files it writes, that they depend on the database alone, and what it says when it cannot."""

import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from synthetic import add_run

from pfa_cli.analysis.paper import paper
from pfa_cli.errors import PfaError, UsageError
from pfa_cli.report import build as build_all
from pfa_cli.store.engine import Store
from pfa_cli.theory import simulate

IN_A_PROCESS = """
import sys
from pathlib import Path
from pfa_cli.report import build
from pfa_cli.store.engine import open_store
with open_store(sys.argv[1], write=False) as store:
    build(store, Path(sys.argv[2]), only=["fig2", "fig3", "fig4-supplement", "table1"], formats=["pdf", "png", "svg"])
"""


def build(*arguments, **options) -> list[Path]:
    return build_all(*arguments, **options)[0]


def test_pictures_carry_no_date_and_no_version(store: Store, tmp_path: Path) -> None:
    build(store, tmp_path, only=["fig3"], formats=["pdf", "png", "svg"])
    version = mpl.__version__.encode()
    for kind in ("pdf", "png", "svg"):
        content = (tmp_path / f"fig3.{kind}").read_bytes()
        assert version not in content
        assert b"CreationDate" not in content and b"<dc:date>" not in content
    pdf = (tmp_path / "fig3.pdf").read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf  # fonts as TrueType, which editors and journals take


def test_all_of_it(store: Store, tmp_path: Path) -> None:
    said: list[str] = []
    paths = build(store, tmp_path / "new" / "folder", say=said.append)
    drawn = paper().figures.keys() - {"fig5-imagenette"}  # a recipe that the database has no runs of
    expected = {f"{name}.{kind}" for name in drawn for kind in ("pdf", "png", "csv")}
    expected |= {"table1.md", "table1.csv", "table1.tex", "table1-accuracy.csv"}
    assert (
        {path.name for path in paths}
        == expected
        == {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    )
    assert [line.partition(":")[0] for line in said] == ["fig5-imagenette"]


def test_every_point_names_its_runs(store: Store, tmp_path: Path) -> None:
    build(store, tmp_path, only=["fig2", "fig3"], formats=["png"])
    for name, source in (("fig2", "ours"), ("fig3", "trained")):
        rows = pd.read_csv(tmp_path / f"{name}.csv", dtype={"run_ids": str})
        ours = rows[rows["source"] == source]
        assert len(ours)
        assert (ours["run_ids"].str.split().str.len() == ours["n"]).all()


def test_what_there_is_nothing_of_is_passed_over_with_the_cure(new_store: Store, tmp_path: Path) -> None:
    add_run(new_store, "mnist", "bp", 0, epochs=1)
    said: list[str] = []
    paths = build(new_store, tmp_path, formats=["png"], say=said.append)
    assert {path.name for path in paths} >= {"fig2.png", "table1.md"}
    assert not (tmp_path / "fig4.png").exists()
    assert any(line.startswith("fig4:") and "`pfa run cifar10`" in line for line in said)


def test_a_database_with_simulations_only_draws_figure_3(new_store: Store, tmp_path: Path) -> None:
    simulate.run(new_store, (simulate.Setting(10, units=16, inputs=16, draws=2),))
    assert {path.name for path in build(new_store, tmp_path)} == {"fig3.pdf", "fig3.png", "fig3.csv"}


def test_a_run_that_has_only_begun(new_store: Store, tmp_path: Path) -> None:
    add_run(new_store, "mnist", "pfa", 0, epochs=3, stop_after=0)
    assert build(new_store, tmp_path, only=["fig2", "fig3", "table1"], formats=["png"])


def test_algorithms_of_which_every_run_diverged(new_store: Store, tmp_path: Path) -> None:
    """They have no final accuracy: no level to draw, and none to tell."""
    for name in ("bp", "readout"):
        add_run(new_store, "mnist", name, 0, epochs=2, diverge_at=1)
    for expansion in (2.0, 10.0):
        add_run(new_store, "mnist", "pfa", 0, epochs=2, expansion=expansion)
    paths = build(new_store, tmp_path, formats=["svg"])
    assert {"fig2.svg", "fig3.svg", "fig6.svg", "table1.md"} <= {path.name for path in paths}
    assert not re.search(r"\bnan\b", (tmp_path / "table1.md").read_text())


def test_an_empty_database_is_an_error_with_a_cure(new_store: Store, tmp_path: Path) -> None:
    with pytest.raises(PfaError, match=r"fig2: nothing of it is in .*new\.db; `pfa run mnist`"):
        build(new_store, tmp_path)
    assert list(tmp_path.glob("*.p*")) == []


def test_a_figure_asked_for_by_name_must_be_there(new_store: Store, tmp_path: Path) -> None:
    add_run(new_store, "mnist", "bp", 0, epochs=1)
    with pytest.raises(PfaError, match="fig5: nothing"):
        build(new_store, tmp_path, only=["fig2", "fig5"], formats=["png"])
    assert (tmp_path / "fig2.png").exists()


def test_misspelled_names(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown figure 'fig22': did you mean 'fig2'\?"):
        build(store, tmp_path, only=["fig22"])
    with pytest.raises(UsageError, match=r"unknown format 'pgn': did you mean 'png'\?"):
        build(store, tmp_path, formats=["pgn"])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PfaError, match=r"cannot write .*fig2\.png .*--out"):
        build(store, tmp_path / "file", only=["fig2"], formats=["png"])


def test_a_full_disk_leaves_the_old_picture(database: Path, store: Store, tmp_path: Path) -> None:
    build(store, tmp_path, only=["fig3"], formats=["png"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "from pfa_cli.errors import PfaError\n"
        "try:\n"
        f"    exec({IN_A_PROCESS!r})\n"
        "except PfaError as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(database), str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "cannot write" in done.stdout and "fig2.pdf" in done.stdout and "--out" in done.stdout
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
