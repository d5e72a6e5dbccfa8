"""Products and norms from upper tiles equal those of the whole matrix."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk.linalg.operator import symmetric_norms, symmetric_pass, symmetric_product


def tiled(n: int, tile: int, seed: int, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, n))
    k = ((x + x.T) / 2).astype(dtype)
    blocks = [slice(start, min(start + tile, n)) for start in range(0, n, tile)]
    tiles = [((i, j), k[blocks[i], blocks[j]]) for i in range(len(blocks)) for j in range(i, len(blocks))]
    rng.shuffle(tiles)
    return k, blocks, tiles


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 15), st.integers(0, 4), st.integers(0, 2**31))
def test_products_and_norms_equal_the_dense_ones_in_any_order_of_tiles(n, tile, width, seed):
    k, blocks, tiles = tiled(n, tile, seed)
    x = np.random.default_rng(seed).standard_normal((n, width) if width else n)
    product, norms = symmetric_pass(tiles, blocks, x)
    np.testing.assert_allclose(product, k @ x, atol=1e-12)
    np.testing.assert_array_equal(symmetric_product(tiles, blocks, x), product)
    assert symmetric_norms(tiles, blocks) == norms
    assert norms.trace == pytest.approx(np.trace(k), abs=1e-12)
    assert norms.frobenius == pytest.approx(np.linalg.norm(k))
    assert norms.row_sum == pytest.approx(np.abs(k).sum(axis=1).max())
    assert norms.row_sum >= np.abs(np.linalg.eigvalsh(k)).max() * (1 - 1e-12)


@settings(deadline=None)
@given(st.integers(1, 20), st.floats(-10, 10), st.integers(0, 2**31))
def test_shifted_norms_are_those_of_the_shifted_matrix(n, ridge, seed):
    k, blocks, tiles = tiled(n, 6, seed)
    shifted = k + ridge * np.eye(n)
    norms = symmetric_norms(tiles, blocks).shifted(ridge)
    assert norms.trace == pytest.approx(np.trace(shifted), abs=1e-9)
    assert norms.frobenius == pytest.approx(np.linalg.norm(shifted), abs=1e-6)
    assert norms.row_sum >= np.abs(shifted).sum(axis=1).max() * (1 - 1e-12)


def test_float32_tiles_are_summed_in_float64():
    k, blocks, tiles = tiled(300, 64, 0, np.float32)
    x = np.random.default_rng(1).standard_normal((300, 2)).astype(np.float32)
    product, norms = symmetric_pass(tiles, blocks, x)
    exact = k.astype(np.float64)
    assert product.dtype == np.float64
    np.testing.assert_allclose(product, exact @ x.astype(np.float64), rtol=1e-12, atol=1e-12)
    assert norms.frobenius == pytest.approx(np.linalg.norm(exact), rel=1e-13)


def test_a_missing_repeated_foreign_or_misshapen_tile_is_refused():
    _, blocks, tiles = tiled(23, 5, 0)
    x = np.ones(23)
    (i, j), first = tiles[0]
    for wrong, message in (
        (tiles[1:], rf"\({i}, {j}\) is missing: got 14 of 15"),
        ([*tiles, tiles[0]], "is repeated"),
        ([*tiles, ((3, 1), first)], "not an upper tile"),
        ([((i, j), first[:, :-1]), *tiles[1:]], "has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            symmetric_product(wrong, blocks, x)
