"""What one worker may use: cores and memory of a cluster, resolved to numbers."""

from __future__ import annotations

import itertools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.cluster import (
    AddressCluster,
    AnyCluster,
    HypotheticalCluster,
    LocalGpuCluster,
    SerialCluster,
    SlurmCluster,
    SshCluster,
)
from pipeline.config.sizes import parse_bytes
from pipeline.errors import InputError
from pipeline.plan.rates import Device

USABLE = 0.8
"""Share of this machine's memory that runs may plan with; the rest is the system's and the page cache's."""

ASSUMED_FLOPS = 20e9
"""Flops a second of one thread, where nothing was measured."""

GPU_SHARE = 0.75
"""Share of a GPU's memory that JAX takes when it starts, unless a person says how much a worker may use."""

MOST_GPU_SHARE = 0.95
"""More than this is not JAX's to take: the driver needs some."""

FEW_CORES = 8
"""Up to this many cores a worker computes with one thread, beyond with four: fewer processes to feed."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Workers, threads and bytes that a plan is made for.

    Attributes:
        kind: kind of the cluster, as in cluster.yaml.
        workers: worker processes.
        threads: threads each of them computes with.
        memory: bytes each of them may use, the process itself included.
        dashboard: whether the scheduler's dashboard is served.
        device: what a worker computes with.
        gpus: of this machine, one for each worker, as `CUDA_VISIBLE_DEVICES` names them.
        gpu_shares: of the memory of each, which JAX takes at its start.
        interface: network interface to listen on where workers are on other machines; None: the host name's.
        price: of a worker for an hour, if the cluster says.
        ready_seconds: how long to wait for workers on other machines.
        entry: how to get workers on other machines, where that needs more than is said here.
        scratch: directory on a disk of each node for one copy of the inputs, if there is one.
        dashboard_port: of the scheduler's dashboard; 0: any.
    """

    kind: str
    workers: int
    threads: int
    memory: int
    dashboard: bool = False
    device: Device = "cpu"
    gpus: tuple[str, ...] = ()
    gpu_shares: tuple[float, ...] = ()
    price: float | None = None
    interface: str | None = None
    ready_seconds: int = 0
    entry: SshCluster | AddressCluster | None = None
    scratch: str | None = None
    dashboard_port: int = 0


def resolve(cluster: AnyCluster, *, cores: int | None = None, total: int | None = None) -> Resources:
    """Numbers for a cluster; `cores` and `total` (bytes of memory) of this machine default to what it has."""
    if isinstance(cluster, HypotheticalCluster):
        memory = parse_bytes(cluster.memory)
        return Resources("hypothetical", cluster.workers, cluster.threads, memory, device=cluster.device)
    if isinstance(cluster, SlurmCluster):
        return Resources(
            "slurm", cluster.workers, cluster.cpus, _worker_memory(cluster), price=cluster.price,
            interface=cluster.interface, ready_seconds=cluster.ready_seconds, scratch=cluster.scratch,
            dashboard_port=cluster.dashboard_port,
        )  # fmt: skip
    if isinstance(cluster, SshCluster | AddressCluster):
        return Resources(
            cluster.kind, cluster.workers, cluster.cpus, _worker_memory(cluster), price=cluster.price,
            interface=getattr(cluster, "interface", None), ready_seconds=cluster.ready_seconds, entry=cluster,
            scratch=getattr(cluster, "scratch", None),
        )  # fmt: skip
    cores = cores or len(os.sched_getaffinity(0))
    total = total or machine_memory()
    if isinstance(cluster, SerialCluster):
        memory = int(total * USABLE) if cluster.memory == "auto" else parse_bytes(cluster.memory)
        return Resources("serial", 1, cores, memory)
    if isinstance(cluster, LocalGpuCluster):
        found = visible_gpus()
        share = min(min(found.values()) * GPU_SHARE, total * USABLE / len(found))
        memory = int(share) if cluster.memory == "auto" else parse_bytes(cluster.memory)
        return Resources(
            "local-gpu",
            len(found),
            cluster.threads,
            memory,
            cluster.dashboard,
            gpus=tuple(found),
            gpu_shares=tuple(
                GPU_SHARE if cluster.memory == "auto" else min(memory / size, MOST_GPU_SHARE)
                for size in found.values()
            ),
            scratch=cluster.scratch,
            dashboard_port=cluster.dashboard_port,
        )
    threads = (1 if cores <= FEW_CORES else 4) if cluster.threads == "auto" else cluster.threads
    workers = max(1, cores // threads) if cluster.workers == "auto" else cluster.workers
    memory = int(total * USABLE / workers) if cluster.memory == "auto" else parse_bytes(cluster.memory)
    return Resources(
        "local", workers, threads, memory, cluster.dashboard, scratch=cluster.scratch,
        dashboard_port=cluster.dashboard_port,
    )  # fmt: skip


def visible_gpus() -> dict[str, int]:
    """GPUs of this machine that a process may use, by the name that `CUDA_VISIBLE_DEVICES` knows, with their bytes.

    Raises:
        InputError: there are none.
    """
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        listing = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(
            f"cluster of kind local-gpu: no GPU was found here (nvidia-smi: {error})",
            hint="use the cluster `local`",
        ) from None
    return choose_gpus(listing, os.environ.get("CUDA_VISIBLE_DEVICES"))


def choose_gpus(listing: str, visible: str | None) -> dict[str, int]:
    """The GPUs in nvidia-smi's lines `index, uuid, MiB` that a value of `CUDA_VISIBLE_DEVICES` admits, in its order.

    As CUDA reads it: what stands behind a name that is not there does not count.

    Raises:
        InputError: none is left.
    """
    rows = [[word.strip() for word in line.split(",")] for line in listing.splitlines() if line.strip()]
    memory = {name: int(mebibytes) * 2**20 for index, uuid, mebibytes in rows for name in (index, uuid)}
    named = [row[0] for row in rows] if visible is None else [name.strip() for name in visible.split(",")]
    there = list(itertools.takewhile(memory.__contains__, named))
    if not there:
        raise InputError(
            f"cluster of kind local-gpu: none of {len(rows)} GPUs is visible (CUDA_VISIBLE_DEVICES={visible!r})",
            hint="set CUDA_VISIBLE_DEVICES, or use the cluster `local`",
        )
    return {name: memory[name] for name in there}


def one_worker(cluster: AnyCluster) -> SerialCluster:
    """The calling process as if it were one worker of a cluster: of a batch system's with the memory that a job asks
    for, of this machine with all there is."""
    remote = isinstance(cluster, SlurmCluster | SshCluster | AddressCluster)
    memory = f"{_worker_memory(cluster)} B" if remote else "auto"
    return SerialCluster(kind="serial", memory=memory)


def _worker_memory(cluster: SlurmCluster | SshCluster | AddressCluster) -> int:
    gpu = None if isinstance(cluster, AddressCluster) else cluster.gpu_memory
    return min(parse_bytes(size) for size in (cluster.memory, gpu) if size is not None)


def machine_memory() -> int:
    """Bytes of memory this process may use: the machine's, or the limit of its control group or its Slurm job where
    that is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    granted = os.environ.get("SLURM_MEM_PER_NODE", "")  # megabytes
    if granted.isdigit() and int(granted) > 0:
        total = min(total, int(granted) * 2**20)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total
