"""A Slurm of one node for the tests, where its programs are installed (Debian: slurm-wlm, munge) and the user is root."""

import contextlib
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pfa_cli.runs.slurm import _cluster

sys.path.insert(0, str(Path(__file__).parents[1] / "runs"))

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=2,batch_sched_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
SwitchType=switch/none
KillWait=20
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=4096 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes={host} State=UP PriorityTier=10 PreemptMode=OFF
"""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Slurm with the partitions low and high, whose jobs drive out those of low; the commands find it by SLURM_CONF."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"Slurm cannot be started: {', '.join(missing) or 'only root may do so'}")
    folder = tmp_path_factory.mktemp("slurm")
    for outer in (folder, *folder.parents[:2]):
        outer.chmod(0o755)  # munge insists
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key, configuration = folder / "munge.key", folder / "slurm.conf"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    host = platform.node().partition(".")[0]
    configuration.write_text(
        CONFIGURATION.format(folder=folder, host=host, controller=_free_port(), daemon=_free_port())
    )
    munge = [
        "--key-file=munge.key",
        "--socket=munge.socket",
        "--pid-file=munged.pid",
        "--log-file=munged.log",
    ]
    munge = [f"{option.replace('=', f'={folder}/')}" for option in (*munge, "--seed-file=munge.seed")]
    _cluster.cache_clear()
    with pytest.MonkeyPatch.context() as environment, contextlib.ExitStack() as daemons:
        environment.setenv("SLURM_CONF", str(configuration))
        environment.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]))
        for command in (
            ["munged", "--force", "--num-threads=2", *munge],
            ["slurmctld", "-i"],
            ["slurmd", "-N", host],
        ):
            said = subprocess.run(command, capture_output=True, text=True)
            daemons.callback(_end, folder / f"{command[0]}.pid")
            if said.returncode != 0:
                pytest.skip(f"{command[0]} does not start here: {said.stderr}")
        daemons.callback(subprocess.run, ["scancel", "--user=root"], check=False)
        until = time.monotonic() + 30
        while "idle" not in (said := sinfo()):
            if time.monotonic() > until:
                pytest.skip(f"Slurm's node does not come up here: {said}")
            time.sleep(0.2)
        yield


def sinfo() -> str:
    return subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True).stdout


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _end(pid_file: Path) -> None:
    with contextlib.suppress(OSError, ValueError):
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
