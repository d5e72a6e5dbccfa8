"""The limits of JAX's device, which figures of the same run are held against."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scripts.benchmarks.kernels import timed


def measure(rows: int, repeats: int) -> dict[str, Any]:
    """Rates of the device alone, medians: nothing is read back but for one number, except where the way is measured."""
    with jax.enable_x64(True):
        host = np.random.default_rng(0).standard_normal((rows, rows))
        there = jax.device_put(host)
        found: dict[str, Any] = {"device": jax.devices()[0].device_kind, "rows": rows}
        copy = jax.jit(lambda x: x + 1.0)

        def seconds(function: Any, *operands: Any) -> float:
            return timed(lambda: jax.block_until_ready(function(*operands)), repeats)

        found["copy GB/s"] = 2e-9 * host.nbytes / seconds(copy, there)
        found["to the device GB/s"] = 1e-9 * host.nbytes / seconds(jax.device_put, host)
        # A new array each time: JAX keeps what it brought to the host.
        found["from the device GB/s"] = 1e-9 * host.nbytes / timed(lambda: np.array(copy(there)), repeats)
        product = jax.jit(lambda x: jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST))
        factor = jax.jit(lambda x: jnp.linalg.cholesky(x, upper=True, symmetrize_input=False))
        for dtype in (jnp.float32, jnp.float64):
            x = there.astype(dtype)
            name = np.dtype(dtype).name
            positive = jax.block_until_ready(product(x) + rows * jnp.eye(rows, dtype=dtype))
            found[f"product, {name} Gflop/s"] = 2e-9 * rows**3 / seconds(product, x)
            found[f"Cholesky, {name} Gflop/s"] = rows**3 / 3e9 / seconds(factor, positive)
    return found
