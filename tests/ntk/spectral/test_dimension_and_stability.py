"""Counts of modes, learning rates and what lies below the noise floor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ntk.spectral.effective_dimension import effective_dimension, participation_ratio, stable_rank
from ntk.spectral.stability import condition_number, max_learning_rate, noise_floor, time_constants

spectra = arrays(np.float64, st.integers(1, 40), elements=st.floats(1e-6, 1e6))


@settings(deadline=None)
@given(spectra, st.floats(1e-9, 1e9), st.floats(1e-3, 1e3))
def test_effective_dimension_is_a_trace_bounded_monotone_and_scale_free(values, ridge, scale):
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((values.size, values.size)))
    k = (q * values) @ q.T
    dimension = effective_dimension(values, ridge)
    trace = np.trace(np.linalg.solve(k + ridge * np.eye(values.size), k))
    assert dimension == pytest.approx(trace, rel=1e-3, abs=1e-3)
    assert 0 < dimension <= values.size
    assert effective_dimension(scale * values, scale * ridge) == pytest.approx(dimension)
    path = effective_dimension(values, ridge * np.array([1.0, 2.0, 4.0]))
    assert path[0] == dimension
    assert np.all(np.diff(path) <= 0)
    assert effective_dimension(values, 0.0) == values.size


def test_modes_at_or_below_the_floor_count_nothing():
    values = np.array([4.0, 1.0, 1e-12, 0.0, -1e-12])
    assert effective_dimension(values, 1e-15, floor=1e-10) == pytest.approx(2.0)
    assert effective_dimension(values, 0.0) == 3.0


def test_a_negative_ridge_is_refused():
    with pytest.raises(ValueError, match="ridge must be >= 0, got -1"):
        effective_dimension(np.ones(3), [1.0, -1.0])


@settings(deadline=None)
@given(spectra, st.floats(1e-3, 1e3))
def test_counts_lie_between_one_and_n_and_ignore_scale(values, scale):
    for count in (participation_ratio, stable_rank):
        assert 1 - 1e-9 <= count(values) <= values.size * (1 + 1e-9)
        assert count(scale * values) == pytest.approx(count(values))
        assert count(np.full(7, scale)) == pytest.approx(7)
        assert count(np.array([scale, 0.0, 0.0])) == pytest.approx(1)
    assert stable_rank(values) <= participation_ratio(values) * (1 + 1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_gradient_descent_is_stable_just_below_the_largest_rate_and_not_above(seed, scale):
    x = np.random.default_rng(seed).standard_normal((8, 10))
    k = scale * x @ x.T
    rate = max_learning_rate(float(np.linalg.eigvalsh(k)[-1]))
    for factor, stable in ((0.99, True), (1.01, False)):
        step = np.eye(8) - factor * rate * k  # residual f − y of ½‖f − y‖²
        assert (np.abs(np.linalg.eigvalsh(step)).max() < 1) == stable


@settings(deadline=None)
@given(spectra, st.floats(1e-6, 1e3))
def test_after_its_time_constant_a_mode_has_shrunk_by_e(values, rate):
    times = time_constants(values, rate)
    np.testing.assert_allclose(np.exp(-rate * values * times), np.exp(-1))


def test_time_constants_below_the_floor_are_unknown():
    times = time_constants(np.array([2.0, 1e-9, 0.0, -1e-9]), 0.5, floor=1e-8)
    np.testing.assert_array_equal(times, [1.0, np.nan, np.nan, np.nan])


@settings(deadline=None)
@given(spectra, st.floats(1e-3, 1e3))
def test_the_condition_number_is_a_ratio_free_of_scale(values, scale):
    found = condition_number(values, 0.0)
    assert found.resolved
    assert found.value == pytest.approx(values.max() / values.min())
    assert condition_number(scale * values, 0.0).value == pytest.approx(found.value)


@pytest.mark.parametrize("smallest", [1e-20, 0.0, -1e-16])
def test_an_unresolved_condition_number_is_a_lower_bound(smallest):
    floor = noise_floor(3.0, 100, np.float64)
    found = condition_number(np.array([3.0, smallest]), floor)
    assert not found.resolved
    assert found.value == pytest.approx(1 / (100 * np.finfo(np.float64).eps))


def test_the_noise_floor_bounds_the_errors_of_lapack_in_the_dtype_named():
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        x = rng.standard_normal((80, 20)).astype(dtype)
        values = np.linalg.eigvalsh(x @ x.T)
        floor = noise_floor(float(values[-1]), 80, dtype)
        assert np.abs(values[:60]).max() < floor
        assert values[60] > floor


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="must be > 0, got 0"):
        max_learning_rate(0)
    with pytest.raises(ValueError, match="learning rate must be > 0"):
        time_constants(np.ones(2), -1.0)
    with pytest.raises(ValueError, match="must exceed the noise floor"):
        condition_number(np.zeros(3), 0.0)
