"""What `pfa runs` does to stored runs: deleting, training again, tags and notes. Without torch where it does not train."""

import shutil
from collections.abc import Sequence

from pydantic import ValidationError

from pfa_cli.configuration import Configuration
from pfa_cli.errors import PfaError, UsageError
from pfa_cli.runs.checkpoints import folder_of
from pfa_cli.runs.liveness import is_alive
from pfa_cli.runs.plan import Cell, Plan
from pfa_cli.runs.status import StatusRow
from pfa_cli.store import edit
from pfa_cli.store.engine import Store
from pfa_cli.store.queries import runs
from pfa_cli.wording import count


def at_rest(rows: Sequence[StatusRow]) -> list[StatusRow]:
    """``rows``; UsageError if a live process trains one of them."""
    for row in rows:
        if row.state == "running":
            raise UsageError(
                f"run {row.run_id} is being trained (process {row.pid} on {row.host}): stop it first, or leave it out"
            )
    return list(rows)


def delete(store: Store, rows: Sequence[StatusRow]) -> str:
    """Deletes the runs with their epochs and checkpoints; says what was deleted."""
    gone = edit.delete_runs(store, _ids(rows), is_alive)
    for row in gone:
        shutil.rmtree(folder_of(store, row), ignore_errors=True)
    left = len(rows) - len(gone)
    return f"deleted {count(len(gone), 'run')}" + (f"; {left} left, which began to train" if left else "")


def plan_again(store: Store, rows: Sequence[StatusRow]) -> Plan:
    """The cells of the runs, to be trained from the start.

    Raises:
        PfaError: a run's configuration is none that this pfa can train, such as one whose plug-in is not installed.
    """
    wanted = set(_ids(rows))
    cells = []
    for row in runs(store):
        if row.id in wanted:
            try:
                configuration = Configuration.model_validate(row.configuration)
            except (UsageError, ValidationError) as error:
                reason = str(error).splitlines()[0]
                if row.configuration.get("sources"):
                    reason = (
                        "it used files of your own, which only a command that names them finds. "
                        f"`pfa runs delete {row.id}`, then the `pfa run` that made it, trains it again"
                    )
                raise PfaError(f"run {row.id} cannot be trained again by this pfa: {reason}") from None
            if configuration.hash != row.config_hash:
                raise PfaError(f"run {row.id} cannot be trained again: its plug-in's file is another one now")
            cells.append(Cell(configuration, row.seed))
    return Plan(cells)


def reset(store: Store, rows: Sequence[StatusRow]) -> None:
    """Forgets the epochs and checkpoints of the runs, which are queued then."""
    for row in edit.reset_runs(store, _ids(rows), is_alive):
        shutil.rmtree(folder_of(store, row), ignore_errors=True)


def _ids(rows: Sequence[StatusRow]) -> list[int]:
    return [row.run_id for row in rows]
