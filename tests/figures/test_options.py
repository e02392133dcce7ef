"""Each option of `pfa figures` changes what it says, and nothing else; a bad value is a usage error with its cure."""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from command_line import Answer, Call
from PIL import Image
from synthetic import add_grid, add_run

from pfa_cli.store.edit import tag_runs
from pfa_cli.store.engine import open_store
from pfa_cli.store.queries import runs

Draw = Callable[..., Path]
MM = 72 / 25.4  # points


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of four algorithms; seed 0 of PFA at another expansion ratio; BP's and PFA's seed 1 have a tag."""
    path = tmp_path_factory.mktemp("options") / "pfa.db"
    with open_store(str(path), write=True) as store:
        add_grid(store, "mnist", ["fa", "sf"], range(2), epochs=2)
        tagged = [
            add_run(store, "mnist", name, seed, epochs=2) for seed in range(2) for name in ("bp", "pfa")
        ][2:]
        add_run(store, "mnist", "pfa", 0, epochs=2, expansion=20.0)
        tag_runs(store, tagged, ["good"])
    return path


@pytest.fixture
def draw(call: Call, small: Path, tmp_path: Path) -> Draw:
    """Draws with the options given; the folder of what was made."""

    def run(*options: str) -> Path:
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        answer = call("figures", "--db", str(small), "--out", str(out), *options)
        assert answer.code == 0, answer.err
        return out

    return run


@pytest.fixture(scope="module")
def usual(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Panel (a) of Figure 2 without further options."""
    from pfa_cli.figures.drawing import Options
    from pfa_cli.report import build

    out = tmp_path_factory.mktemp("usual")
    with open_store(str(small), write=False) as store:
        build(store, out, ["fig2"], ["png", "svg"], options=Options(panels=["a"]))
    return out


A = ("--only", "fig2", "--panel", "a")


def shown(folder: Path, name: str = "fig2") -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv")


def words(svg: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)", svg.read_text(encoding="utf-8"))


def test_recipe_draws_its_figure_alone_with_all_its_algorithms(draw: Draw) -> None:
    out = draw("--recipe", "mnist", "--panel", "a", "--format", "svg")
    assert {path.name for path in out.iterdir()} == {"training-mnist.svg", "training-mnist.csv"}
    rows = shown(out, "training-mnist")
    assert set(rows.loc[rows["source"] == "ours", "algorithm"]) == {"bp", "fa", "sf", "pfa"}


def test_a_tag_where_no_run_has_one(call: Call, database: Path, tmp_path: Path) -> None:
    refused = call("figures", *A, "--where=tag=x", "--db", str(database), "--out", str(tmp_path / "out"))
    assert refused.code == 2 and "no run has a tag" in refused.err and "Valid:" not in refused.err


def test_what_where_leaves_out_is_not_called_unknown(call: Call, tmp_path: Path) -> None:
    rule, db = tmp_path / "rule.py", str(tmp_path / "own.db")
    rule.write_text(
        "from pfa_cli.algorithms import Algorithm\n"
        "class Rule(Algorithm):\n    path = lambda self, layer: layer.weight\n"
    )
    with open_store(db, write=True) as store:
        add_run(store, "mnist", "pfa", 0, epochs=2)
        add_run(store, "mnist", f"{rule}:Rule", 0, epochs=2)
        add_run(store, "cifar10", "bp", 0, epochs=2)
    out = ("--format=svg", f"--db={db}", f"--out={tmp_path}")
    answer = call("figures", "--recipe=mnist", "--algos=pfa,rule", "--where=expansion=10", *out)
    assert answer.code == 0 and set(shown(tmp_path, "training-mnist")["algorithm"].dropna()) == {"pfa"}
    answer = call("figures", "--recipe=cifar10", "--where=expansion=10", *out)
    assert answer.code == 2 and "no run of cifar10" in answer.err and "fits --where" in answer.err
    version = hashlib.sha256(rule.read_bytes()).hexdigest()[:8]
    assert call("figures", "--recipe=mnist", f"--where=algorithm_file={version}", *out).code == 0
    assert set(shown(tmp_path, "training-mnist")["algorithm"].dropna()) == {"rule"}


