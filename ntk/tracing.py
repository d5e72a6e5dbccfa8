"""Whether arrays are known, or traced by `jax.jit`, `grad` or `vmap`."""

from __future__ import annotations

from typing import Any

import jax
from jax.core import Tracer


def traced(*trees: Any) -> bool:
    """Whether any array of these is traced."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


def concrete(value: Any, name: str, hint: str = "make the predict_fn outside of jit, grad and vmap") -> Any:
    """`value` itself. Raises ValueError where any array of it is traced."""
    if traced(value):
        raise ValueError(f"{name} must be known, got a traced array\nhint: {hint}")
    return value
