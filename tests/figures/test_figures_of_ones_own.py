"""Entry points of the group ``pfa.figures``: drawn beside the paper's; one that fails is a sentence and stops nothing."""

import csv
import io
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pandas as pd
import pytest
from synthetic import add_run

from pfa_cli.analysis.paper import paper
from pfa_cli.errors import PfaError
from pfa_cli.figures import catalogue
from pfa_cli.report import build
from pfa_cli.store.engine import Store

DOCUMENTED = Path(__file__).parents[2] / "docs" / "figures.md"
CODE = """
def nothing(evidence):
    return None

def broken(evidence):
    raise ZeroDivisionError("by zero")

def wrong(evidence):
    return 3

def odd(evidence):
    from matplotlib.figure import Figure
    import pandas as pd
    from pfa_cli.figures.drawing import Drawing
    shown = evidence.runs[["configuration"]].assign(kind=pd.Categorical(["=1"]), text="\\tx", number=-1)
    return Drawing(Figure(), shown)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENTED.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "my_figures.py").write_text(example + CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_figures", raising=False)
    points = {
        "losses": "my_figures:draw", "nothing": "my_figures:nothing", "broken": "my_figures:broken",
        "wrong": "my_figures:wrong", "odd": "my_figures:odd", "absent": "no_such_module:draw",
    }  # fmt: skip
    found = {name: EntryPoint(name, value, catalogue.GROUP) for name, value in points.items()}
    monkeypatch.setattr(catalogue, "installed", lambda group: found)


@pytest.mark.usefixtures("own")
def test_figures_of_ones_own_are_drawn_and_their_faults_are_sentences(
    new_store: Store, tmp_path: Path
) -> None:
    add_run(new_store, "mnist", "bp", 0, epochs=1)
    said: list[str] = []
    paths, _ = build(new_store, tmp_path / "out", formats=["png"], say=said.append)
    assert {"fig2.png", "losses.png", "losses.csv", "table1.md"} <= {path.name for path in paths}
    assert pd.read_csv(tmp_path / "out" / "losses.csv")["epoch"].tolist() == [0, 1]
    (row,) = csv.DictReader(
        io.StringIO((tmp_path / "out" / "odd.csv").read_text(), newline="")
    )  # whatever the cells hold; no formulas
    assert "'epochs': 1" in row["configuration"]
    assert (row["kind"], row["text"], row["number"]) == ("'=1", "'\tx", "-1")
    own = [line for line in said if not line.startswith(tuple(paper().figures))]
    assert own[0].startswith("nothing: nothing of it is in ")
    assert own[1] == "the figure broken (my_figures:broken) failed: ZeroDivisionError: by zero."
    assert own[2] == "the figure wrong (my_figures:wrong) returned no Drawing, but 3."
    assert "absent" in own[3] and "no_such_module" in own[3] and len(own) == 4
    with pytest.raises(PfaError, match="by zero"):
        build(new_store, tmp_path / "out", only=["broken"], formats=["png"])
