"""What `pfa` says of a single run, seed or epoch."""

import re
from pathlib import Path

import pytest
from command_line import Call
from synthetic import add_run

from pfa_cli.store.engine import open_store

_PLURAL = re.compile(
    r"(?<![\w.,:/-])1 (?:[a-z]+ )?(?:attempts|batches|benchmark values|claims|configurations|epochs|images|layers|points|rows"
    r"|runs|seeds|simulations)\b"
)

COMMANDS = [
    "db check",
    "db salvage saved.db",
    "merge one.db --db whole.db",
    "status",
    "runs list",
    "best mnist --by train",
    "runs tag kept 1",
    "compare --format md",
    "report",
    "export runs.csv --table runs",
    "export logs --to tensorboard",
]


@pytest.fixture
def _one_run(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "one.db"), write=True) as store:
        add_run(store, "mnist", "bp", 0, epochs=1, diverge_at=1, train_images=1, test_images=1)


@pytest.mark.usefixtures("_one_run")
def test_one_has_no_plural_after_it(call: Call, tmp_path: Path) -> None:
    for command in COMMANDS:
        if "tensorboard" in command:
            pytest.importorskip("tensorboard")
        where = () if "--db" in command else ("--db", "one.db")
        answer = call(*command.split(), *where)
        pages = [path.read_text() for path in tmp_path.rglob("*.html")]
        for text in (answer.out, answer.err, *pages):
            assert not _PLURAL.findall(re.sub(r"<[^>]*>", " ", text)), command
        assert answer.code == 0 or "best" in command, answer.err
