"""examples/cifar10_size.yaml at any number of rows: Cholesky and conjugate gradients on one Gram matrix, and how far
their predictions are apart."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.load import load_cluster, load_run
from pipeline.stages.order import run_stages
from pipeline.stages.predict import PREDICTIONS
from pipeline.stages.prepare import prepare
from pipeline.stages.regression import ALPHA
from scripts.benchmarks import runs
from scripts.benchmarks.solve_direct import Watch

EXAMPLE = Path(__file__).parents[2] / "examples" / "cifar10_size.yaml"
TEST_SHARE = 5
"""Training rows for each held-out one, as in the example."""

PRODUCT_ROWS = 4096


def measure(rows: int, memory: str) -> dict[str, Any]:
    """Seconds, rates and memory of both solvers, and how far apart coefficients and predictions are.

    With R the residual that conjugate gradients leave, predictions of the training rows differ by K (K + λI)⁻¹ R, by
    ‖R‖ at most: on the held-out rows it should be no more than a few times the tolerance either.
    """
    result: dict[str, Any] = {"rows": rows}
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for method in ("cholesky", "cg"):
            changes = [
                f"data.train.rows={rows}", f"data.test.rows={max(rows // TEST_SHARE, 10)}", "spectrum.method=none",
                f"solve.method={method}", f"out={folder}/run",
            ]  # fmt: skip
            config = load_run(EXAMPLE, changes)
            cluster = load_cluster(config.cluster, EXAMPLE.parent)
            if memory != "auto":
                cluster = cluster.model_copy(update={"memory": memory})
            watch = Watch()
            ready = prepare(config, cluster, folder=EXAMPLE.parent)
            with runs.session(ready, watch) as session:
                began = time.perf_counter()
                run_stages(session, ready.plan, only="gram")
                gram = time.perf_counter() - began
                watch.began = time.perf_counter()
                (entry,) = run_stages(session, ready.plan, only="solve")["solve"]["ridges"]
                seconds = time.perf_counter() - watch.began
                score = run_stages(session, ready.plan, only="predict")["predict"]
                found[method] = session.store.read_all(ALPHA)[0], session.store.read_all(PREDICTIONS)[0]
                if method == "cholesky":
                    rate = product_rate()
                    result |= {
                        "tile": session.grid.tile,
                        "gram seconds": gram,
                        "factor seconds": watch.factor,
                        "factor Gflop/s": rows**3 / 3e9 / watch.factor,
                        "dgemm Gflop/s, all cores": rate,
                        "share of the dgemm rate": rows**3 / 3e9 / watch.factor / rate,
                    }
                else:
                    result |= {"cg: products": entry["products"], "cg: rank": entry["rank"]}
                result |= {
                    f"{method}: seconds": seconds,
                    f"{method}: peak MB per worker": session.peak_memory / 1e6,
                    f"{method}: limit MB per worker": session.resources.memory / 1e6,
                    f"{method}: accuracy": score.get("accuracy"),
                    f"{method}: gates": {name: gate["value"] for name, gate in entry["gates"].items()},
                }
            # A long run: what is known of it so far.
            print(f"{method}: {result}", file=sys.stderr, flush=True)
    (direct, direct_test), (iterated, iterated_test) = found["cholesky"], found["cg"]
    apart = float(np.linalg.norm(iterated_test - direct_test) / np.linalg.norm(direct_test))
    return result | {
        "tolerance": config.solve.tolerance,
        "coefficients apart": float(np.linalg.norm(iterated - direct) / np.linalg.norm(direct)),
        "predictions apart": apart,
        "predictions apart / tolerance": apart / config.solve.tolerance,
        "largest difference of a prediction": float(np.abs(iterated_test - direct_test).max()),
        "labels that differ": int(np.sum(iterated_test.argmax(axis=1) != direct_test.argmax(axis=1))),
    }


def product_rate() -> float:
    """Gflop/s of float64 matrix products by BLAS in this process, with the threads it has."""
    x = np.random.default_rng(0).standard_normal((PRODUCT_ROWS, PRODUCT_ROWS))
    walls = []
    for _ in range(3):
        began = time.perf_counter()
        x @ x
        walls.append(time.perf_counter() - began)
    return 2e-9 * PRODUCT_ROWS**3 / sorted(walls)[1]
