"""The log file beside the database: what `pfa run` told the terminal, with times. No run fails because of it."""

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pfa_cli.errors import PfaError, shown
from pfa_cli.files import refuse_special
from pfa_cli.runs.events import Event
from pfa_cli.runs.plan import Cell
from pfa_cli.runs.progress import PlainLines, View
from pfa_cli.store.schema import without_password


class Log:
    """Appends lines to ``<database>.log``; each with the time and, since several commands may share it, the process."""

    def __init__(self, database: Path | None, process: int) -> None:
        self._path = database and database.with_name(f"{database.name}.log")
        self._process = process

    def begin(self) -> None:
        """Says which command it is."""
        self.say("pfa " + " ".join(map(without_password, sys.argv[1:])))

    def say(self, message: str) -> None:
        """One line in the file for each line of ``message``; nothing where it cannot be written."""
        if self._path is None:
            return
        head = f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{self._process}] "
        lines = "".join(f"{head}{line}\n" for line in shown(message).splitlines())
        with contextlib.suppress(OSError, PfaError):
            refuse_special(self._path)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(lines)


class Logged:
    """A view that also writes the plain lines of every event to the log."""

    def __init__(self, view: View, log: Log, cells: Sequence[Cell]) -> None:
        self._view, self._lines = view, PlainLines(log.say, cells)

    def handle(self, event: Event) -> None:
        self._lines.handle(event)
        self._view.handle(event)

    def say(self, message: str) -> None:
        self._lines.say(message)
        self._view.say(message)
