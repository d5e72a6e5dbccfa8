"""Parseval, rotation invariance, and agreement with the matrix formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk.spectral.alignment import (
    alignment_from_products,
    centred_squares,
    cumulative_label_power,
    kernel_target_alignment,
    label_power,
)


def problem(n: int, classes: int, seed: int):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, n + 2))
    k = x @ x.T / n + 0.3
    values, vectors = np.linalg.eigh(k)
    return k, values[::-1], vectors[:, ::-1], rng.standard_normal((n, classes)) + 0.2, rng


sizes = (st.integers(2, 30), st.integers(1, 4), st.integers(0, 2**31))


@settings(deadline=None)
@given(*sizes)
def test_label_power_over_all_modes_is_the_labels_norm(n, classes, seed):
    _, _, vectors, y, _ = problem(n, classes, seed)
    power = label_power(vectors, y)
    assert power.shape == (n, classes)
    np.testing.assert_allclose(power.sum(axis=0), (y**2).sum(axis=0))
    np.testing.assert_allclose(label_power(vectors, y[:, 0]), power[:, :1])


@settings(deadline=None)
@given(*sizes)
def test_rotating_inputs_and_labels_together_changes_nothing(n, classes, seed):
    _, values, vectors, y, rng = problem(n, classes, seed)
    q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    np.testing.assert_allclose(label_power(q @ vectors, q @ y), label_power(vectors, y), atol=1e-10)
    signs = rng.choice([-1.0, 1.0], n)
    np.testing.assert_allclose(label_power(vectors * signs, y), label_power(vectors, y), atol=1e-10)
    one = kernel_target_alignment(values, vectors, y, centred=False)
    other = kernel_target_alignment(values, q @ vectors, q @ y, centred=False)
    assert other == pytest.approx(one)


@settings(deadline=None)
@given(*sizes)
def test_cumulative_power_climbs_to_one(n, classes, seed):
    _, _, vectors, y, _ = problem(n, classes, seed)
    power = label_power(vectors, y)
    climb = cumulative_label_power(power)
    assert np.all(np.diff(climb, axis=0) >= 0)
    np.testing.assert_allclose(climb[-1], 1.0)
    leading = cumulative_label_power(power[: n // 2], (y**2).sum(axis=0))
    np.testing.assert_allclose(leading, climb[: n // 2])


def test_a_class_without_power_has_no_share():
    climb = cumulative_label_power(np.array([[1.0, 0.0], [3.0, 0.0]]))
    np.testing.assert_array_equal(climb, [[0.25, np.nan], [1.0, np.nan]])


@settings(deadline=None)
@given(*sizes, st.booleans())
def test_alignment_equals_its_matrix_formula(n, classes, seed, centred):
    k, values, vectors, y, _ = problem(n, classes, seed)
    h = np.eye(n) - centred / n
    kc, yc = h @ k @ h, h @ y
    expected = np.sum(kc * (yc @ yc.T)) / (np.linalg.norm(kc) * np.linalg.norm(yc @ yc.T))
    found = kernel_target_alignment(values, vectors, y, centred=centred)
    assert found == pytest.approx(expected, abs=1e-9)
    assert 0 <= found <= 1 + 1e-12


@settings(deadline=None)
@given(*sizes, st.floats(1e-3, 1e3), st.floats(0, 100))
def test_alignment_ignores_scale_and_when_centred_a_constant(n, classes, seed, scale, offset):
    k, values, vectors, y, _ = problem(n, classes, seed)
    other_values, other_vectors = np.linalg.eigh(scale * k + offset)
    one = kernel_target_alignment(values, vectors, y)
    assert kernel_target_alignment(other_values, other_vectors, y + offset) == pytest.approx(one, abs=1e-4)


def test_the_ideal_kernel_is_perfectly_aligned_and_zero_labels_are_not_a_number():
    y = np.random.default_rng(0).standard_normal((12, 3))
    values, vectors = np.linalg.eigh(y @ y.T)
    for centred in (False, True):
        assert kernel_target_alignment(values, vectors, y, centred=centred) == pytest.approx(1.0)
        assert np.isnan(kernel_target_alignment(values, vectors, 0 * y, centred=centred))


@pytest.mark.parametrize("size", [1.0, 1e-4, 1e-7, 1e-10])
def test_alignment_of_a_nearly_constant_kernel_keeps_its_digits(size):
    """1 + size · R is aligned as R is; from eigenpairs, and from products and a pass over tiles."""
    n, tile = 60, 25
    x = np.random.default_rng(0).standard_normal((n, 4))
    rest = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / 2)
    k, y = 1 + size * rest, x[:, :2] ** 2 + x[:, 1:3]
    exact = kernel_target_alignment(*np.linalg.eigh(rest), y)
    assert kernel_target_alignment(*np.linalg.eigh(k), y) == pytest.approx(exact, rel=1e-14 / size + 1e-10)
    passes = []

    def squares(means):
        passes.append(1)
        parts = [slice(i, min(i + tile, n)) for i in range(0, n, tile)]
        upper = ((a, b, k[a, b]) for i, a in enumerate(parts) for b in parts[i:])
        return centred_squares(upper, means)

    probes = np.column_stack([np.full(n, n**-0.5), y - y.mean(axis=0)])
    found = alignment_from_products(probes, k @ probes, float(np.linalg.norm(k)), squares)
    assert found == pytest.approx(exact, rel=1e-14 / size + 1e-10)
    assert len(passes) == (size < 1e-3)
