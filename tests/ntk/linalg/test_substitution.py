"""Streaming substitution against dense linear algebra."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk.linalg.substitution import backward, factor_product, forward, inverse_diagonal_block, solve


def problem(n: int, tile: int, seed: int, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, n + 3))
    a = x @ x.T / n + 0.1 * np.eye(n)
    u = scipy.linalg.cholesky(a).astype(dtype)
    blocks = [slice(start, min(start + tile, n)) for start in range(0, n, tile)]
    calls: list[tuple[int, int]] = []

    def factor_tile(i: int, j: int) -> np.ndarray:
        assert i <= j
        calls.append((i, j))
        tile = u[blocks[i], blocks[j]].copy()
        tile.flags.writeable = False  # tiles come from a store and are not ours to change
        return tile

    return a, u, blocks, factor_tile, calls


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 15), st.integers(0, 4), st.integers(0, 2**31))
def test_streamed_solves_equal_dense_ones(n, tile, width, seed):
    a, u, blocks, factor_tile, _ = problem(n, tile, seed)
    rng = np.random.default_rng(seed)
    b = rng.standard_normal((n, width) if width else n)
    before = b.copy()
    close = {"rtol": 1e-9, "atol": 1e-9}
    dense = scipy.linalg.solve_triangular
    np.testing.assert_allclose(forward(factor_tile, blocks, b), dense(u, b, trans=1), **close)
    np.testing.assert_allclose(backward(factor_tile, blocks, b), dense(u, b), **close)
    np.testing.assert_allclose(solve(factor_tile, blocks, b), np.linalg.solve(a, b), **close)
    np.testing.assert_allclose(factor_product(factor_tile, blocks, b), a @ b, **close)
    np.testing.assert_array_equal(b, before)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 15), st.integers(0, 2**31))
def test_blocks_of_the_inverse_diagonal_make_the_diagonal_of_the_inverse(n, tile, seed):
    a, _, blocks, factor_tile, _ = problem(n, tile, seed)
    parts = [inverse_diagonal_block(factor_tile, blocks, j) for j in range(len(blocks))]
    np.testing.assert_allclose(np.concatenate(parts), np.diagonal(np.linalg.inv(a)), rtol=1e-9)


def test_each_tile_is_read_once_a_pass_row_by_row():
    _, _, blocks, factor_tile, calls = problem(23, 5, 0)
    upper = [(i, j) for i in range(5) for j in range(i, 5)]
    forward(factor_tile, blocks, np.ones(23))
    assert calls == upper
    calls.clear()
    backward(factor_tile, blocks, np.ones(23))
    assert sorted(calls) == upper
    assert [i for i, _ in calls] == sorted((i for i, _ in calls), reverse=True)
    calls.clear()
    inverse_diagonal_block(factor_tile, blocks, 2)
    assert calls == [(i, j) for i, j in upper if i >= 2]


def test_a_float32_factor_refines_a_float64_solution():
    a, _, blocks, factor_tile, _ = problem(60, 16, 3, np.float32)
    b = np.random.default_rng(0).standard_normal((60, 2))
    x = solve(factor_tile, blocks, b)
    assert x.dtype == np.float64
    errors = []
    for _ in range(6):
        errors.append(np.linalg.norm(b - a @ x))
        x += solve(factor_tile, blocks, b - a @ x)
    assert errors[0] > 1e-7
    assert np.linalg.norm(b - a @ x) < 1e-12


def test_vectors_of_another_length_are_refused():
    _, _, blocks, factor_tile, _ = problem(23, 5, 0)
    with pytest.raises(ValueError, match="23 rows, the vectors have 22"):
        forward(factor_tile, blocks, np.ones(22))
