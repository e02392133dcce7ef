"""The same database gives the same bytes: figures in all formats, Table 1, the comparison and the report."""

import os
import subprocess
import sys
from pathlib import Path

from synthetic import add_grid, add_run

from pfa_cli.store.engine import open_store
from pfa_cli.theory import simulate

COMMANDS = """
import sys
from pfa_cli.cli import app
db = ["--db", sys.argv[1], "--out", sys.argv[2]]
only = ["--only", "fig2,fig3,table1", "--format", "pdf,png,svg"]
for command in (["figures", *only], ["compare"], ["report"]):
    app([*command, *db], standalone_mode=False)
assert "torch" not in sys.modules
"""


def written(database: Path, out: Path, **environment: str) -> dict[str, bytes]:
    command = [sys.executable, "-W", "error", "-c", COMMANDS, str(database), str(out)]
    subprocess.run(command, check=True, env=os.environ | environment, stdout=subprocess.DEVNULL)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_the_same_database_gives_the_same_bytes(tmp_path: Path) -> None:
    """Whatever the order of hashes, the time zone, the locale and the user's own matplotlibrc."""
    database = tmp_path / "pfa.db"
    with open_store(str(database), write=True) as store:
        simulate.run(store, (simulate.Setting(10, units=16, inputs=16, draws=2),))
        add_grid(store, "mnist", ["bp", "kp", "pfa"], range(2), epochs=2)
        add_run(store, "cifar10", "pfa", 0, epochs=2)
    before = database.read_bytes()
    own_taste = tmp_path / "matplotlibrc"
    own_taste.write_text("font.size: 20\nfigure.facecolor: pink\npdf.fonttype: 3\n")
    first = written(database, tmp_path / "a", PYTHONHASHSEED="1", TZ="UTC")
    second = written(
        database, tmp_path / "b", PYTHONHASHSEED="2", TZ="Asia/Tokyo", LC_ALL="C", MATPLOTLIBRC=str(own_taste)
    )
    assert len(first) == 2 * 4 + 4 + 2 + 1
    assert first == second
    assert database.read_bytes() == before
