"""What one worker may use: cores and memory of a cluster, resolved to numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.cluster import LocalCluster, SerialCluster
from pipeline.config.sizes import parse_bytes

USABLE = 0.8
"""Share of this machine's memory that runs may plan with; the rest is the system's and the page cache's."""

ASSUMED_FLOPS = 20e9
"""Flops a second of one thread, where nothing was measured."""

READ_RATE = 1.5e9
"""Bytes a second at which stored tiles are read and checked, where nothing was measured."""

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
    """

    kind: str
    workers: int
    threads: int
    memory: int
    dashboard: bool = False


def resolve(
    cluster: LocalCluster | SerialCluster, *, cores: int | None = None, total: int | None = None
) -> Resources:
    """Numbers for a cluster on this machine; `cores` and `total` (bytes of memory) default to what it has."""
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
