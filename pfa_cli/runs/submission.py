"""`pfa submit`: a batch script for Slurm that runs `pfa run`, once or as an array whose elements share the cells."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pfa_cli import files
from pfa_cli.errors import PfaError, UsageError
from pfa_cli.store.engine import database_file, database_name
from pfa_cli.store.schema import without_password

_SAVE_SECONDS = 120  # before the end of the time limit pfa is told to save
_MOST_RESTARTS = 10

_SCRIPT = """#!/bin/bash
# Written by `pfa submit`. To submit it again: sbatch {path}
{options}

{setup}# Slurm announces the end of the time limit by USR1 and pre-emption by TERM: pfa then saves and exits with 143.
child=
stopped=
trap 'stopped=1; [ -z "$child" ] || kill -TERM "$child"' USR1 TERM

{command} < /dev/null &
child=$!
[ -z "$stopped" ] || kill -TERM "$child"
while kill -0 "$child" 2> /dev/null; do wait "$child"; done  # a signal ends `wait`, but not pfa
wait "$child"
code=$?

# Requeued under the name of this element: by SLURM_JOB_ID Slurm might restart the whole array. A job that was cancelled
# is not RUNNING any more.
job=$SLURM_JOB_ID
[ -z "${{SLURM_ARRAY_TASK_ID:-}}" ] || job=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
if [ "$code" -eq 143 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ] &&
    [ "$(squeue --noheader --array --jobs="$job" --Format=State:32 | tr -d ' ')" = RUNNING ]; then
    echo "pfa submit: saved; requeues job $job"
    scontrol requeue "$job" && exit 0
fi
exit "$code"
"""


@dataclass(frozen=True)
class Submission:
    """What to submit: the arguments of `pfa run`, with the database apart, and what Slurm is asked for."""

    run: Sequence[str]
    name: str  # of the job
    db: str | None
    array: int | None = None  # elements
    shards: bool = False  # every element with a database of its own
    sbatch: Mapping[str, str] | None = None  # options of sbatch
    setup: Sequence[str] = ()  # lines of the script before pfa

    @property
    def folder(self) -> Path:
        """Where the script and the job's output go: beside the database."""
        path = database_file(self.db)
        if path is None:
            return Path("results", "slurm").absolute()
        return path.with_name(f"{path.name}.slurm")

    def script(self, path: Path) -> str:
        """The text of the script, which is to lie at ``path``."""
        options = {
            "job-name": f"pfa-{self.name}",
            "chdir": str(Path.cwd()),
            "output": str(path.with_suffix("")) + ("-%a.out" if self.array else "-%j.out"),
            "open-mode": "append",
            "requeue": "",
            "signal": f"B:USR1@{_SAVE_SECONDS}",
        }
        if self.array:
            options["array"] = f"1-{self.array}"
        options |= self.sbatch or {}
        lines = [f"#SBATCH --{key}{'=' + _quoted(value) if value else ''}" for key, value in options.items()]
        setup = [*self._setup()]
        return _SCRIPT.format(
            path=shlex.quote(str(path)),
            options="\n".join(lines),
            setup="".join(f"{line}\n" for line in setup) + ("\n" if setup else ""),
            command=self._command(),
            restarts=_MOST_RESTARTS,
        )

    def submit(self) -> str:
        """Writes the script and gives it to sbatch; what that said.

        Raises:
            PfaError: there is no sbatch here, or it refused.
        """
        if shutil.which("sbatch") is None:
            raise PfaError(
                "there is no sbatch here: give this command on a login node of the cluster, or see the script by --print"
            )
        path = self.folder / f"{self.name}-{datetime.now():%Y%m%d-%H%M%S-%f}.sh"
        path.parent.mkdir(parents=True, exist_ok=True)
        files.save(path, self.script(path))
        path.chmod(0o755)
        environment = os.environ | ({"PFA_DB": self.db} if self.db and self._secret else {})
        said = subprocess.run(["sbatch", str(path)], capture_output=True, text=True, env=environment)
        if said.returncode != 0:
            raise PfaError(f"sbatch refused {path}: {' '.join(said.stderr.split())}")
        return f"{said.stdout.strip()}: {path}"

    @property
    def _secret(self) -> bool:
        """Whether the database's URL holds a password: it is handed on in the environment, and stands in no file."""
        name = database_name(self.db)
        return without_password(name) != name

    def _setup(self) -> Iterable[str]:
        if self._secret:
            yield ': "${PFA_DB:?must name the database; `pfa submit` hands it on in the job\'s environment}"'
        yield from self.setup

    def _command(self) -> str:
        command = [sys.executable, "-m", "pfa_cli", "run", *self.run]
        if not self._secret:
            path = database_file(self.db)
            command.append(f"--db={path or database_name(self.db)}")
        text = shlex.join(command)
        return f'{text} --shard="$SLURM_ARRAY_TASK_ID/{self.array}"' if self.shards else text


def parse_sbatch(options: Iterable[str]) -> dict[str, str]:
    """``--sbatch`` arguments: K=V, or K alone for an option without a value.

    >>> parse_sbatch(["account=neuro", "--exclusive"])
    {'account': 'neuro', 'exclusive': ''}
    """
    found = {}
    for option in options:
        key, _, value = option.partition("=")
        key = key.strip().lstrip("-")
        if not key.replace("-", "").isalnum() or "\n" in value:
            raise UsageError(
                f"--sbatch {option}: write it as sbatch's option without dashes, such as account=neuro"
            )
        found[key] = value.strip()
    return found


def _quoted(value: str) -> str:
    """A value in an #SBATCH line, where blanks end it."""
    return f'"{value}"' if any(letter in value for letter in " \t#") else value
