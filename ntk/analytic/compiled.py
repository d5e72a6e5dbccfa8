"""How the kernels of tiles are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def compiled(run: Callable[..., Any]) -> Any:
    """`jax.jit(run)`, on a CPU in vectors as wide as the processor's. Not for use inside another `jax.jit`, which takes
    no options of a part."""
    # XLA keeps to 256 bits where there are 512, which costs float32 activations up to two fifths of their time.
    options = {"xla_cpu_prefer_vector_width": 512} if jax.default_backend() == "cpu" else None
    return jax.jit(run, compiler_options=options)
