"""Infinite width: the kernels of architectures, one propagation rule per layer."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntk.analytic.costs import Cost, cost
    from ntk.analytic.kernel import KernelFn
    from ntk.analytic.results import Kernels
    from ntk.analytic.tile import TileKernel

__all__ = ["Cost", "KernelFn", "Kernels", "TileKernel", "cost"]

_HOME = {
    "KernelFn": "ntk.analytic.kernel",
    "Kernels": "ntk.analytic.results",
    "TileKernel": "ntk.analytic.tile",
    "cost": "ntk.analytic.costs",
    "Cost": "ntk.analytic.costs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ntk.analytic' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
