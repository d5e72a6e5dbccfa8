"""The steps on a device against LAPACK's, here on JAX's CPU backend."""

from __future__ import annotations

import numpy as np
import pytest

from ntk.linalg.tile_cholesky import HostSteps, NotPositiveDefinite
from ntk.linalg.tile_jax import DeviceSteps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_device_and_host_make_the_same_tiles(dtype) -> None:
    rng = np.random.default_rng(0)
    above, beside = (rng.standard_normal((40, n)).astype(dtype) for n in (30, 20))
    diagonal = (above.T @ above + 50 * np.eye(30)).astype(dtype)
    row = rng.standard_normal((30, 20)).astype(dtype)
    tiles = []
    for steps in (HostSteps, DeviceSteps):
        corner = steps(diagonal.copy())
        corner.update(above)
        u = corner.factor()
        right = steps(row.copy())
        right.update(above, beside)
        tiles.append((u, right.solve_row(u)))
    for host, device in zip(*tiles, strict=True):
        assert device.dtype == host.dtype == dtype
        np.testing.assert_allclose(device, host, atol=100 * np.finfo(dtype).eps)
    assert not np.tril(tiles[1][0], -1).any()


def test_a_device_names_the_pivot_too() -> None:
    matrix = np.eye(5)
    matrix[3, 3] = -2
    for steps in (HostSteps, DeviceSteps):
        with pytest.raises(NotPositiveDefinite) as caught:
            steps(matrix.copy()).factor()
        assert (caught.value.pivot, caught.value.value) == (3, -2.0)
