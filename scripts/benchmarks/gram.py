"""The gram stage end to end: three hidden ReLU layers, float32, 784 features."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.cluster import LocalCluster
from pipeline.stages import gram
from scripts.benchmarks import report, runs

FEATURES = 784


def measure(rows: int, repeats: int) -> dict[str, Any]:
    """Wall time of the stage, of its kernels, and of the upper-triangle matrix products alone."""
    x = np.random.default_rng(0).standard_normal((rows, FEATURES))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    walls, kernels, products = [], [], []
    workers = 1
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            kernel = {"architecture": runs.RELU3, "precision": "float32"}
            ready = runs.prepared(Path(folder), x, LocalCluster(), kernel=kernel)
            workers, grid = ready.plan.resources.workers, ready.plan.grid
            with runs.session(ready) as session:
                began = time.perf_counter()
                metrics = gram.run(session)
                walls.append(time.perf_counter() - began)
                kernels.append(metrics["seconds"] / workers)
            products.append(_products(x.astype(np.float32), grid))
    return {
        "rows": rows,
        "tile": grid.tile,
        "workers": workers,
        "stage seconds": report.median(walls),
        "kernel seconds per worker": report.median(kernels),
        "matrix product seconds": report.median(products),
        "stage / kernels": report.median([w / k for w, k in zip(walls, kernels, strict=True)]),
        "stage / matrix products": report.median([w / p for w, p in zip(walls, products, strict=True)]),
        "ns per unique entry": 1e9 * report.median(walls) / (rows * (rows + 1) / 2),
    }


def _products(x: np.ndarray, grid: Any) -> float:
    """Seconds of X_i X_jᵀ over the upper tiles by NumPy, with all threads."""
    began = time.perf_counter()
    for i, j in grid.upper():
        x[grid.rows(i)] @ x[grid.rows(j)].T
    return time.perf_counter() - began
