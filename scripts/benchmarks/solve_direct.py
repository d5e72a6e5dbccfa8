"""The direct half of the solve stage, within a memory limit, against LAPACK and scikit-learn in memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import cho_factor

from pipeline.config.sizes import parse_bytes
from pipeline.plan.gram import gram_array
from pipeline.runtime.events import TaskDone
from pipeline.stages import gram, solve
from pipeline.stages.cholesky_work import RESIDUAL
from pipeline.stages.regression import ALPHA
from pipeline.stages.session import Progress, Session
from scripts.benchmarks import report, runs

FEATURES = 64
OUTPUTS = 10
RIDGE = 1e-3


def cholesky(rows: int, memory: str, repeats: int) -> dict[str, Any]:
    """The factor out of core against `scipy.linalg.cho_factor` of the same matrix in memory, with the same threads."""
    found: list[dict[str, float]] = []
    for _ in range(repeats):
        with _regression(rows, memory, "float64") as (session, watch):
            wall = _solve(session, watch)
            matrix = _matrix(session)
            began = time.perf_counter()
            cho_factor(matrix, lower=False, overwrite_a=True, check_finite=False)
            dense = time.perf_counter() - began
            found.append({
                "factor seconds": watch.factor,
                "cho_factor seconds": dense,
                "factor / cho_factor": watch.factor / dense,
                "factor Gflop/s": rows**3 / 3e9 / watch.factor,
                "coefficients seconds": watch.coefficients,
                "with gates, seconds": watch.gates,
                "whole stage seconds": wall,
                "peak MB per worker": session.peak_memory / 1e6,
            })  # fmt: skip
            tile = session.grid.tile
    medians = {name: report.median([one[name] for one in found]) for name in found[0]}
    return {"rows": rows, "tile": tile} | medians | {"limit MB per worker": parse_bytes(memory) / 1e6}


def refinement(rows: int, memory: str, repeats: int) -> dict[str, Any]:
    """The whole stage with a float32 factor and float64 refinement against the stage with a float64 factor."""
    found: dict[str, list[float]] = {"float64": [], "float32": []}
    errors: dict[str, float] = {}
    steps = 0
    for _ in range(repeats):
        for factor, seconds in found.items():
            with _regression(rows, memory, factor) as (session, watch):
                seconds.append(_solve(session, watch))
                (entry,) = session.require("solve")["ridges"]
                if entry["factor"] != factor:
                    raise RuntimeError(entry["fallback"])
                gate = entry["gates"]["solution"]
                errors[factor] = gate["value"] * float(np.finfo(np.float64).eps)
                steps = entry.get("refinement", {}).get("steps", steps)
    return {
        "rows": rows,
        "float64 seconds": report.median(found["float64"]),
        "float32 seconds": report.median(found["float32"]),
        "times faster": report.median(
            [a / b for a, b in zip(found["float64"], found["float32"], strict=True)]
        ),
        "float64 backward error": errors["float64"],
        "float32 backward error": errors["float32"],
        "refinement steps": steps,
    }


def kernel_ridge(rows: int, memory: str, repeats: int) -> dict[str, Any]:
    """The stage against scikit-learn's KernelRidge on the same precomputed matrix, which is in its memory already."""
    from sklearn.kernel_ridge import KernelRidge

    with _regression(rows, memory, "float64", in_memory="auto") as (session, watch):
        wall = _solve(session, watch)
        matrix = _matrix(session)
        shift = RIDGE * session.require("gram")["ntk"]["mean_diagonal"]
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            KernelRidge(alpha=shift, kernel="precomputed").fit(matrix, session.targets)
            times.append(time.perf_counter() - began)
        theirs = report.median(times)
        coefficients = watch.coefficients
        return {
            "rows": rows,
            "coefficients seconds": coefficients,
            "with gates, seconds": watch.gates,
            "with leave-one-out and gates, seconds": wall,
            "KernelRidge seconds": theirs,
            "coefficients / KernelRidge": coefficients / theirs,
            "with gates / KernelRidge": watch.gates / theirs,
        }


@contextmanager
def _regression(
    rows: int, memory: str, factor: str, *, in_memory: bool | str = False
) -> Iterator[tuple[Session, Watch]]:
    """A run whose Gram stage is done."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, FEATURES))
    y = np.sin(x[:, :OUTPUTS])
    options = {
        "solve": {"method": "cholesky", "ridge": [RIDGE], "factor": factor, "in_memory": in_memory},
        "spectrum": {"method": "none"},
    }
    with tempfile.TemporaryDirectory() as folder:
        cluster = runs.chosen_cluster().model_copy(update={"memory": memory})
        ready = runs.prepared(Path(folder), x, cluster, y, **options)
        watch = Watch()
        with runs.session(ready, watch) as session:
            gram.run(session)
            yield session, watch


def _solve(session: Session, watch: Watch) -> float:
    """Wall seconds of the solve stage."""
    watch.began = time.perf_counter()
    solve.run(session)
    return time.perf_counter() - watch.began


def _matrix(session: Session) -> np.ndarray:
    """The Gram matrix in memory, both triangles, with the ridge's share of the diagonal for a factorisation."""
    grid = session.grid
    matrix = np.empty((grid.n, grid.n))
    for i, j in grid.upper():
        tile = session.store.read(gram_array("ntk"), (i, j))
        matrix[grid.rows(i), grid.rows(j)] = tile
        matrix[grid.rows(j), grid.rows(i)] = tile.T
    matrix[np.diag_indices(grid.n)] += RIDGE * session.require("gram")["ntk"]["mean_diagonal"]
    return matrix


class Watch:
    """Notes when the last tile of the factor, the coefficients and their gates were stored; seconds since `began`."""

    def __init__(self) -> None:
        self.began = self.factor = self.coefficients = self.gates = 0.0

    def __call__(self, progress: Progress) -> None:
        if isinstance(progress.event, TaskDone):
            passed = time.perf_counter() - self.began
            if progress.event.key.startswith("cholesky/"):
                self.factor = passed
            elif progress.event.key.startswith("substitute/"):
                self.coefficients = passed
            elif progress.event.key.startswith("gates/"):
                self.gates = passed
            elif progress.event.key.startswith("dense-solve/"):
                # One task for all; how long each array took stands in its record, what came before is the rest.
                records = {record.array: record.seconds for record in progress.event.records}
                before = passed - max(records.values())
                self.coefficients, self.gates = (before + records[name] for name in (ALPHA, RESIDUAL))
