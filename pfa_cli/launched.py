"""Whether this process is one of several that train together (torchrun, `pfa run --ranks`). Imports no torch."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pfa_cli.errors import UsageError

RENDEZVOUS = "PFA_RENDEZVOUS"
"""Set by `pfa run --ranks` in the processes that it starts: a file by which they find one another."""

VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launched:
    """What this process was told: it is ``rank`` of ``size``, and ``local_rank`` of ``local_size`` on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def launched(environment: Mapping[str, str] = os.environ) -> Launched:
    """What torchrun or pfa told this process; a single rank where nobody started several.

    UsageError where the variables are there but torchrun is not: left over from another command, they would let this
    one wait for ranks that never come.
    """
    names = [name for name in VARIABLES if name in environment]
    said = " ".join(f"{name}={environment[name]}" for name in names)
    if environment.get("WORLD_SIZE", "1") == "1":
        return Launched()
    if "TORCHELASTIC_RUN_ID" not in environment and RENDEZVOUS not in environment:
        raise UsageError(
            f"{said}: these variables say that torchrun started several processes, but it did not start this one. "
            f"`unset {' '.join(names)}` to train in one process, or start it with torchrun"
        )
    try:
        size, rank = int(environment["WORLD_SIZE"]), int(environment["RANK"])
        local_size = int(environment.get("LOCAL_WORLD_SIZE", size))
        local_rank = int(environment.get("LOCAL_RANK", rank))
        if not (0 <= rank < size and 0 <= local_rank < local_size):
            raise ValueError
    except (KeyError, ValueError):
        raise UsageError(f"{said}: not what torchrun sets. Start this command with torchrun again") from None
    return Launched(rank, size, local_rank, local_size)


def refuse_several(command: str) -> None:
    """UsageError if several processes were started, which ``command`` is not for."""
    if launched().size > 1:
        raise UsageError(f"{command} is one process; several train together by `pfa run`")
