"""What `kernel_fn` is called with, checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from ntk.analytic.results import NAMES, Kernels
from ntk.arrays import real
from ntk.errors import ArchitectureError

#: What `kernel_fn` of neural_tangents takes beside its inputs, `get` and `pattern`, and why it is not here.
_NOT_HERE = {
    "mask_constant": "inputs have no masks; leave rows out, or fill what is missing",
    "diagonal_batch": "for x1 with x2 row by row take the diagonal of kernel_fn(x1, x2)",
    "diagonal_spatial": "what of a covariance is computed follows from the architecture",
}


def refuse(arguments: dict[str, Any]) -> None:
    """Raise ValueError for arguments that `kernel_fn` does not take; None for one of neural_tangents is its default."""
    for name, value in arguments.items():
        if name not in _NOT_HERE or value is not None:
            hint = f"\nhint: {_NOT_HERE[name]}" if name in _NOT_HERE else ""
            raise ValueError(f"kernel_fn takes x1, x2, get and pattern, got {name}={value!r}{hint}")


def given(x: Any, name: str) -> Any:
    """Inputs as an array. Raises ArchitectureError for what is none of real numbers."""
    if isinstance(x, Kernels):
        raise ArchitectureError(
            f"{name} must be inputs, got the kernels of another kernel_fn\n"
            "hint: architectures compose, kernels do not: stax.serial(first, second).kernel_fn(x1, x2)"
        )
    if isinstance(x, str) and x.lower() in NAMES:
        raise ArchitectureError(f"{name} must be inputs, got {x!r}\nhint: kernel_fn(x1, None, {x!r})")
    return real(x, name, ArchitectureError)


def floating(x: Any) -> np.ndarray:
    """Concrete inputs in the precision they are computed in."""
    x = np.asarray(x)
    if x.dtype in (np.float32, np.float64):
        return x
    return x.astype(np.float32 if x.dtype.itemsize <= 2 and x.dtype.kind in "fV" else np.float64)
