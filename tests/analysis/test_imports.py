"""Numbers come without pictures: nothing in ``pfa_cli.analysis`` imports drawing, words or training."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pfa_cli.analysis

FOLDER = Path(pfa_cli.analysis.__file__).parent
ABOVE = (
    "matplotlib",
    "rich",
    "torch",
    "pfa_cli.figures",
    "pfa_cli.report",
    "pfa_cli.runs",
    "pfa_cli.training",
)


@pytest.mark.parametrize("module", sorted(path.name for path in FOLDER.glob("*.py")))
def test_analysis_imports_no_drawing(module: str) -> None:
    for node in ast.walk(ast.parse((FOLDER / module).read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not [name for name in names if name.startswith(ABOVE)]


def test_compare_loads_no_matplotlib(compared_database: Path) -> None:
    code = (
        "import sys\nfrom pfa_cli.cli import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "assert not {'matplotlib', 'torch'} & set(sys.modules)"
    )
    command = [sys.executable, "-W", "error", "-c", code, "compare", "--json", "--db", str(compared_database)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
