"""A real Slurm on this machine: slurmctld and a slurmd for each node, on loopback, GPUs pretended by harmless devices.

Needs Debian's slurm-wlm and munge; neither systemd nor cgroups nor an accounting database.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
PROGRAMS = ("sbatch", "munged", "slurmctld", "slurmd")
PORT = 27810
NODES, CPUS, MEGABYTES = 2, 4, 2000
DEVICES = ("/dev/null", "/dev/zero")
"""Two of them are the GPUs of a node: Slurm wants distinct character devices."""


def missing() -> str:
    """What is needed and not here; empty: nothing."""
    absent = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    return (
        f"no {', '.join(absent)}: apt-get install --no-install-recommends slurm-wlm munge" if absent else ""
    )


@dataclass(frozen=True)
class Slurm:
    """`home`: configuration, logs and process ids."""

    home: Path

    def start_node(self, number: int) -> None:
        _run("slurmd", "-f", str(self.home / "slurm.conf"), "-N", f"n{number}")

    def kill_node(self, number: int) -> None:
        """Without a word, with all that runs there."""
        configuration = f"SLURM_CONF={self.home}/slurm.conf".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = process.joinpath("cmdline").read_bytes().split(b"\0")
                environment = process.joinpath("environ").read_bytes().split(b"\0")
                here = f"SLURMD_NODENAME=n{number}".encode() in environment or f"n{number}".encode() in words
                if configuration in environment and here:
                    os.kill(int(process.name), signal.SIGKILL)


@contextlib.contextmanager
def slurm_up(home: Path) -> Iterator[Slurm]:
    """Two nodes n1 and n2, up and idle; `home` must be a short path, for the sake of sockets."""
    shutil.rmtree(home, ignore_errors=True)
    for name in ("state", "log", "run", "munge", "n1", "n2"):
        (home / name).mkdir(parents=True)
    (home / "munge").chmod(0o700)
    (home / "munge/key").write_bytes(secrets.token_bytes(128))
    (home / "munge/key").chmod(0o600)
    (home / "cgroup.conf").write_text(f"CgroupPlugin={_cgroup_plugin()}\n")
    (home / "gres.conf").write_text(
        f"AutoDetect=off\nNodeName=n[1-{NODES}] Name=gpu File={','.join(DEVICES)}\n"
    )
    (home / "slurm.conf").write_text(_configuration(home))
    found = Slurm(home)
    (home / "munge").chmod(0o755)
    _run(
        "munged", f"--key-file={home}/munge/key", f"--socket={home}/munge/sock", f"--pid-file={home}/run/munged.pid",
        f"--log-file={home}/log/munged.log", f"--seed-file={home}/munge/seed", "--num-threads=2",
    )  # fmt: skip
    with _environment(home):
        try:
            _run("slurmctld", "-f", str(home / "slurm.conf"))
            for number in range(1, NODES + 1):
                found.start_node(number)
            end = time.monotonic() + 30
            while _run("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split() != ["n1", "n2"]:
                if time.monotonic() > end:
                    raise RuntimeError(f"Slurm is not up: {_run('sinfo', '-N', '-l')}")
                time.sleep(0.2)
            yield found
        finally:
            _take_down(home)


@contextlib.contextmanager
def _environment(home: Path) -> Iterator[None]:
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(home / "slurm.conf")
    try:
        yield
    finally:
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before


def _configuration(home: Path) -> str:
    host, user = socket.gethostname().split(".")[0], getpass.getuser()
    nodes = "".join(
        f"NodeName=n{n} NodeHostname={host} NodeAddr=127.0.0.1 Port={PORT + n} CPUs={CPUS} RealMemory={MEGABYTES} "
        f"Gres=gpu:{len(DEVICES)} State=UNKNOWN\n"
        for n in range(1, NODES + 1)
    )
    return f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={home}/munge/sock,cred_expire=5
CredType=cred/munge
SlurmctldPort={PORT}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/%n
SlurmctldPidFile={home}/run/slurmctld.pid
SlurmdPidFile={home}/run/slurmd.%n.pid
SlurmctldLogFile={home}/log/slurmctld.log
SlurmdLogFile={home}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU={MEGABYTES // CPUS}
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=2,sched_interval=2
ReturnToService=2
JobRequeue=1
SlurmctldTimeout=10
SlurmdTimeout=10
KillWait=3
MinJobAge=300
GresTypes=gpu
{nodes}PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def _cgroup_plugin() -> str:
    """One that does nothing: from 24.05 on `disabled`, before that one that is loaded and left alone."""
    major, minor = re.findall(r"\d+", _run("slurmctld", "-V"))[:2]
    return "disabled" if (int(major), int(minor)) >= (24, 5) else "cgroup/v1"


def _run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "PATH": PATH}
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr or done.stdout}")
    return done.stdout


def _take_down(home: Path) -> None:
    """Jobs first, while there is a controller to end them."""
    with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
        if jobs := _run("squeue", "-h", "-o", "%A").split():
            _run("scancel", "--full", *jobs)
            end = time.monotonic() + 10
            while _run("squeue", "-h") and time.monotonic() < end:
                time.sleep(0.2)
    pids = [int(file.read_text()) for file in home.glob("run/*.pid") if file.read_text().strip()]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        time.sleep(1.0)
    shutil.rmtree(home, ignore_errors=True)
