"""The solve stage out of core, within a memory limit, against LAPACK in memory."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import cho_factor

from pipeline.config.cluster import LocalCluster
from pipeline.config.sizes import parse_bytes
from pipeline.runtime.events import TaskDone
from pipeline.stages import gram, solve
from pipeline.stages.session import Progress
from scripts.benchmarks import report, runs

FEATURES = 64
OUTPUTS = 10


def measure(rows: int, memory: str, repeats: int) -> dict[str, Any]:
    """Wall time of a solve with one ridge (factor, substitution, leave-one-out diagonal, gates) and peak memory."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, FEATURES))
    y = rng.standard_normal((rows, OUTPUTS))
    walls, factors, dense, peaks = [], [], [], []
    tile = 0
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            options = {"solve": {"ridge": [1e-3]}, "spectrum": {"method": "none"}}
            ready = runs.prepared(Path(folder), x, LocalCluster(memory=memory), y, **options)
            tile = ready.plan.grid.tile
            watch = FactorWatch()
            with runs.session(ready, watch) as session:
                gram.run(session)
                began = time.perf_counter()
                solve.run(session)
                walls.append(time.perf_counter() - began)
                factors.append(watch.last - began)
                peaks.append(float(session.peak_memory))
            matrix = x @ x.T + rows * np.eye(rows)
            began = time.perf_counter()
            cho_factor(matrix, lower=False, overwrite_a=True, check_finite=False)
            dense.append(time.perf_counter() - began)
    return {
        "rows": rows,
        "tile": tile,
        "solve seconds": report.median(walls),
        "of which the factor": report.median(factors),
        "cho_factor seconds": report.median(dense),
        "factor / cho_factor": report.median([f / d for f, d in zip(factors, dense, strict=True)]),
        "peak MB per worker": report.median(peaks) / 1e6,
        "limit MB per worker": parse_bytes(memory) / 1e6,
    }


class FactorWatch:
    """Notes when the last tile of the factor was recorded."""

    def __init__(self) -> None:
        self.last = 0.0

    def __call__(self, progress: Progress) -> None:
        if isinstance(progress.event, TaskDone) and progress.event.key.startswith("cholesky/"):
            self.last = time.perf_counter()
