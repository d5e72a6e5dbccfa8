"""The steps of `ntk.linalg.tile_cholesky` on JAX's device: cuBLAS and cuSOLVER where that is a GPU.

The tile being computed stays on the device until it is finished; operands are sent there one after the other. Products
ask for full precision, which on a GPU means no TF32.
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
