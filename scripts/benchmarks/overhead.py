"""What the machinery around the kernel costs: scheduling, records, checksums, writes."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.cluster import LocalCluster
from pipeline.stages import gram
from scripts.benchmarks import report, runs

TILE = 64
_seconds = 0.05


def busy_kernel(x1: np.ndarray, x2: np.ndarray) -> np.ndarray:
    """Occupies a core for as long as the first entry of x1 says, then returns a plain inner product."""
    until = time.perf_counter() + float(x1[0, 0])
    value = x1 @ x2.T
    while time.perf_counter() < until:
        value = x1 @ x2.T
    return value


def measure(tiles: int, milliseconds: float, repeats: int) -> dict[str, Any]:
    """Ratio of the stage's wall time to the share of kernel seconds of each worker."""
    blocks = math.ceil((math.sqrt(8 * tiles + 1) - 1) / 2)
    x = np.random.default_rng(0).standard_normal((blocks * TILE, 8))
    x[:, 0] = milliseconds / 1000
    ratios, walls, kernels = [], [], []
    workers = 1
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            kernel = {"function": "scripts.benchmarks.overhead:busy_kernel"}
            ready = runs.prepared(Path(folder), x, LocalCluster(), kernel=kernel, gram={"tile": TILE})
            workers = ready.plan.resources.workers
            with runs.session(ready) as session:
                began = time.perf_counter()
                metrics = gram.run(session)
                walls.append(time.perf_counter() - began)
                kernels.append(metrics["seconds"])
                ratios.append(walls[-1] / (kernels[-1] / workers))
    return {
        "tiles": blocks * (blocks + 1) // 2,
        "workers": workers,
        "wall seconds": report.median(walls),
        "kernel seconds": report.median(kernels),
        "overhead ratio": report.median(ratios),
        "target": 1.15,
    }
