"""Predictions at training times from a Krylov space, against the eigendecomposition of the whole matrix."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from scipy.linalg import eigh
from sklearn.datasets import load_digits

from ntk import stax
from ntk.linalg.matrix_functions import gradient_flow, relaxation
from scripts.benchmarks import report

NET = stax.serial(
    *(layer for _ in range(3) for layer in (stax.Dense(512, W_std=1.5, b_std=0.05), stax.Relu())),
    stax.Dense(1),
)
TOLERANCE = 1e-6


def measure(rows: int, training_time: float, repeats: int) -> dict[str, Any]:
    """Seconds and passes over the matrix of one training time, and its error against all eigenpairs.

    The rows are the digits, shifted by noise of a tenth of a pixel's range once they are used up.
    """
    digits: Any = load_digits()
    rng = np.random.default_rng(0)
    picked = np.arange(rows) % len(digits.data)
    x = (
        digits.data[picked]
        + 1.6 * rng.standard_normal((rows, 64)) * (np.arange(rows) >= len(digits.data))[:, None]
    )
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.eye(10)[digits.target[picked]] - 0.1
    kernel = np.asarray(NET.kernel_fn(x, None, "ntk"))
    tau = training_time / y.size
    krylov, dense = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        flow = gradient_flow(lambda v: kernel @ v, y, [tau], tolerance=TOLERANCE, max_products=1000)
        krylov.append(time.perf_counter() - began)
        began = time.perf_counter()
        values, vectors = eigh(kernel, driver="evd")
        exact = vectors @ (relaxation(np.maximum(values, 0.0), tau)[:, None] * (vectors.T @ y))
        dense.append(time.perf_counter() - began)
    error = np.linalg.norm(flow.coefficients[0] - exact, axis=0) / np.linalg.norm(exact, axis=0)
    bound = flow.bounds[0] / np.linalg.norm(exact, axis=0)
    return {
        "rows": rows,
        "training time": training_time,
        "λ_max τ": float(values[-1] * tau),
        "products": flow.products,
        "krylov seconds": report.median(krylov),
        "eigh seconds": report.median(dense),
        "times faster": report.median(dense) / report.median(krylov),
        "relative error": float(error.max()),
        "its bound": float(bound.max()),
    }
