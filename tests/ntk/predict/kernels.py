"""Kernels of a ReLU network on random rows, and the reference values of neural-tangents 0.6.5.

`tests/data/reference/predict.npz` holds kernels of 100 digits and 6 test digits under a ReLU network of three hidden
layers, targets, and what neural-tangents predicts with diag_reg 1e-3 and learning rate 1: `gp`, `ens` (the ensemble),
`mse` (from given outputs) and `mse0` (from zero), with the regulariser relative (`rel`) or absolute (`abs`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ntk.analytic.results import NngpNtkKernels

N, M, OUTPUTS = 12, 4, 2


def references() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parents[2] / "data" / "reference" / "predict.npz") as archive:
        return dict(archive)


def reference_kernels(values: dict[str, np.ndarray], rows: str) -> NngpNtkKernels:
    return NngpNtkKernels(values[f"k_{rows}_nngp"], values[f"k_{rows}_ntk"])


def random_kernels(seed: int = 0) -> tuple[NngpNtkKernels, NngpNtkKernels, NngpNtkKernels, np.ndarray]:
    """Train-train, test-train and test-test kernels of one joint positive definite pair, and targets (N, OUTPUTS)."""
    rng = np.random.default_rng(seed)
    joint = []
    for spread in (1.0, 2.0):
        root = rng.standard_normal((N + M, N + M)) * spread
        joint.append(root @ root.T / (N + M) + 0.1 * np.eye(N + M))
    a, b = slice(0, N), slice(N, None)
    parts = [NngpNtkKernels(*(k[i, j] for k in joint)) for i, j in ((a, a), (b, a), (b, b))]
    return *parts, rng.standard_normal((N, OUTPUTS))


def kernel_fn(x1, x2, get):
    """The kernels above as a kernel function of row numbers."""
    train, cross, test, _ = random_kernels()
    top = np.arange(N + M)
    values = {}
    for name in ("nngp", "ntk"):
        whole = np.block(
            [[getattr(train, name), getattr(cross, name).T], [getattr(cross, name), getattr(test, name)]]
        )
        values[name] = whole[np.ix_(top[x1], top[x1 if x2 is None else x2])]
    return values[get] if isinstance(get, str) else NngpNtkKernels(values["nngp"], values["ntk"])
