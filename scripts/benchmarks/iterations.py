"""Products with the matrix that conjugate gradients need, with and without preconditioners, on enlarged digits."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import GateError
from pipeline.stages import gram, solve
from scripts.benchmarks import runs
from scripts.benchmarks.enlarged_digits import enlarged_digits

RIDGE = 1e-6
TOLERANCE = 1e-6


def measure(
    rows: int, rank: int | str, precision: str, limit: int, methods: tuple[str, ...]
) -> dict[str, Any]:
    """Products, predicted products and seconds to a relative residual of 1e-6 at a ridge of 1e-6, for each
    preconditioner; one Gram matrix for all. What `limit` products do not reach is said in words."""
    x, labels = enlarged_digits(rows)
    y = np.eye(10)[labels]
    result: dict[str, Any] = {"rows": rows}
    with tempfile.TemporaryDirectory() as folder:
        for method in methods:
            settings = {
                "method": "cg", "ridge": [RIDGE], "tolerance": TOLERANCE, "preconditioner": method, "rank": rank,
                "max_iterations": limit,
            }  # fmt: skip
            kernel = {"architecture": runs.RELU3, "precision": precision}
            ready = runs.prepared(
                Path(folder), x, runs.chosen_cluster(), y - y.mean(axis=0), kernel=kernel, solve=settings,
                spectrum={"method": "none"},
            )  # fmt: skip
            with runs.session(ready) as session:
                began = time.perf_counter()
                gram.run(session)
                result.setdefault("gram seconds", time.perf_counter() - began)
                began = time.perf_counter()
                try:
                    (found,) = solve.run(session)["ridges"]
                except GateError as gate:
                    result[f"{method}: not reached"] = str(gate).partition("\n")[0]
                    continue
                seconds = time.perf_counter() - began
                peak = session.peak_memory / 1e6
            result |= {
                f"{method}: products": found["products"],
                f"{method}: predicted": found["predicted_products"],
                f"{method}: rank": found["rank"],
                f"{method}: seconds": seconds,
                f"{method}: worst residual": found["gates"]["residual"]["value"],
                f"{method}: peak MB per worker": peak,
            }
    return result
