"""Counts of eigenvalues by inertia: those of LAPACK, and a lost eigenvalue is noticed."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from ntk.linalg.band_reduction import reduce_to_band
from ntk.linalg.inertia import count_above_band, count_above_dense, shifts_between, worst_count
from tests.ntk.linalg.test_band import MATRICES


@pytest.mark.parametrize("matrix", MATRICES, ids=lambda make: make.__name__)
@pytest.mark.parametrize(("n", "b"), [(97, 8), (30, 64), (64, 16)])
def test_counts_are_those_of_the_eigenvalues(matrix, n: int, b: int) -> None:
    a = matrix(n)
    values = scipy.linalg.eigvalsh(a)[::-1]
    band = reduce_to_band(a, b)[0][: min(b, n - 1) + 1]
    shifts = shifts_between(values, n)
    assert worst_count(lambda shift: count_above_dense(np.array(a, order="F"), shift), shifts) in (0, None)
    assert worst_count(lambda shift: count_above_band(band, shift), shifts) in (0, None)


def test_a_lost_eigenvalue_is_noticed() -> None:
    a = np.random.default_rng(0).standard_normal((80, 80))
    a += a.T
    values = np.delete(scipy.linalg.eigvalsh(a)[::-1], 3)
    shifts = shifts_between(values, 80)
    assert len(shifts) >= 5
    assert worst_count(lambda shift: count_above_dense(np.array(a, order="F"), shift), shifts) == 1
    band, _ = reduce_to_band(a, 8)
    assert worst_count(lambda shift: count_above_band(band, shift), shifts) == 1


def test_no_count_is_claimed_where_the_elimination_breaks_down() -> None:
    """σ = 0 is an eigenvalue of the first block, though not of the matrix."""
    band = np.array([[0.0, 0.0], [1.0, 0.0]])
    with np.errstate(divide="ignore", invalid="ignore"):
        assert count_above_band(band, 1e-300).uncertainty > 0.5
