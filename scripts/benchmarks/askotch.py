"""Regression with no stored matrix (ASkotch) against conjugate gradients on a stored one, on enlarged digits."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.stages import gram, solve
from pipeline.stages.regression import ALPHA
from scripts.benchmarks import runs
from scripts.benchmarks.enlarged_digits import enlarged_digits

RIDGE = 1e-3
TOLERANCE = 1e-4


def measure(rows: int, precision: str, limit: int) -> dict[str, Any]:
    """Passes and seconds of both to a relative residual of 1e-4 at a ridge of 1e-3, the Gram stage counted with CG."""
    x, labels = enlarged_digits(rows)
    y = np.eye(10)[labels]
    result: dict[str, Any] = {"rows": rows}
    found: dict[str, np.ndarray] = {}
    for method in ("cg", "askotch"):
        settings = {"method": method, "ridge": [RIDGE], "tolerance": TOLERANCE, "max_iterations": limit}
        kernel = {"architecture": runs.RELU3, "precision": precision}
        with tempfile.TemporaryDirectory() as folder:
            ready = runs.prepared(
                Path(folder), x, runs.chosen_cluster(), y - y.mean(axis=0), kernel=kernel, solve=settings,
                spectrum={"method": "none"},
            )  # fmt: skip
            with runs.session(ready) as session:
                began = time.perf_counter()
                if ready.config.stores_gram:
                    gram.run(session)
                (entry,) = solve.run(session)["ridges"]
                result |= {
                    f"{method}: seconds": time.perf_counter() - began,
                    f"{method}: passes": entry["products"],
                    f"{method}: residual": entry["gates"]["residual"]["value"],
                    f"{method}: MB in the store": stored(session.directory) / 1e6,
                    f"{method}: peak MB per worker": session.peak_memory / 1e6,
                }
                found[method] = session.store.read_all(ALPHA)[0]
    apart = np.linalg.norm(found["askotch"] - found["cg"]) / np.linalg.norm(found["cg"])
    return result | {"coefficients apart": float(apart)}


def stored(directory: Path) -> int:
    """Bytes of the files in a run."""
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
