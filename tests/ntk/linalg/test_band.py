"""Reduction to a band and what follows: similar matrices, LAPACK's eigenvalues, vectors with small residuals."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from ntk.linalg.band_eigen import band_eigenvalues, band_eigenvectors
from ntk.linalg.band_narrowing import narrow
from ntk.linalg.band_reduction import apply, reduce_to_band
from ntk.linalg.lapack import tridiagonalise

EPS = float(np.finfo(np.float64).eps)


def random(n: int) -> np.ndarray:
    a = np.random.default_rng(n).standard_normal((n, n))
    return a + a.T


def kernel(n: int) -> np.ndarray:
    """The NTK of one hidden ReLU layer on the sphere (Jacot et al. 2018): a fast decaying spectrum."""
    x = np.random.default_rng(n).standard_normal((n, 5))
    c = np.clip(x @ x.T / np.outer(*[np.linalg.norm(x, axis=1)] * 2), -1, 1)
    return (np.sqrt(1 - c**2) + 2 * c * (np.pi - np.arccos(c))) / (2 * np.pi)


def with_spectrum(values: np.ndarray) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((len(values),) * 2))
    a = (q * values) @ q.T
    return (a + a.T) / 2


def clustered(n: int) -> np.ndarray:
    return with_spectrum(np.repeat([3.0, 1.0, 1e-3], [5, n - 10, 5]) * (1 + 1e-14 * np.arange(n)))


def low_rank(n: int) -> np.ndarray:
    x = np.random.default_rng(n).standard_normal((n, 7))
    return x @ x.T


def wilkinson(n: int) -> np.ndarray:
    """W⁺: pairs of eigenvalues that agree to many digits (Wilkinson 1965)."""
    return np.diag(np.abs(np.arange(n) - n // 2).astype(float)) + np.eye(n, k=1) + np.eye(n, k=-1)


MATRICES = [
    random,
    kernel,
    clustered,
    low_rank,
    wilkinson,
    scipy.linalg.hilbert,
    np.eye,
    lambda n: np.zeros((n, n)),
]


@pytest.mark.parametrize("matrix", MATRICES, ids=lambda make: make.__name__)
@pytest.mark.parametrize(("n", "b"), [(97, 8), (100, 25), (161, 80), (30, 64)])
def test_eigenvalues_are_lapacks(matrix, n: int, b: int) -> None:
    a = matrix(n)
    band, _ = reduce_to_band(a, b)
    exact = scipy.linalg.eigvalsh(a)[::-1]
    error = np.max(np.abs(band_eigenvalues(band[: min(b, n - 1) + 1]) - exact))
    assert error <= 30 * n * EPS * np.max(np.abs(exact))


@pytest.mark.parametrize(("b", "d"), [(8, 1), (8, 3), (12, 12), (25, 7), (64, 9), (16, 15)])
@pytest.mark.parametrize("n", [1, 2, 5, 33, 64, 90])
def test_narrowing_keeps_the_eigenvalues(n: int, b: int, d: int) -> None:
    b, d = min(b, n - 1), min(d, n - 1)
    band = np.random.default_rng(b).standard_normal((b + 1, n))
    for i in range(1, b + 1):
        band[i, n - i :] = 0
    narrowed = narrow(band, d) if d else band
    assert narrowed.shape == (d + 1, n)
    expected = scipy.linalg.eigvals_banded(band, lower=True)
    assert np.allclose(scipy.linalg.eigvals_banded(narrowed, lower=True), expected, rtol=0, atol=1e-12 * n)


def test_tridiagonal_has_the_eigenvalues_of_the_band() -> None:
    band = np.random.default_rng(0).standard_normal((6, 40))
    diagonal, off = tridiagonalise(band)
    expected = scipy.linalg.eigvals_banded(band, lower=True)
    assert np.allclose(scipy.linalg.eigvalsh_tridiagonal(diagonal, off), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("matrix", MATRICES, ids=lambda make: make.__name__)
def test_eigenvectors_through_the_band(matrix) -> None:
    """Also of equal eigenvalues, and with zero pivots."""
    n, b, k = 120, 16, 12
    a = matrix(n)
    band, panels = reduce_to_band(a, b)
    values = band_eigenvalues(band)
    norm = float(np.max(np.abs(values)))
    vectors = band_eigenvectors(band, values[:k], norm=norm)
    for panel, q in reversed(list(enumerate(panels))):
        apply(q, vectors[(panel + 1) * b :])
    residual = np.linalg.norm(a @ vectors - vectors * values[:k], axis=0)
    assert residual.max() <= 30 * np.sqrt(n) * EPS * norm
    assert np.linalg.norm(vectors.T @ vectors - np.eye(k)) <= 30 * n * EPS
