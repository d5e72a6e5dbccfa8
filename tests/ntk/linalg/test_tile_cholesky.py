"""The steps against their formulas, the blocked factorisation against LAPACK's."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk.linalg.tile_cholesky import (
    NotPositiveDefinite,
    cholesky,
    factor,
    log_determinant,
    solve_column,
    solve_row,
    update,
)

ORDERS = ("C", "F")
DTYPES = (np.float32, np.float64)


def cut(n: int, tile: int) -> list[slice]:
    return [slice(start, min(start + tile, n)) for start in range(0, n, tile)]


def spd(n: int, condition: float = 1e3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    matrix = (q * np.geomspace(1, 1 / condition, n)) @ q.T
    return (matrix + matrix.T) / 2


def tolerance(dtype) -> float:
    return 200 * float(np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("s_order", ORDERS)
@pytest.mark.parametrize("a_order", ORDERS)
@pytest.mark.parametrize("b_order", ORDERS)
def test_update_is_a_product_subtracted_in_place_in_every_mix_of_orders(dtype, s_order, a_order, b_order):
    rng = np.random.default_rng(0)
    s, a, b = (
        np.array(rng.standard_normal(shape), dtype, order=order)
        for shape, order in (((5, 7), s_order), ((6, 5), a_order), ((6, 7), b_order))
    )
    expected = s - a.T @ b
    assert update(s, a, b) is None
    np.testing.assert_allclose(s, expected, atol=tolerance(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("s_order", ORDERS)
@pytest.mark.parametrize("a_order", ORDERS)
def test_diagonal_update_touches_the_upper_triangle_only(dtype, s_order, a_order):
    rng = np.random.default_rng(1)
    s = np.array(rng.standard_normal((5, 5)), dtype, order=s_order)
    a = np.array(rng.standard_normal((4, 5)), dtype, order=a_order)
    before = s.copy()
    update(s, a)
    np.testing.assert_allclose(np.triu(s), np.triu(before - a.T @ a), atol=tolerance(dtype))
    np.testing.assert_array_equal(np.tril(s, -1), np.tril(before, -1))
    again = before.copy(order=s_order)
    update(again, a, a)
    np.testing.assert_array_equal(again, s)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ORDERS)
def test_factor_is_the_upper_cholesky_factor_in_the_memory_of_its_argument(dtype, order):
    a = spd(40).astype(dtype, order=order)
    s = a.copy(order=order)
    s[np.tril_indices(40, -1)] = np.nan  # the lower triangle is not read
    u = factor(s)
    assert np.shares_memory(u, s)
    np.testing.assert_array_equal(np.tril(u, -1), 0)
    np.testing.assert_allclose(u, scipy.linalg.cholesky(a), atol=1e3 * tolerance(dtype))
    np.testing.assert_allclose(u.T @ u, a, atol=tolerance(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("u_order", ORDERS)
@pytest.mark.parametrize("s_order", ORDERS)
def test_triangular_solves_invert_their_products_in_place(dtype, u_order, s_order):
    rng = np.random.default_rng(2)
    u = np.array(np.triu(rng.standard_normal((6, 6))) + 4 * np.eye(6), dtype, order=u_order)
    x = np.array(rng.standard_normal((6, 9)), dtype)
    row = np.array(u.T @ x, order=s_order)
    column = np.array(u @ x, order=s_order)
    assert np.shares_memory(solve_row(u, row), row)
    assert np.shares_memory(solve_column(u, column), column)
    np.testing.assert_allclose(row, x, atol=tolerance(dtype))
    np.testing.assert_allclose(column, x, atol=tolerance(dtype))


def test_no_step_copies_a_contiguous_tile():
    n = 512
    a = spd(n)
    s, b, u = a.copy(), a.copy(), scipy.linalg.cholesky(a)
    steps = (
        lambda: update(s, a, b),
        lambda: update(s, a),
        lambda: solve_row(u, s),
        lambda: solve_column(np.asfortranarray(u[:1, :1]), s[:1]),
        lambda: factor(b),
    )
    for step in steps:
        tracemalloc.start()
        step()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < a.nbytes / 16


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 15), st.integers(0, 2**31))
def test_blocked_factorisation_equals_lapack_for_every_tile_size(n, tile, seed):
    a = spd(n, seed=seed)
    u = cholesky(a, cut(n, tile))
    np.testing.assert_allclose(u, scipy.linalg.cholesky(a), rtol=0, atol=1e-12)
    logs = [log_determinant(u[rows, rows]) for rows in cut(n, tile)]
    assert sum(logs) == pytest.approx(np.linalg.slogdet(a)[1], abs=1e-9)


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(1, 15), st.integers(0, 2**31))
def test_an_indefinite_matrix_names_the_global_pivot_and_its_schur_complement(n, tile, seed):
    a = spd(n, seed=seed)
    pivot = seed % n
    head = a[:pivot, :pivot]
    known = a[:pivot, pivot] @ np.linalg.solve(head, a[:pivot, pivot]) if pivot else 0.0
    a[pivot, pivot] = known - 0.25
    with pytest.raises(NotPositiveDefinite) as caught:
        cholesky(a, cut(n, tile))
    assert caught.value.pivot == pivot
    assert caught.value.value == pytest.approx(-0.25, abs=1e-9)
    assert str(pivot) in str(caught.value)


@pytest.mark.parametrize("n", [3, 300])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_not_a_pivot(n, bad):
    a = spd(n)
    a[n // 2, n // 2] = bad
    with np.errstate(all="ignore"), pytest.raises(NotPositiveDefinite):
        factor(a)


def test_the_failure_survives_pickling_and_is_a_linear_algebra_error():
    failure = pickle.loads(pickle.dumps(NotPositiveDefinite(3, -1e-9).within(slice(100, 200))))
    assert (failure.pivot, failure.value) == (103, -1e-9)
    assert isinstance(failure, np.linalg.LinAlgError)


def test_what_cannot_be_updated_in_place_is_refused():
    a = np.eye(4)
    read_only = np.eye(4)
    read_only.flags.writeable = False
    for s in (np.eye(8)[::2, ::2], read_only):
        with pytest.raises(ValueError, match="in place"):
            update(s, a)
    for s in (np.eye(4, dtype=np.float32), np.eye(4, dtype=np.int64)):
        with pytest.raises(ValueError, match="float32 or all be float64"):
            update(s, a)
