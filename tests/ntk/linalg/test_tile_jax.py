"""The steps on a device against LAPACK's, here on JAX's CPU backend."""

from __future__ import annotations

import numpy as np
import pytest

from ntk.device import on_device
from ntk.linalg.band_reduction import HostSweep
from ntk.linalg.operator import HostProduct
from ntk.linalg.tile_cholesky import HostSteps, NotPositiveDefinite
from ntk.linalg.tile_jax import DeviceProduct, DeviceSteps, DeviceSweep


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


@pytest.mark.parametrize("first", [True, False])
def test_a_sweep_on_the_device_is_that_on_the_host(first: bool) -> None:
    """All tiles of a matrix, one of them cut."""
    rng = np.random.default_rng(0)
    n, b, blocks = 50, 4, [slice(0, 20), slice(20, 40), slice(40, 50)]
    x, v, w = (rng.standard_normal((n, b)) for _ in range(3))
    a = rng.standard_normal((n, n))
    before = None if first else (v, w)
    sweeps = HostSweep(x, before), DeviceSweep(x, before)
    for i, rows in enumerate(blocks):
        for j, columns in enumerate(blocks[i:], start=i):
            live = slice(max(rows.start, 8), rows.stop)
            tiles = [np.array(a[live, columns]) for _ in sweeps]
            for sweep, tile in zip(sweeps, tiles, strict=True):
                sweep.take(tile, live, columns, diagonal=i == j)
            assert np.allclose(*tiles, rtol=0, atol=1e-13)
    assert sweeps[1].product().dtype == np.float64
    assert np.allclose(sweeps[0].product(), sweeps[1].product(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_product_on_the_device_is_that_on_the_host(dtype) -> None:
    """Tiles of both kinds, from the host and on the device already, one of them cut: float64 sums of what they hold."""
    rng = np.random.default_rng(0)
    n, blocks = 50, [slice(0, 20), slice(20, 40), slice(40, 50)]
    a, x = rng.standard_normal((n, n)).astype(dtype), rng.standard_normal((3, n))
    a += a.T
    products = HostProduct(x), DeviceProduct(x), DeviceProduct(x)
    for i, rows in enumerate(blocks):
        for j, columns in enumerate(blocks[i:], start=i):
            for product in products:
                tile = on_device(a[rows, columns]) if product is products[2] else a[rows, columns]
                product.take(tile, rows, columns, diagonal=i == j)
    for product in products:
        found = product.product()
        assert found.dtype == np.float64 and found.shape == (3, n)
        np.testing.assert_allclose(found, x @ a.astype(np.float64), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(products[1].product(), products[2].product())
