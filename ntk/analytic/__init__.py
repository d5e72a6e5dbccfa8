"""Infinite width: the kernels of architectures, one propagation rule per layer."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {"KernelFn": "ntk.analytic.kernel", "Kernels": "ntk.analytic.kernel", "TileKernel": "ntk.analytic.tile",
         "cost": "ntk.analytic.costs", "Cost": "ntk.analytic.costs"}

__all__ = ["Cost", "KernelFn", "Kernels", "TileKernel", "cost"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ntk.analytic' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
