"""The gram stage end to end: three hidden ReLU layers, float32, against its arithmetic alone."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.plan.tasks import Record, Task
from pipeline.plan.tiles import TileGrid
from pipeline.runtime.drive import drive
from pipeline.stages import gram
from pipeline.stages.kernels import KernelSpec
from pipeline.stages.worker import worker_name
from scripts.benchmarks import report, runs

FEW_FEATURES = 8
"""A kernel of inputs this short is all activations and no product."""

SAMPLE = 24
"""Tiles per worker of which the arithmetic alone is timed."""


@dataclass(frozen=True, slots=True)
class ArithmeticWork:
    """Products X_i X_jᵀ of whole tiles by BLAS, and the kernel of inputs of a few features, nothing else."""

    spec: KernelSpec
    tile: int
    features: int

    def __call__(self, task: Task) -> list[Record]:
        kernel = self.spec.build(self.tile)
        rng = np.random.default_rng(0)
        x, y = (rng.standard_normal((self.tile, self.features), np.float32) for _ in range(2))
        short = np.ascontiguousarray(x[:, :FEW_FEATURES])
        other = np.ascontiguousarray(y[:, :FEW_FEATURES])
        kernel(short, other)
        times: dict[str, float] = {"products": 0.0, "activations": 0.0}
        for _ in range(task.args[0]):
            began = time.perf_counter()
            x @ y.T
            middle = time.perf_counter()
            kernel(short, other)
            times["products"] += middle - began
            times["activations"] += time.perf_counter() - middle
        return [Record("bench", (), "", (), "", 0.0, 0, worker_name(), 0.0, task.key, times)]


def measure(rows: int, features: int, repeats: int) -> dict[str, Any]:
    """Wall time of the stage with its workers up, and what its products and activations alone take in the same workers,
    all of them at work: seconds of a sample of tiles, times the number of tiles, over the workers."""
    x = np.random.default_rng(0).standard_normal((rows, features), np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    walls, products, activations, kernels, peaks = [], [], [], [], []
    workers, tile, written = 1, 0, 0
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            kernel = {"architecture": runs.RELU3, "precision": "float32"}
            ready = runs.prepared(Path(folder), x, runs.chosen_cluster(), kernel=kernel)
            workers, grid = ready.plan.resources.workers, ready.plan.grid
            tile = grid.tile
            with runs.session(ready) as session:
                alone = _arithmetic(session.executor, ready.spec, grid, features, workers)
                began = time.perf_counter()
                metrics = gram.run(session)
                walls.append(time.perf_counter() - began)
                again = _arithmetic(session.executor, ready.spec, grid, features, workers)
            products.append((alone["products"] + again["products"]) / 2)
            activations.append((alone["activations"] + again["activations"]) / 2)
            kernels.append(metrics["seconds"] / workers)
            peaks.append(float(session.peak_memory))
            written = metrics["bytes"]
    alone = [p + a for p, a in zip(products, activations, strict=True)]
    return {
        "rows": rows,
        "features": features,
        "tile": tile,
        "workers": workers,
        "stage seconds": report.median(walls),
        "products alone": report.median(products),
        "activations alone": report.median(activations),
        "kernel seconds per worker": report.median(kernels),
        "stage / (products + activations)": report.median([w / a for w, a in zip(walls, alone, strict=True)]),
        "target": 1.25,
        "peak MB per worker": max(peaks) / 1e6,
        "GB written": written / 1e9,
        "ns per unique entry": 1e9 * report.median(walls) / (rows * (rows + 1) / 2),
    }


def _arithmetic(
    executor: Any, spec: KernelSpec, grid: TileGrid, features: int, workers: int
) -> dict[str, float]:
    """Seconds that the products and the activations of the whole upper triangle take, spread over the workers."""
    from dataclasses import replace

    few = replace(spec, input_shape=(FEW_FEATURES,))
    executor.bind(ArithmeticWork(few, grid.tile, features))
    each = max(1, min(SAMPLE, grid.count // workers))
    found: list[Record] = []
    drive(
        [Task(f"arithmetic/{n}", "arithmetic", (each,)) for n in range(workers)],
        executor,
        on_records=found.extend,
    )
    entries = sum(grid.entries(i, j) for i, j in grid.upper())
    scale = entries / (each * grid.tile**2) / workers / len(found)
    return {name: scale * sum(record.note[name] for record in found) for name in ("products", "activations")}
