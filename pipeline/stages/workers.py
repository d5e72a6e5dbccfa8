"""How to open the executor of a run, and what its processes took."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pipeline.config.cluster import AddressCluster, SshCluster
from pipeline.errors import InputError
from pipeline.plan.resources import Resources
from pipeline.runtime import rendezvous
from pipeline.runtime.cluster import (
    AddressSettings,
    LocalSettings,
    RemoteSettings,
    SerialSettings,
    Settings,
    SshSettings,
)
from pipeline.store.place import Place


def settings(resources: Resources, jobs: Place, *, insecure: bool = False) -> Settings:
    """How to open the executor of these resources.

    Args:
        jobs: folder for what workers on other machines need and leave.
        insecure: connections between machines need not be encrypted.

    Raises:
        InputError: they are those of a batch system, and this process is not in a job of ours; or they are fetched
            through ssh for a run in a bucket.
    """
    r = resources
    match r.entry:
        case SshCluster() as where:
            if not isinstance(jobs, Path):
                raise InputError(
                    f"{jobs}: workers of kind ssh find keys and scheduler in the run directory, which must be on a "
                    "disk that they share",
                    hint="give an --out there, or share the work out by `ntk gram --shard K/M` on each machine",
                )
            meeting = jobs.resolve() / f"scheduler-{os.getpid()}.json"
            return SshSettings(where, meeting, insecure)
        case AddressCluster() as where:
            return AddressSettings(where, insecure)
    match r.kind:
        case "serial":
            return SerialSettings()
        case "slurm":
            return RemoteSettings(
                rendezvous.place(),
                r.workers,
                r.threads,
                r.ready_seconds,
                r.interface,
                insecure,
                r.dashboard_port,
            )
        case _:
            return LocalSettings(
                r.workers, r.threads, r.dashboard, r.gpus, r.gpu_shares, r.scratch, r.dashboard_port
            )


def peak_memory(pid: object) -> int:
    """Largest resident size so far of a process of this machine, in bytes; 0 when it is not here."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0
