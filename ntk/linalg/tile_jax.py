"""The steps of `ntk.linalg.tile_cholesky`, `ntk.linalg.band_reduction` and `ntk.linalg.operator` on JAX's device:
cuBLAS and cuSOLVER where that is a GPU.

Cholesky: a tile is computed on the device and stays there; operands are there already, or sent one after the other.
Reduction to a band: the factors and the product stay there for a sweep, the tiles pass through. Products with vectors:
so do they, and tiles may stay. Products ask for full precision, which on a GPU means no TF32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ntk.device import on_device, to_host
from ntk.linalg import tile_cholesky
from ntk.linalg.tile_cholesky import Tile

Operand = Tile | jax.Array

HIGHEST = jax.lax.Precision.HIGHEST


class DeviceSteps:
    """A tile of the factor in the making on the device, where it stays when it is finished.

    Args as `ntk.linalg.tile_cholesky.HostSteps`; operands may be on the device already (`ntk.device.on_device`).
    """

    def __init__(self, a: Tile, shift: float = 0.0, dtype: Any = None):
        with jax.enable_x64(True):
            self._s = _shifted(jnp.asarray(a), np.float64(shift), np.dtype(dtype or a.dtype).name)

    def update(self, a: Operand, b: Operand | None = None) -> None:
        """S ← S − AᵀB, or S − AᵀA."""
        with jax.enable_x64(True):
            left = jnp.asarray(a)
            self._s = _update(self._s, left, left if b is None else jnp.asarray(b))

    def factor(self) -> jax.Array:
        """U with S = UᵀU, zeros below the diagonal.

        Raises:
            NotPositiveDefinite: with the pivot, which LAPACK finds: a device only says that there is one.
        """
        with jax.enable_x64(True):
            u = _factor(self._s)
            if not np.isfinite(np.asarray(jnp.diagonal(u))).all():
                return jnp.asarray(tile_cholesky.factor(np.array(self._s, order="C")))
            return u

    def solve_row(self, u: Operand) -> jax.Array:
        """U^{-T} S."""
        with jax.enable_x64(True):
            return _solve(jnp.asarray(u), self._s)


@partial(jax.jit, static_argnums=2)
def _shifted(a: jax.Array, shift: jax.Array, dtype: str) -> jax.Array:
    """A + λI in a dtype, λ added to the diagonal in it."""
    a, (m, n) = a.astype(dtype), a.shape
    return a + jnp.where(jnp.eye(m, n, dtype=bool), shift.astype(dtype), 0)


@partial(jax.jit, donate_argnums=0)
def _update(s: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return s - jnp.matmul(a.T, b, precision=HIGHEST)


@jax.jit
def _factor(s: jax.Array) -> jax.Array:
    return jnp.triu(jnp.linalg.cholesky(s, upper=True, symmetrize_input=False))


@jax.jit
def _solve(u: jax.Array, s: jax.Array) -> jax.Array:
    return jax.scipy.linalg.solve_triangular(u, s, trans=1)


def inverse_diagonal_block(
    factor_tile: Callable[[int, int], Operand], blocks: Sequence[slice], j: int
) -> NDArray[np.float64]:
    """`ntk.linalg.substitution.inverse_diagonal_block` on the device, where the panel is."""
    heights = [rows.stop - rows.start for rows in blocks]
    with jax.enable_x64(True):
        corner = jnp.asarray(factor_tile(j, j))
        panel = [jnp.zeros((height, heights[j]), corner.dtype) for height in heights[j:]]
        panel[0] = jnp.eye(heights[j], dtype=corner.dtype)
        diagonal = jnp.zeros(heights[j])
        for i in range(j, len(blocks)):
            rows = _solve(corner if i == j else jnp.asarray(factor_tile(i, i)), panel[i - j])
            diagonal = _add_squares(diagonal, rows)
            for k in range(i + 1, len(blocks)):
                panel[k - j] = _update(panel[k - j], jnp.asarray(factor_tile(i, k)), rows)
        return np.array(diagonal)


@partial(jax.jit, donate_argnums=0)
def _add_squares(sums: jax.Array, rows: jax.Array) -> jax.Array:
    return sums + jnp.sum(rows.astype(sums.dtype) ** 2, axis=0)


EIGH_MATRICES = 10
"""Matrices that `eigh` may take of the device's memory: cuSOLVER's workspace and what JAX copies make nine."""


def eigh(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues, ascending, and eigenvectors in columns of an (n, n) matrix, of which the upper triangle is read."""
    with jax.enable_x64(True):
        values, vectors = _eigh(on_device(matrix))
        return to_host(values), to_host(vectors)


