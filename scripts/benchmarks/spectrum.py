"""The spectrum stage out of core, within a memory limit, against LAPACK in memory."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import eigvalsh

from pipeline.config.cluster import LocalCluster
from pipeline.config.sizes import parse_bytes
from pipeline.opened import open_run
from pipeline.plan.memory import PROCESS, PROCESS_WITH_JAX
from pipeline.runtime.events import TaskDone
from pipeline.stages import gram, spectrum
from pipeline.stages.session import Progress
from scripts.benchmarks import report, runs

FEATURES = 32


def measure(
    rows: int, memory: str, method: str, count: int, tile: int, compare: bool, repeats: int
) -> dict[str, Any]:
    """Wall time of the spectrum stage in workers of its own, their peak memory, and LAPACK on the same matrix."""
    results: list[dict[str, float]] = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=os.environ.get("NTK_BENCH_DIR")) as folder:
            results.append(_once(Path(folder), rows, memory, method, count, tile, compare))
    medians = {name: report.median([result[name] for result in results]) for name in results[0]}
    return {"rows": rows, "method": method} | medians | {"limit MB per worker": parse_bytes(memory) / 1e6}


def _once(
    folder: Path, rows: int, memory: str, method: str, count: int, tile: int, compare: bool
) -> dict[str, float]:
    x = np.random.default_rng(0).standard_normal((rows, FEATURES))
    wanted: dict[str, Any] = {"method": method, "vectors": 0 if method == "band" else 16}
    if method == "lanczos":
        wanted |= {"count": count, "vectors": count}
    # Workers of this session have JAX loaded; those of the next have not. Plans allow for it, so it is added to the
    # limit that the workers are held to here.
    ready = runs.prepared(
        folder, x, LocalCluster(), spectrum=wanted, gram={"tile": tile}, solve={"method": "none"}
    )
    with runs.session(ready) as session:
        gram.run(session)
    allowed = parse_bytes(memory) + PROCESS_WITH_JAX - PROCESS
    resources = dataclasses.replace(ready.plan.resources, memory=allowed)
    ready = dataclasses.replace(ready, plan=dataclasses.replace(ready.plan, resources=resources))
    watch = Watch()
    with runs.session(ready, watch) as session:
        began = time.perf_counter()
        metrics = spectrum.run(session)["ntk"]
        wall = time.perf_counter() - began
        peak = float(session.peak_memory)
    result = {"spectrum seconds": wall, "peak MB per worker": peak / 1e6}
    result |= {name: float(metrics[name]) for name in ("passes", "residual") if name in metrics}
    if method == "band":
        reduction = watch.reduced - began
        result |= {
            "of which full to band": reduction,
            "band to eigenvalues": watch.values - watch.reduced,
            "Gflop/s of full to band": 4 / 3 * rows**3 / reduction / 1e9,
        }
    if compare:
        matrix = open_run(folder / "run").gram("ntk").to_numpy(limit="64 GB")
        began = time.perf_counter()
        a = matrix[: min(rows, 2048), : min(rows, 2048)].copy()
        for _ in range(3):
            a @ a
        result["dgemm Gflop/s"] = 6 * len(a) ** 3 / (time.perf_counter() - began) / 1e9
        began = time.perf_counter()
        exact = eigvalsh(matrix, overwrite_a=True, check_finite=False)[::-1]
        lapack = time.perf_counter() - began
        result |= {"eigvalsh seconds": lapack, "spectrum / eigvalsh": wall / lapack}
        if method in ("band", "eigh", "lanczos"):
            stored = open_run(folder / "run").eigenvalues("ntk")
            scale = rows * np.finfo(np.float64).eps * exact[0]
            result["largest error / (n eps lambda_max)"] = float(
                np.max(np.abs(stored - exact[: len(stored)])) / scale
            )
    return result


class Watch:
    """Notes when the last panel was recorded, and the eigenvalues."""

    def __init__(self) -> None:
        self.reduced = self.values = 0.0

    def __call__(self, progress: Progress) -> None:
        if isinstance(progress.event, TaskDone):
            if "/panel/" in progress.event.key:
                self.reduced = time.perf_counter()
            if progress.event.key.endswith("/values"):
                self.values = time.perf_counter()
