"""The neural tangent kernel: architectures as data, their kernels at infinite and at finite width.

Importing this package imports neither JAX nor NumPy; the names below load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntk import predict, stax, zoo
    from ntk.finite.empirical import (
        NtkImplementation,
        empirical_kernel_fn,
        empirical_nngp_fn,
        empirical_ntk_fn,
    )
    from ntk.finite.linearize import linearize, taylor_expand
    from ntk.finite.monte_carlo import monte_carlo_kernel_fn
    from ntk.finite.vector_products import empirical_ntk_vp_fn

__all__ = [
    "NtkImplementation",
    "empirical_kernel_fn",
    "empirical_nngp_fn",
    "empirical_ntk_fn",
    "empirical_ntk_vp_fn",
    "linearize",
    "monte_carlo_kernel_fn",
    "predict",
    "stax",
    "taylor_expand",
    "zoo",
]

_HOME = {
    "predict": "ntk.predict",
    "stax": "ntk.stax",
    "zoo": "ntk.zoo",
    "NtkImplementation": "ntk.finite.empirical",
    "empirical_kernel_fn": "ntk.finite.empirical",
    "empirical_nngp_fn": "ntk.finite.empirical",
    "empirical_ntk_fn": "ntk.finite.empirical",
    "empirical_ntk_vp_fn": "ntk.finite.vector_products",
    "linearize": "ntk.finite.linearize",
    "monte_carlo_kernel_fn": "ntk.finite.monte_carlo",
    "taylor_expand": "ntk.finite.linearize",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ntk' has no attribute {name!r}")
    home = import_module(_HOME[name])
    return home if home.__name__ == f"ntk.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
