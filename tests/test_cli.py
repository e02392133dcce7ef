"""The command line as a user meets it: real processes, real exit codes, what is printed where."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from command_line import Call
from command_reference import FILE, reference

from pfa_cli.registry import TABLE_1

ROOT = Path(__file__).parents[1]
# Small enough to train all nine algorithms in seconds; still MNIST.
TRIAL = [
    "--set=train_images=640", "--set=test_images=500", "--set=hidden_sizes=[64, 64]", "--device=cpu",
    "--set=wm.mirror_samples=32", "--set=wm.mirror_rate=0.2",
]  # fmt: skip


def pfa(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pfa_cli", *arguments], cwd=cwd, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all algorithms were trained with two seeds for two epochs."""
    folder = tmp_path_factory.mktemp("trained")
    done = pfa("run", "mnist", "--algos", "all", "--seeds", "2", "--epochs", "2", *TRIAL, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_cell_is_done_and_nothing_is_done_twice(trained: Path, call: Call) -> None:
    db = ("--db", str(trained / "results" / "pfa.db"))
    rows = json.loads(call("status", "--json", *db).out)
    assert len(rows) == 2 * len(TABLE_1)
    assert {row["state"] for row in rows} == {"done"}
    again = call("run", "mnist", "--algos", "all", "--seeds", "2", "--epochs", "2", *TRIAL, *db)
    assert again.code == 0 and "nothing to do" in again.out


def test_figures_and_table_come_out_of_it(trained: Path) -> None:
    done = pfa("figures", "--out", "drawn", cwd=trained)
    assert done.returncode == 0, done.stderr
    made = {path.name for path in (trained / "drawn").iterdir()}
    for name in ("fig2", "fig3"):
        assert {f"{name}.pdf", f"{name}.png", f"{name}.csv"} <= made
    assert {"table1.md", "table1.csv", "table1.tex"} <= made


def test_export_is_tidy(trained: Path, call: Call, tmp_path: Path) -> None:
    for table, keys in (
        ("epochs", ["recipe", "algorithm", "seed", "epoch"]),
        ("layers", ["recipe", "algorithm", "seed", "epoch", "layer"]),
    ):
        for suffix, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
            out = tmp_path / f"{table}.{suffix}"
            done = call(
                "export", "--table", table, "--out", str(out), "--db", str(trained / "results" / "pfa.db")
            )
            assert done.code == 0, done.err
            frame = read(out)
            assert not frame.duplicated(keys).any()
            assert len(frame) == 2 * len(TABLE_1) * 3 * (3 if table == "layers" else 1)
    assert "test_accuracy_percent" in pd.read_csv(tmp_path / "epochs.csv")
    assert "path_angle_degrees" in pd.read_csv(tmp_path / "layers.csv")


def test_dry_run_trains_nothing_and_creates_nothing(call: Call, tmp_path: Path) -> None:
    done = call(
        "run", "mnist", "--algos", "pfa,bp", "--seeds", "0,3", "--set", "expansion=20", "--dry-run"
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "expansion=20" in done.out and "seed 3" in done.out and "4 cells" in done.out
    assert not list(tmp_path.iterdir())


def test_a_sweep_is_one_command(call: Call) -> None:
    done = call("run", "mnist", "--sweep", "expansion", "--dry-run")
    assert done.code == 0 and "21 cells" in done.out and "expansion=100" in done.out
    fewer = call("run", "mnist", "--sweep", "expansion", "--seeds", "0,7", "--dry-run")
    assert "14 cells" in fewer.out and "seed 7" in fewer.out


BAD_INPUT = [
    (["run", "mnst"], 2, "mnist"),
    (["run", "mnist", "--algos", "pfao"], 2, "pfa-o"),
    (["run", "mnist", "--set", "expansoin=20"], 2, "expansion"),
    (["run", "mnist", "--set", "form=literall"], 2, "literal"),
    (["run", "mnist", "--set", "expansion=-3"], 2, "at least"),
    (["run", "mnist", "--set", "batch_size=none"], 2, "batch_size"),
    (["run", "mnist", "--set", "epochs"], 2, "key=value"),
    (["run", "mnist", "--algos", "bp", "--set", "expansion=20"], 2, "pfa"),
    (["run", "mnist", "--seeds", "x"], 2, "--seeds"),
    (["run", "mnist", "--sweep", "expanse"], 2, "expansion"),
    (["run", "mnist", "--sweep", "expansion", "--algos", "bp"], 2, "--algos bp: the sweep expansion has pfa"),
    (["run", "mnist", "--device", "gpu"], 2, "cuda"),
    (["run", "mnist", "--precision", "fp8"], 2, "fp32"),
    (["run", "nowhere.toml"], 2, "nowhere.toml"),
    (["run", "mnist", "--jbos", "2"], 2, "--jobs"),
    (["status"], 1, "pfa run"),
    (["figures"], 1, "pfa run"),
    (["export", "--out", "x.csv"], 1, "pfa run"),
    (["run", "mnist", "--algos", ""], 2, "--algos names no algorithm"),
    (["run", "mnist", "--seeds", ""], 2, "--seeds"),
    (["run", "mnist", "--sweep", "expansion", "--seeds", ""], 2, "--seeds"),
    (["run", "mnist", "--set", "epochs=2", "--epochs", "3"], 2, "--epochs 3 and --set epochs=2"),
    (["run", "mnist", "--set", "precision=fp32", "--precision", "bf16"], 2, "--precision bf16"),
    (["status", "--watch", "--json"], 2, "leave --json out"),
    (["figures", "--only", ""], 2, "--only '' names nothing"),
    (["figures", "--format", ","], 2, "--format ',' names nothing"),
    (["compare", "--out", "drawn", "--json"], 2, "leave --json and --format out"),
    (["compare", "--out", "drawn", "--format", "md"], 2, "leave --json and --format out"),
    (["compare", "--json", "--format", "md"], 2, "give one of them"),
    (["merge", "nope.db", "--db", "new.db"], 1, "no results at nope.db to bring in"),
    (["merge", "sqlite:///nope.db", "--db", "new.db"], 1, "no results at sqlite:///nope.db to bring in"),
    (["db", "upgrade", "--db", "typo.db"], 1, "typo.db"),
    (["cortex", "--seed", "-1"], 2, "--seed"),
    (["bench", "mnist", "--out", "notes.txt/x.json"], 1, "cannot write notes.txt/x.json"),
    (["bench", "mnist", "--out", "."], 1, "is a folder"),
    (["status", "--db", "notes.txt"], 1, "notes.txt"),
    (["run", "mnist", "--db", "notes.txt"], 1, "notes.txt"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    BAD_INPUT,
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_message_with_the_cure(
    arguments: list[str], code: int, hint: str, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("not a database, but somebody's notes\n" * 40)
    before = (tmp_path / "notes.txt").read_bytes()
    done = call(*arguments)
    assert (done.code, hint in done.err) == (code, True), done
    assert (tmp_path / "notes.txt").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt"}


BAD_INPUT_WITH_RESULTS = [
    (["figures", "--only", "fig22"], 2, "fig2"),
    (["figures", "--format", "pgn"], 2, "png"),
    (["export", "--table", "epoch", "--out", "x.csv"], 2, "epochs"),
    (["export", "--out", "x.xls"], 2, "csv"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    BAD_INPUT_WITH_RESULTS,
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_where_there_are_results(
    arguments: list[str], code: int, hint: str, call: Call, trained: Path
) -> None:
    done = call(*arguments, "--db", str(trained / "results" / "pfa.db"))
    assert (done.code, hint in done.err) == (code, True), done


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="there is a GPU")
def test_no_gpu_for_cuda(call: Call, tmp_path: Path) -> None:
    done = call("run", "mnist", "--device", "cuda")
    assert done.code == 2 and "no GPU" in done.err and not list(tmp_path.iterdir())


# A dry run imports it, since it refuses the devices and precisions that the run would refuse.
@pytest.mark.parametrize(
    "arguments", [["--help"], ["status"], ["figures", "--only=fig2", "--format=png"], ["recipes", "mnist"]]
)
def test_torch_is_not_imported_by(arguments: list[str], trained: Path) -> None:
    code = (
        f"import sys; sys.argv = ['pfa', *{arguments!r}]\n"
        "from pfa_cli.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=trained, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_every_command_and_option_is_documented() -> None:
    assert FILE.read_text(encoding="utf-8") == reference(), "python tests/command_reference.py writes it anew"


def test_cortex_gives_the_appendix_estimate(call: Call) -> None:
    found = json.loads(call("cortex", "--json").out)
    assert found["correlation_mean"] == pytest.approx(0.2, abs=0.01)
    assert found["angle_degrees_mean"] == pytest.approx(78.4, abs=0.5)


def test_what_is_made_goes_beside_the_database(call: Call, database: Path, tmp_path: Path) -> None:
    import shutil

    there = tmp_path / "elsewhere"
    there.mkdir()
    shutil.copyfile(database, there / "other.db")
    for db in ("elsewhere/other.db", f"sqlite:///{there}/other.db"):
        done = call("figures", "--only", "table1", "--db", db)
        assert done.code == 0 and (there / "table1.csv").exists(), done
        (there / "table1.csv").unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