def test_algos_draws_these_in_place_of_the_figures_own(draw: Draw) -> None:
    out = draw("--only", "fig2", "--algos", "BP,sf", "--format", "svg", "--no-published")
    rows = shown(out)
    assert {panel: set(own["algorithm"]) for panel, own in rows.groupby("panel")} == {
        "a": {"bp", "sf"},
        "b": {"sf"},
    }


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (["seed=1"], {"bp": 1, "fa": 1, "sf": 1, "pfa": 1}),
        (["tag=good"], {"bp": 1, "pfa": 1}),
        (["tags=good", "seed=0,1"], {"bp": 1, "pfa": 1}),
        (["expansion=20"], {"pfa": 0}),
    ],
)
def test_where_takes_only_these_runs(
    draw: Draw, small: Path, where: list[str], expected: dict[str, int]
) -> None:
    chosen = [part for one in where for part in ("--where", one)]
    out = draw("--recipe", "mnist", "--panel", "a", "--format", "svg", *chosen)
    assert f"Only runs with {' and '.join(where)}." in " ".join(words(out / "training-mnist.svg"))
    rows = shown(out, "training-mnist")
    ids = rows[rows["source"] == "ours"].groupby("algorithm")["run_ids"].first().astype(int)
    with open_store(str(small), write=False) as store:
        seeds = {run.id: run.seed for run in runs(store)}
    assert {name: seeds[run] for name, run in ids.items()} == expected


def test_panel_draws_these_alone(draw: Draw) -> None:
    out = draw("--only", "fig2", "--panel", "c,b", "--format", "svg")
    assert set(shown(out)["panel"]) == {"b", "c"}
    assert {"FA", "SF"} < set(words(out / "fig2.svg")) and "PFA" not in words(out / "fig2.svg")


def test_width_is_that_of_the_file(draw: Draw, usual: Path) -> None:
    out = draw(*A, "--width", "89mm", "--format", "pdf,svg")
    (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) [\d.]+ \]", (out / "fig2.pdf").read_bytes())
    assert float(box) == pytest.approx(89 * MM)
    (width,) = re.findall(r'<svg[^>]* width="([\d.]+)pt"', (out / "fig2.svg").read_text())
    assert float(width) == pytest.approx(89 * MM)
    assert (out / "fig2.csv").read_bytes() == (usual / "fig2.csv").read_bytes()


def test_dpi_is_that_of_png(draw: Draw, usual: Path) -> None:
    out = draw(*A, "--dpi", "100", "--format", "png,svg")
    with Image.open(out / "fig2.png") as ours, Image.open(usual / "fig2.png") as other:
        assert ours.width == int(100 * 183 / 25.4)
        assert other.width / ours.width == pytest.approx(3, abs=0.01)
    paths = [re.findall(r' d="([^"]*)"', (one / "fig2.svg").read_text()) for one in (usual, out)]
    assert paths[0] == paths[1]
    assert (out / "fig2.csv").read_bytes() == (usual / "fig2.csv").read_bytes()


def test_font_size_is_that_of_the_labels(draw: Draw, usual: Path) -> None:
    out = draw(*A, "--font-size", "12", "--format", "svg")
    before, after = (
        re.findall(r"font-size: ([\d.]+)px", (one / "fig2.svg").read_text()) for one in (usual, out)
    )
    assert {float(size) for size in after} == {round(float(size) * 12 / 7.5, 4) for size in before}
    assert (out / "fig2.csv").read_bytes() == (usual / "fig2.csv").read_bytes()


def test_no_notes_leaves_the_words_below_out(draw: Draw, usual: Path) -> None:
    out = draw(*A, "--no-notes", "--format", "svg")
    left_out = set(words(usual / "fig2.svg")) - set(words(out / "fig2.svg"))
    assert any("Configurations:" in line for line in left_out)
    assert {"epochs of training", "published"} <= set(words(out / "fig2.svg"))
    assert (out / "fig2.csv").read_bytes() == (usual / "fig2.csv").read_bytes()


