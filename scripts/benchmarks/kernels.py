"""Kernel functions on whole symmetric matrices, compilation excluded, against the matrix product and a peer library.

The peer is `neural-tangents`, which needs an older JAX and so a Python environment of its own; give its interpreter
with `--peer` (`scripts/benchmarks/peer.py` says how to make one) and both are measured in the same run.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scripts.benchmarks import report


def fully_connected(activation: str, depth: int) -> list[Any]:
    """`depth` hidden layers of one activation."""
    return [
        *[{"Dense": {"out_dim": 512, "W_std": 1.5, "b_std": 0.05}}, activation] * depth,
        {"Dense": {"out_dim": 1}},
    ]


CONV: list[Any] = [
    {"Conv": {"out_chan": 64, "filter_shape": [3, 3], "padding": "SAME", "W_std": 1.5, "b_std": 0.05}},
    "Relu",
]
HALVED = {"AvgPool": {"window_shape": [2, 2], "strides": [2, 2]}}
MYRTLE_5 = [*CONV * 2, HALVED, *CONV, HALVED, *CONV, HALVED, HALVED, "Flatten", {"Dense": {"out_dim": 1}}]
MYRTLE_5_32 = [*CONV * 2, HALVED, *CONV, HALVED, *CONV, "GlobalAvgPool", {"Dense": {"out_dim": 1}}]
"""The same network, whose last averages are one over all positions, on images of any size."""

CASES: dict[str, tuple[list[Any], tuple[int, ...], int]] = {
    "fc-relu-3": (fully_connected("Relu", 3), (784,), 8192),
    "fc-erf-3": (fully_connected("Erf", 3), (784,), 8192),
    "fc-gelu-3": (fully_connected("Gelu", 3), (784,), 8192),
    "fc-relu-10": (fully_connected("Relu", 10), (784,), 4096),
    "conv-flatten-5": ([*CONV * 5, "Flatten", {"Dense": {"out_dim": 1}}], (8, 8, 3), 1024),
    "conv-gap-5": ([*CONV * 5, "GlobalAvgPool", {"Dense": {"out_dim": 1}}], (8, 8, 3), 256),
    "myrtle-5": (MYRTLE_5, (16, 16, 3), 256),
    "myrtle-5-32": (MYRTLE_5_32, (32, 32, 3), 16),
}
"""Name → architecture, shape of one input, rows."""

ACCELERATOR_ROWS = {"conv-flatten-5": 4096, "conv-gap-5": 1024, "myrtle-5": 1024, "myrtle-5-32": 1024}
"""Rows on a GPU, where those of `CASES` would be too few to fill it."""

PEER_ROWS = {"conv-flatten-5": 512, "conv-gap-5": 64, "myrtle-5": 32}
"""Rows that the peer is given where it keeps every pair of positions in memory at once; else as many as we take."""


def inputs(shape: tuple[int, ...], rows: int, dtype: str) -> np.ndarray:
    """Gaussian inputs of unit norm, the same in every process."""
    x = np.random.default_rng(0).standard_normal((rows, *shape))
    return (x / np.linalg.norm(x.reshape(rows, -1), axis=1).reshape(rows, *[1] * len(shape))).astype(dtype)


def measure(case: str, precision: str, repeats: int, peer: Path | None) -> dict[str, Any]:
    """Median seconds of the whole symmetric NTK matrix, its matrix product alone, and the peer's; from NumPy arrays to
    NumPy arrays, whatever the device."""
    import jax

    from ntk import stax

    device = jax.devices()[0]
    spec, shape, rows = CASES[case]
    if device.platform != "cpu":
        rows = ACCELERATOR_ROWS.get(case, rows)
    x = inputs(shape, rows, precision)
    kernel_fn = stax.from_spec(spec).kernel_fn
    own = timed(lambda: np.asarray(kernel_fn(x, None, "ntk")), repeats)
    flat = x.reshape(rows, -1)
    product = _product_seconds(flat, device.platform, repeats)
    pairs = rows * (rows + 1) / 2
    result = {
        "case": case,
        "precision": precision,
        "device": device.device_kind,
        "rows": rows,
        "seconds": own,
        "ns per unique pair": 1e9 * own / pairs,
        "full matrix product seconds": product,
        "seconds / (half the matrix product)": own / (product / 2),
    }
    if peer is not None:
        # With positions the peer is faster in the wider precision, where XLA fuses less: it is compared at its best.
        tried = ("float64", "float32") if len(shape) > 1 and precision == "float32" else (precision,)
        theirs = {other: _peer_nanoseconds(peer, case, other, repeats) for other in tried}
        result |= {f"peer ns per unique pair, {other}": figure for other, figure in theirs.items()}
        result["times faster than the peer"] = min(theirs.values()) / result["ns per unique pair"]
    return result


def _product_seconds(flat: np.ndarray, platform: str, repeats: int) -> float:
    """Of all products of rows: NumPy's, or the device's alone, nothing moved to it or from it."""
    if platform == "cpu":
        # A copy: NumPy computes half of a matrix times its own transpose, and the pairs are charged with half.
        other = flat.copy()
        return timed(lambda: flat @ other.T, repeats)
    import jax

    with jax.enable_x64(True):
        there = jax.device_put(flat)
        product = jax.jit(lambda x: jax.numpy.matmul(x, x.T, precision="highest"))
        return timed(lambda: jax.block_until_ready(product(there)), repeats)


def timed(function: Callable[[], Any], repeats: int) -> float:
    """Median seconds of a call, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return report.median(times)


def _peer_nanoseconds(python: Path, case: str, precision: str, repeats: int) -> float:
    """Nanoseconds per unique pair."""
    spec, shape, rows = CASES[case]
    rows = PEER_ROWS.get(case, rows)
    request = {"spec": spec, "shape": shape, "rows": rows, "precision": precision, "repeats": repeats}
    script = Path(__file__).with_name("peer.py")
    done = subprocess.run(
        [str(python), str(script)], input=json.dumps(request), capture_output=True, text=True, check=True
    )
    return 1e9 * float(json.loads(done.stdout)["seconds"]) / (rows * (rows + 1) / 2)