@partial(jax.jit, donate_argnums=0)
def _eigh(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    return tuple(jnp.linalg.eigh(matrix, UPLO="U", symmetrize_input=False))


class DeviceSweep:
    """`ntk.linalg.band_reduction.HostSweep` on the device, with its arguments."""

    def __init__(self, x: Tile, before: tuple[Tile, Tile] | None):
        with jax.enable_x64(True):
            self._x = jnp.asarray(x)
            self._before = None if before is None else (jnp.asarray(before[0]), jnp.asarray(before[1]))
            self._product = jnp.zeros_like(self._x)

    def take(self, tile: Tile, rows: slice, columns: slice, *, diagonal: bool) -> None:
        """A_{k−1}[rows, columns] becomes A_k[rows, columns], and is multiplied."""
        with jax.enable_x64(True):
            updated, self._product = _sweep_tile(
                jnp.asarray(tile), self._product, self._x, self._before, rows.start, columns.start, diagonal
            )
            # Either waits for the device, which may read the tile from the caller's memory until then.
            if self._before is None:
                self._product.block_until_ready()
            else:
                tile[...] = to_host(updated)

    def product(self) -> Tile:
        """The share's part of Y, (n, b)."""
        return np.array(self._product)


@partial(jax.jit, static_argnums=6, donate_argnums=1)
def _sweep_tile(
    a: jax.Array,
    product: jax.Array,
    x: jax.Array,
    before: tuple[jax.Array, jax.Array] | None,
    row: int,
    column: int,
    diagonal: bool,
) -> tuple[jax.Array, jax.Array]:
    """Starts of slices are traced: one compilation for all tiles of a shape."""

    def rows(v: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(v, row, a.shape[0])

    def columns(v: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(v, column, a.shape[1])

    def times(left: jax.Array, right: jax.Array) -> jax.Array:
        return jnp.matmul(left, right, precision=HIGHEST)

    if before is not None:
        v, w = before
        a = a - times(rows(v), columns(w).T) - times(rows(w), columns(v).T)
    down = rows(product) + times(a, columns(x))
    product = jax.lax.dynamic_update_slice_in_dim(product, down, row, 0)
    if not diagonal:
        across = columns(product) + times(a.T, rows(x))
        product = jax.lax.dynamic_update_slice_in_dim(product, across, column, 0)
    return a, product


class DeviceProduct:
    """`ntk.linalg.operator.HostProduct` on the device, with its arguments; tiles may be there already (`on_device`)."""

    def __init__(self, x: np.ndarray):
        with jax.enable_x64(True):
            self._x = jnp.asarray(x, np.float64)
            self._product = jnp.zeros_like(self._x)

    def take(self, tile: Tile | jax.Array, rows: slice, columns: slice, *, diagonal: bool) -> None:
        """Y_rows += K_tile X_columns and, off the diagonal, Y_columns += K_tileᵀ X_rows; slices of the n."""
        with jax.enable_x64(True):
            self._product = _product_tile(
                jnp.asarray(tile), self._product, self._x, rows.start, columns.start, diagonal
            )

    def product(self) -> np.ndarray:
        """The part, transposed: (r, n), float64."""
        return np.array(self._product)


@partial(jax.jit, static_argnums=5, donate_argnums=1)
def _product_tile(
    tile: jax.Array, product: jax.Array, x: jax.Array, row: int, column: int, diagonal: bool
) -> jax.Array:
    """Starts of slices are traced: one compilation for all tiles of a shape."""
    a, rows, columns = tile.astype(x.dtype), (row, tile.shape[0]), (column, tile.shape[1])

    def of(v: jax.Array, at: tuple[int, int]) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(v, *at, axis=1)

    def add(product: jax.Array, at: tuple[int, int], part: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(product, of(product, at) + part, at[0], axis=1)

    product = add(product, rows, jnp.matmul(of(x, columns), a.T, precision=HIGHEST))
    if not diagonal:
        product = add(product, columns, jnp.matmul(of(x, rows), a, precision=HIGHEST))
    return product
