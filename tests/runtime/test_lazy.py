"""The lazy matrix equals the dense one, reads upper tiles only, and each of them once."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.plan.tiles import TileGrid
from pipeline.runtime.lazy import lazy_matrix


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 20), tile=st.integers(1, 8))
def test_it_is_the_matrix(n: int, tile: int) -> None:
    dense = np.random.default_rng(n).standard_normal((n, n))
    dense += dense.T
    grid = TileGrid(n, tile)
    read: list[tuple[int, int]] = []

    def block(i: int, j: int) -> np.ndarray:
        read.append((i, j))
        return dense[grid.rows(i), grid.rows(j)]

    lazy = lazy_matrix(grid, block, np.float64)
    assert (lazy.shape, lazy.dtype) == ((n, n), np.float64)
    assert read == []
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), dense)
    assert sorted(read) == list(grid.upper())
    vector = np.arange(n, dtype=float)
    product = np.asarray(lazy.dot(vector).compute(scheduler="synchronous"))
    np.testing.assert_allclose(product, dense @ vector, atol=1e-12)


def test_a_part_reads_only_its_tiles() -> None:
    grid = TileGrid(100, 10)
    read: list[tuple[int, int]] = []

    def block(i: int, j: int) -> np.ndarray:
        read.append((i, j))
        return np.full(grid.shape(i, j), 10.0 * i + j)

    corner = lazy_matrix(grid, block, np.float64)[75:85, 5:15].compute(scheduler="synchronous")
    assert corner.shape == (10, 10)
    assert sorted(read) == [(0, 7), (0, 8), (1, 7), (1, 8)]
