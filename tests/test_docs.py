"""Every example in README.md, CONTRIBUTING.md and docs/ runs, as it is written there."""

import re
import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer
from command_line import Call
from synthetic import PAPERS, add_grid, add_run
from torch.nn import functional as F

import pfa_cli
from pfa_cli.cli import app
from pfa_cli.store.edit import tag_runs
from pfa_cli.store.engine import open_store

ROOT = Path(__file__).parents[1]
# commands.md is made from the parser, and cluster.md needs a cluster: their own tests see to them.
FILES = ["README.md", "CONTRIBUTING.md", *(f"docs/{name}.md" for name in ("figures", "notebook", "tables"))]

# What would take long is run with these added; the text of the example stays as it is.
ADDED = {
    "run": ["--dry-run"],
    "figures": ["--only", "fig2", "--format", "png"],
    "cortex": ["--synapses", "1000"],
}
PARSED_ONLY = {
    "bench": "tests/bench/test_bench.py runs it on smaller steps",
    "reproduce": "its dry run takes steps of every algorithm; tests/test_reproduce.py runs it on a small recipe",
    "torchrun": "needs a folder of photographs; tests/runs/test_distributed.py runs one",
}
OTHER_TESTS = {
    "pip": "tests/test_build.py",
    "mypy": "of the developer's machine",
    "pytest": "this",
    "ruff": "of the developer's machine",
    "python": "the references have their tests",
}


def blocks(file: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / file).read_text(encoding="utf-8"), re.DOTALL)


def commands() -> Iterator[str]:
    for file in FILES:
        for block in blocks(file, "sh"):
            for line in block.splitlines():
                yield from (part.strip() for part in re.sub(r"\s#.*", "", line).split("&&"))


COMMANDS = list(dict.fromkeys(filter(None, commands())))


@pytest.fixture(scope="module")
def few_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("docs") / "pfa.db"
    with open_store(str(path), write=True) as store:
        add_grid(store, "mnist", PAPERS, [0], epochs=2)
        swept = [
            add_run(store, "mnist", "pfa", 0, epochs=2, expansion=expansion) for expansion in (2.0, 50.0)
        ]
        tag_runs(store, swept[1:], ["chosen"])
        add_run(store, "mnist", "pfa", 0, epochs=3, validation_images=5000)
        add_run(store, "cifar10", "pfa", 0, epochs=2)
    return path


@pytest.fixture
def small(few_runs: Path, tmp_path: Path) -> Path:
    """A folder with a small results/pfa.db."""
    (tmp_path / "results").mkdir()
    shutil.copyfile(few_runs, tmp_path / "results/pfa.db")
    (style,) = blocks("docs/figures.md", "ini")
    (tmp_path / "talk.mplstyle").write_text(style)
    return tmp_path


@pytest.mark.parametrize("command", [each for each in COMMANDS if shlex.split(each)[0] not in OTHER_TESTS])
def test_a_command_runs_as_it_is_written(command: str, small: Path, call: Call, untried: None) -> None:
    program, *arguments = shlex.split(command)
    if program == "torchrun":
        arguments = arguments[arguments.index("pfa_cli") + 1 :]
    if program == "sqlite3":
        *_, file, query = arguments
        with sqlite3.connect(small / file) as connection:
            assert len(connection.execute(query).fetchall()) > 1
        connection.close()
        return
    assert program in ("pfa", "torchrun")
    if program in PARSED_ONLY or arguments[0] in PARSED_ONLY:
        root = typer.main.get_command(app)
        name, *rest = arguments
        root.commands[name].make_context(name, rest)  # type: ignore[attr-defined]
        return
    added = ADDED.get(arguments[0], [])
    answer = call(*arguments, *(added if added and added[0] not in arguments else []))
    expected = (0, 1) if arguments[0] == "doctor" else (0,)  # 1: this machine could not run it
    assert answer.code in expected, answer.err
    assert answer.out


def test_what_is_tested_elsewhere_is_still_in_the_documentation() -> None:
    programs = {shlex.split(command)[0] for command in COMMANDS}
    assert programs <= {*OTHER_TESTS, "pfa", "torchrun", "sqlite3"}
    assert len(COMMANDS) > 15


@pytest.mark.filterwarnings("error")
def test_the_notebook_runs_from_top_to_bottom(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    monkeypatch.chdir(small)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, object] = {}
    drawn = []
    for block in blocks("docs/notebook.md", "python"):
        exec(block, names)
        drawn += [len(plt.figure(number).axes[0].lines) for number in plt.get_fignums()]
        plt.close("all")
    assert drawn == [9, 3, 3]  # algorithms, layers, layers of the own network


def test_the_readmes_network_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    before = network[0].weight.detach().clone()
    batches = [(torch.randn(8, 4), torch.arange(8) % 3)] * 2
    (block,) = blocks("README.md", "python")
    names = {"network": network, "batches": batches, "torch": torch, "cross_entropy": F.cross_entropy}
    exec(block, names)
    assert not torch.equal(network[0].weight, before)


def test_files_that_the_documentation_names_are_there() -> None:
    for file in FILES:
        text = (ROOT / file).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / file).parent.joinpath(link).exists(), f"{file}: {link}"


def test_the_citation_names_the_version_and_the_paper() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [pfa_cli.__version__]
    assert 'title: "Deep Learning without Weight Symmetry"' in citation.partition("preferred-citation:")[2]
