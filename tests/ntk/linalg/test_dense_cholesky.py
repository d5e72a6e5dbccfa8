"""The factor of a whole matrix in its place, block by block, and its inverse, against LAPACK."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from ntk.linalg.dense_cholesky import factor_in_place, invert_in_place, squared_lines
from ntk.linalg.tile_cholesky import NotPositiveDefinite


def positive(n: int) -> np.ndarray:
    x = np.random.default_rng(n).standard_normal((n, n + 3))
    return x @ x.T / n + 0.1 * np.eye(n)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 100])
@pytest.mark.parametrize("whole", [0, 100])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_factor_and_inverse(n: int, dtype: str, whole: int) -> None:
    matrix, exact = np.triu(positive(n)).astype(dtype), scipy.linalg.cholesky(positive(n))
    tolerance = 1e-11 if dtype == "float64" else 3e-4
    factor_in_place(matrix, whole=whole, block=16)
    np.testing.assert_allclose(np.triu(matrix), exact, rtol=tolerance, atol=tolerance)
    assert not np.tril(matrix, -1).any()
    invert_in_place(matrix, whole=whole, block=16)
    np.testing.assert_allclose(matrix, np.linalg.inv(exact), rtol=tolerance, atol=tolerance)
    diagonal = np.diag(np.linalg.inv(positive(n)))
    np.testing.assert_allclose(squared_lines(matrix, slice(0, n)), diagonal, rtol=100 * tolerance)


@pytest.mark.parametrize("whole", [0, 100])
@pytest.mark.parametrize("pivot", [0, 20, 49])
def test_the_pivot_is_counted_in_the_matrix(pivot: int, whole: int) -> None:
    matrix = positive(50)
    matrix[pivot, pivot] = -1.0
    with pytest.raises(NotPositiveDefinite) as failure:
        factor_in_place(np.triu(matrix), whole=whole, block=16)
    assert failure.value.pivot == pivot
    assert failure.value.value < 0