def test_style_is_on_top_of_ours(draw: Draw, usual: Path, tmp_path: Path) -> None:
    (tmp_path / "talk.mplstyle").write_text("axes.facecolor: ffc0cb\n")
    out = draw(*A, "--style", str(tmp_path / "talk.mplstyle"), "--format", "svg")
    pink = "fill: #ffc0cb"
    text = (out / "fig2.svg").read_text()
    assert pink in text and pink not in (usual / "fig2.svg").read_text()
    assert words(out / "fig2.svg") == words(usual / "fig2.svg")
    assert (out / "fig2.csv").read_bytes() == (usual / "fig2.csv").read_bytes()


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        (["--width", "3"], "give 40mm to 1000mm, for example 89mm"),
        (["--width", "0mm"], "give 40mm to 1000mm"),
        (["--width", "39mm"], "give 40mm to 1000mm"),
        (["--width", "1001mm"], "give 40mm to 1000mm"),
        (["--dpi", "0"], "greater than or equal to 20"),
        (["--font-size", "200"], "less than or equal to 40"),
        (["--style", "none.mplstyle"], "not a matplotlib style file"),
        (["--style", "wrong.mplstyle"], "not a matplotlib style file"),
        (["--style", "pipe.mplstyle"], "not a matplotlib style file"),
        (["--style", "no_colours.mplstyle"], "nothing can be drawn with it"),
        (["--font-size", "40", "--width", "40mm", "--no-notes"], "a larger --width or a smaller --font-size"),
        (["--panel", "q"], "fig2 has no panel q; it has a, b, c, d, e"),
        (["--algos", "pfaa"], "did you mean 'pfa'"),
        (["--recipe", "minst"], "did you mean 'mnist'"),
        (["--where", "expansoin=2"], "did you mean 'expansion'"),
        (["--where", "tag=godo"], "unknown tag of a run 'godo': did you mean 'good'"),
        (["--where", "seed=7"], "unknown seed of a run '7'. Valid: 0, 1"),
        (["--where", "seed"], "write it as key=value"),
        (["--where", "expansion=20", "--where", "seed=1"], "no run meets these at once"),
        (["--format", "jpg"], "unknown format 'jpg'"),
    ],
)
def test_bad_values_name_the_cure(
    call: Call, small: Path, tmp_path: Path, options: list[str], cure: str
) -> None:
    (tmp_path / "wrong.mplstyle").write_text("axes.facecolor: no colour\n")
    (tmp_path / "no_colours.mplstyle").write_text("axes.prop_cycle: cycler('color', [])\n")
    os.mkfifo(tmp_path / "pipe.mplstyle")
    answer: Answer = call("figures", "--db", str(small), "--out", "out", "--only", "fig2", *options)
    assert answer.code == 2
    assert cure in " ".join(answer.err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("asked", "in_the_way", "whole"),
    [
        ("figures --only=fig2 --format=pdf,png", "fig2.png", {"fig2.pdf"}),
        ("figures --only=table1", "table1.tex", {"table1.md", "table1.csv"}),
        ("compare", "comparison.json", {"comparison.md"}),
    ],
)
def test_a_file_is_named_once_it_is_written(
    call: Call, small: Path, tmp_path: Path, asked: str, in_the_way: str, whole: set[str]
) -> None:
    (tmp_path / "out" / in_the_way).mkdir(parents=True)
    answer = call(*asked.split(), "--db", str(small), "--out", "out")
    assert answer.code == 1 and f"cannot write out/{in_the_way}" in " ".join(answer.err.split())
    assert {Path(line).name for line in answer.out.splitlines()} == whole


def test_algorithms_with_other_settings_than_the_figures_are_named_with_what_draws_them(
    call: Call, tmp_path: Path
) -> None:
    db = f"--db={tmp_path / 'own.db'}"
    with open_store(db[5:], write=True) as store:
        add_run(store, "mnist", "kp", 0, epochs=4, train_images=1000)
        add_run(store, "mnist", "bp", 0, epochs=2, train_images=100)
    for where in ((), ("--where=seed=0",)):
        answer = call("figures", "--only=fig2", *where, db, f"--out={tmp_path}")
        said = " ".join(answer.err.split())
        assert (
            answer.code == 1 and "fig2: BP run with other settings only; `--recipe mnist --algos bp`" in said
        )
    answer = call("figures", "--recipe=mnist", "--algos=bp", "--format=svg", db, f"--out={tmp_path}")
    assert answer.code == 0 and set(shown(tmp_path, "training-mnist")["algorithm"]) == {"bp"}


def test_what_was_written_before_an_error_is_named_and_where_is_its_cause(
    call: Call, database: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    asked = ("--only=fig2,fig5,table1", "--where=recipe=mnist", "--format=svg")
    answer = call("figures", *asked, "--db", str(database), "--out", str(out))
    assert answer.code == 1
    assert {Path(line).name for line in answer.out.splitlines()} == {path.name for path in out.iterdir()}
    assert {"fig2.svg", "table1.md"} <= {path.name for path in out.iterdir()}
    assert "fig5: no run of it in " in answer.err and "fits --where." in answer.err
    assert "makes it" not in answer.err
