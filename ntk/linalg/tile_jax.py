"""The steps of `ntk.linalg.tile_cholesky`, `ntk.linalg.band_reduction` and `ntk.linalg.operator` on JAX's device:
cuBLAS and cuSOLVER where that is a GPU.

Cholesky: the tile being computed stays on the device until it is finished; operands are sent there one after the other.
Reduction to a band: the factors and the product stay there for a sweep, the tiles pass through. Products with vectors:
so do they, and tiles may stay. Products ask for full precision, which on a GPU means no TF32.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ntk.linalg import tile_cholesky
from ntk.linalg.tile_cholesky import Tile

HIGHEST = jax.lax.Precision.HIGHEST


class DeviceSteps:
    """A tile of the factor in the making: S on the device, then U_ii or U_ij on the host.

    Args:
        s: A_ij, (m, n) float32 or float64; not changed.
    """

    def __init__(self, s: Tile):
        with jax.enable_x64(True):
            self._s = jnp.array(s)

    def update(self, a: Tile, b: Tile | None = None) -> None:
        """S ← S − AᵀB, or S − AᵀA."""
        with jax.enable_x64(True):
            left = jnp.asarray(a)
            self._s = _update(self._s, left, left if b is None else jnp.asarray(b))

    def factor(self) -> Tile:
        """U with S = UᵀU, zeros below the diagonal.

        Raises:
            NotPositiveDefinite: with the pivot, which LAPACK finds: a device only says that there is one.
        """
        with jax.enable_x64(True):
            u = np.array(jnp.linalg.cholesky(self._s, upper=True, symmetrize_input=False))
        if not np.isfinite(np.diagonal(u)).all():
            return tile_cholesky.factor(np.array(self._s, order="C"))
        return np.triu(u)

    def solve_row(self, u: Tile) -> Tile:
        """U^{-T} S."""
        with jax.enable_x64(True):
            return np.array(jax.scipy.linalg.solve_triangular(jnp.asarray(u), self._s, trans=1))


@partial(jax.jit, donate_argnums=0)
def _update(s: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    return s - jnp.matmul(a.T, b, precision=HIGHEST)


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
                tile[...] = updated

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


def on_device(tile: np.ndarray) -> jax.Array:
    """A tile on the device, of its dtype; it is there when this returns."""
    with jax.enable_x64(True):
        return jax.device_put(tile).block_until_ready()


def device_memory() -> int:
    """Bytes of the device's memory that JAX has; 0 where it does not say."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)


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
