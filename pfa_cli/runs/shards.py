"""Cells dealt out beforehand, each part with an SQLite file of its own that one process writes: `pfa run --shard 2/8`.

For disks shared over NFS, where SQLite's locks do not hold, and sites without a database server.
"""

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pfa_cli.errors import UsageError
from pfa_cli.store.engine import database_file

if TYPE_CHECKING:
    from pfa_cli.runs.plan import Plan


@dataclass(frozen=True)
class Shard:
    """Part ``number`` of ``of_all``, counted from 1."""

    number: int
    of_all: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """
        >>> Shard.parse("2/8")
        Shard(number=2, of_all=8)
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"--shard {text}: write it as I/N with I from 1 to N, such as 2/8")
        return cls(int(found[1]), int(found[2]))

    def of(self, plan: "Plan") -> "Plan":
        """Every Nth cell of the plan."""
        return replace(plan, cells=plan.cells[self.number - 1 :: self.of_all])

    def database(self, db: str | None) -> str:
        """Its database, in a folder beside the one that ``db`` names.

        Raises:
            UsageError: ``db`` is on a server, which needs no shards.
        """
        path = database_file(db)
        if path is None:
            raise UsageError("--shard: a database on a server can be shared; leave --shard out")
        return str(path.with_name(f"{path.name}.shards") / f"{self.number}-of-{self.of_all}.db")
