"""What one worker may use: cores and memory of a cluster, resolved to numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.cluster import AnyCluster, HypotheticalCluster, SerialCluster
from pipeline.config.sizes import parse_bytes
from pipeline.plan.rates import Device

USABLE = 0.8
"""Share of this machine's memory that runs may plan with; the rest is the system's and the page cache's."""

ASSUMED_FLOPS = 20e9
"""Flops a second of one thread, where nothing was measured."""

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
    """

    kind: str
    workers: int
    threads: int
    memory: int
    dashboard: bool = False
    device: Device = "cpu"


def resolve(cluster: AnyCluster, *, cores: int | None = None, total: int | None = None) -> Resources:
    """Numbers for a cluster; `cores` and `total` (bytes of memory) of this machine default to what it has."""
    if isinstance(cluster, HypotheticalCluster):
        memory = parse_bytes(cluster.memory)
        return Resources("hypothetical", cluster.workers, cluster.threads, memory, device=cluster.device)
    cores = cores or len(os.sched_getaffinity(0))
    total = total or machine_memory()
    if isinstance(cluster, SerialCluster):
        memory = int(total * USABLE) if cluster.memory == "auto" else parse_bytes(cluster.memory)
        return Resources("serial", 1, cores, memory)
    threads = (1 if cores <= FEW_CORES else 4) if cluster.threads == "auto" else cluster.threads
    workers = max(1, cores // threads) if cluster.workers == "auto" else cluster.workers
    memory = int(total * USABLE / workers) if cluster.memory == "auto" else parse_bytes(cluster.memory)
    return Resources("local", workers, threads, memory, cluster.dashboard)


def machine_memory() -> int:
    """Bytes of memory this process may use: the machine's, or its control group's limit where that is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total
