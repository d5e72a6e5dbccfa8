"""Axes of targets and kernels, and the array library that computes with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk.analytic.results import Kernels
from ntk.arrays import axis_numbers, real
from ntk.tracing import traced


def library(*arrays: Any) -> Any:
    """jax.numpy if any of the arrays is traced, else numpy."""
    return jnp if traced(*arrays) else np


def floating(array: Any) -> np.dtype:
    """The floating dtype of results computed from `array`: its own, or float64 for integers."""
    dtype = np.dtype(getattr(array, "dtype", np.float64))
    return dtype if dtype in (np.dtype(np.float32), np.dtype(np.float64)) else np.dtype(np.float64)


def returned(value: Any, dtype: np.dtype) -> Any:
    """`value` for the caller: of the dtype, and a JAX array where JAX can hold it."""
    if traced(value):
        return value.astype(dtype) if jax.dtypes.canonicalize_dtype(dtype) == dtype else value
    value = np.asarray(value, dtype)
    return jnp.asarray(value) if jax.dtypes.canonicalize_dtype(dtype) == dtype else value


def wide(array: Any, name: str = "a kernel") -> Any:
    """Concrete arrays as float64, traced ones as they are. Raises ValueError for others than of real numbers."""
    array = real(array, name)
    return array if traced(array) else np.asarray(array, np.float64)


def one_kernel(kernel: Any, argument: str) -> Any:
    """A kernel as an array. Raises ValueError for kernels by name, and what `ntk.arrays.real` refuses."""
    if isinstance(kernel, Kernels):
        raise ValueError(
            f"{argument} must be one kernel, got those of a kernel_fn by name\nhint: k.ntk, or k.nngp"
        )
    return real(kernel, argument)


def matrix(kernel: Any) -> Any:
    """A kernel (a, b, c, d, …), its axes in pairs, as a matrix (a · c · …, b · d · …).

    Raises:
        ValueError: an odd number of axes.
    """
    if kernel.ndim % 2 or not kernel.ndim:
        raise ValueError(f"a kernel has its axes in pairs, got shape {kernel.shape}")
    rows, columns = kernel.shape[::2], kernel.shape[1::2]
    order = (*range(0, kernel.ndim, 2), *range(1, kernel.ndim, 2))
    return kernel.transpose(order).reshape(math.prod(rows), math.prod(columns))


def zipped(covariance: Any, rows: tuple[int, ...]) -> Any:
    """The inverse of `matrix` for a square one: (…, R, R) → (…, a, a, c, c, …), R = a · c · …"""
    lead, rank = covariance.shape[:-2], len(rows)
    order = [*range(len(lead)), *(len(lead) + axis + side for axis in range(rank) for side in (0, rank))]
    return covariance.reshape(*lead, *rows, *rows).transpose(order)


@dataclass(frozen=True, slots=True)
class Targets:
    """Training targets and the axes along which kernels are Θ ⊗ I.

    Attributes:
        shape: of the targets.
        trace: those axes, negative, ascending.
    """

    shape: tuple[int, ...]
    trace: tuple[int, ...]

    @staticmethod
    def of(y: Any, trace_axes: int | Sequence[int]) -> Targets:
        """Raises ValueError for axes that are not there, are named twice or are all of them."""
        given = axis_numbers(trace_axes, "trace_axes")
        rank = y.ndim
        if not all(-rank <= axis < rank for axis in given):
            raise ValueError(f"trace_axes {given}: targets of shape {y.shape} have no such axis")
        trace = tuple(sorted(axis - rank if axis >= 0 else axis for axis in given))
        if len(set(trace)) < len(trace) or len(trace) == rank:
            hint = "\nhint: y[:, None], one output for each row" if rank == 1 else ""
            raise ValueError(
                f"trace_axes {given}: must name axes of targets of shape {y.shape} once each, and leave one{hint}"
            )
        return Targets(tuple(y.shape), trace)

    @property
    def size(self) -> int:
        """Rows times outputs, the divisor of the mean in the loss."""
        return math.prod(self.shape)

    @property
    def traced_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in self.trace)

    @property
    def rows(self) -> int:
        """Rows of the kernel matrix."""
        return self.size // math.prod(self.traced_shape) if self.size else 0

    def columns(self, y: Any) -> Any:
        """Outputs (rows and outputs in the order of the targets) as columns: (rows of the kernel, traced outputs)."""
        xp = library(y)
        moved = xp.moveaxis(y, self.trace, range(-len(self.trace), 0))
        return moved.reshape(-1, math.prod(self.traced_shape))

    def outputs(self, columns: Any, rows: tuple[int, ...]) -> Any:
        """The inverse of `columns` for any rows: (…, R, traced outputs) → (…, \\*outputs), R the product of `rows`."""
        xp = library(columns)
        shaped = columns.reshape(*columns.shape[:-2], *rows, *self.traced_shape)
        return xp.moveaxis(shaped, range(-len(self.trace), 0), self.trace)

    def output_shape(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of outputs on other rows, with kernels of `rows` = kernel.shape[::2]."""
        return np.moveaxis(
            np.empty((*rows, *self.traced_shape), np.void), range(-len(self.trace), 0), self.trace
        ).shape
