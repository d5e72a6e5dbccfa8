"""The device that JAX computes on: how functions are compiled for it, and the ways to it and from it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np


def compiled(run: Callable[..., Any]) -> Any:
    """`jax.jit(run)` as suits the device. Not for use inside another `jax.jit`, which takes no options of a part.

    On a CPU in vectors as wide as the processor's: XLA keeps to 256 bits where there are 512, which costs float32
    activations up to two fifths of their time. On a GPU without trying algorithms for products out, which takes ten
    seconds for a network of three layers, gains nothing, and lets last digits depend on what a clock showed.
    """
    options = (
        {"xla_cpu_prefer_vector_width": 512}
        if jax.default_backend() == "cpu"
        else {"xla_gpu_autotune_level": 0}
    )
    return jax.jit(run, compiler_options=options)


def on_device(array: np.ndarray) -> jax.Array:
    """An array on the device, of its dtype; it is there when this returns."""
    with jax.enable_x64(True):
        return jax.device_put(array).block_until_ready()


def to_host(x: jax.Array) -> np.ndarray:
    """`np.asarray(x)`, read-only; from a GPU by way of page-locked memory, which is 20 times faster."""
    pinned = _pinned()
    return np.asarray(x if pinned is None else jax.device_put(x, pinned))


@cache
def _pinned() -> jax.sharding.Sharding | None:
    device = jax.local_devices()[0]
    if device.platform == "cpu" or "pinned_host" not in {kind.kind for kind in device.addressable_memories()}:
        return None
    return jax.sharding.SingleDeviceSharding(device, memory_kind="pinned_host")


def device_memory() -> int:
    """Bytes of the device's memory that JAX has; 0 where it does not say."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)
