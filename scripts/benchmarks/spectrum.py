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
        folder, x, runs.chosen_cluster(), spectrum=wanted, gram={"tile": tile}, solve={"method": "none"}
    )
    with runs.session(ready) as session:
        gram.run(session)
    allowed = parse_bytes(memory) + PROCESS_WITH_JAX - PROCESS
    resources = dataclasses.replace(ready.plan.resources, memory=allowed)
    ready = dataclasses.replace(ready, plan=dataclasses.replace(ready.plan, resources=resources))
    planned = ready.plan.stage("spectrum")
    assert planned is not None
    watch = Watch()
    with runs.session(ready, watch) as session:
        began = time.perf_counter()
        metrics = spectrum.run(session)["ntk"]
        wall = time.perf_counter() - began
        peak = float(session.peak_memory)
    result = {
        "spectrum seconds": wall,
        "plan seconds": ready.plan.seconds(planned),
        "peak MB per worker": peak / 1e6,
    }
    result |= {name: float(metrics[name]) for name in ("passes", "residual") if name in metrics}
    rate = dgemm_rate(min(rows, 2048))
    result["dgemm Gflop/s"] = rate
    if method == "band":
        reduction = watch.reduced - began
        result |= {
            "of which full to band": reduction,
            "band to eigenvalues": watch.values - watch.reduced,
            "Gflop/s of full to band": 4 / 3 * rows**3 / reduction / 1e9,
            "of the dgemm rate": 4 / 3 * rows**3 / reduction / 1e9 / rate,
        }
    if compare:
        matrix = open_run(folder / "run").gram("ntk").to_numpy(limit="64 GB")
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
        if method == "density":
            result |= off_the_bars(metrics["counts"], exact)
    return result


def off_the_bars(counts: dict[str, list[float]], exact: np.ndarray) -> dict[str, float]:
    """The integrated density against that of the exact eigenvalues, in units of its 95 % bars."""
    larger = np.sum(exact > np.array(counts["threshold"])[:, None], axis=1)
    # Below the smallest node both counts are n, above the largest 0, with no bar and nothing to tell.
    told = np.array(counts["half_width"]) > 0
    off = np.abs(np.array(counts["larger"]) - larger)[told] / np.array(counts["half_width"])[told]
    return {
        "integrated density: off by at most (bars)": float(off.max()),
        "off on average (bars)": float(off.mean()),
        "share of thresholds within the bars": float(np.mean(off <= 1)),
        "mean half width (eigenvalues)": float(np.mean(np.array(counts["half_width"])[told])),
        "off elsewhere (eigenvalues)": float(
            np.max(np.abs(np.array(counts["larger"]) - larger)[~told], initial=0)
        ),
    }


def dgemm_rate(rows: int) -> float:
    """Gflop/s of a product of square matrices with all threads of this process, the best of five."""
    a = np.random.default_rng(0).standard_normal((rows, rows))
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - began)
    return 2 * rows**3 / min(seconds) / 1e9


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
