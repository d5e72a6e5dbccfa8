"""The fit recovers exact laws, scales with them, and knows when there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk.spectral.power_law import fit_power_law


def law(n: int, alpha: float, c: float = 1.0) -> np.ndarray:
    return c * np.arange(1, n + 1.0) ** -alpha


@settings(deadline=None)
@given(st.integers(10, 3000), st.floats(0, 5), st.floats(1e-6, 1e6))
def test_an_exact_law_is_recovered_on_its_whole_range(n, alpha, c):
    fit = fit_power_law(law(n, alpha, c))
    assert fit is not None and fit.straight
    assert fit.exponent == pytest.approx(alpha, abs=1e-8)
    assert fit.coefficient == pytest.approx(c, rel=1e-8)
    assert (fit.first, fit.last) == (1, n)
    assert fit.r2 == pytest.approx(1.0)
    assert fit.standard_error < 1e-8


@settings(deadline=None, max_examples=25)
@given(st.floats(-30, 30), st.integers(0, 2**31))
def test_scaling_and_permuting_eigenvalues_changes_the_coefficient_only(log_scale, seed):
    rng = np.random.default_rng(seed)
    values = law(400, 1.3) * np.exp(0.05 * rng.standard_normal(400))
    one, other = fit_power_law(values), fit_power_law(rng.permutation(values) * np.exp(log_scale))
    assert one is not None and other is not None
    assert (one.first, one.last) == (other.first, other.last)
    assert other.exponent == pytest.approx(one.exponent, rel=1e-9)
    assert other.standard_error == pytest.approx(one.standard_error, rel=1e-6)
    assert np.log(other.coefficient / one.coefficient) == pytest.approx(log_scale, abs=1e-9)


def test_a_large_leading_eigenvalue_and_a_bent_tail_are_left_out():
    values = law(1000, 1.5)
    values[0] *= 40
    values[600:] *= np.linspace(1, 0, 401)[:-1] ** 4
    fit = fit_power_law(values)
    assert fit is not None
    assert 2 <= fit.first <= 4
    assert fit.last < 800
    assert fit.exponent == pytest.approx(1.5, abs=0.03)


def test_eigenvalues_below_the_noise_floor_do_not_enter():
    values = law(1000, 2.0)
    noise = np.random.default_rng(0).standard_normal(500) * 1e-7
    fit = fit_power_law(np.concatenate([values[:500], noise]), floor=1e-6)
    assert fit is not None
    assert fit.last <= 500
    assert fit.exponent == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize("length", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("n", [30, 800])
def test_the_interval_covers_the_exponent_about_as_often_as_it_says(n, length):
    """Residuals with correlation e^{−Δ log k / length}."""
    trials, hits, steps = 400, 0, np.diff(np.log(np.arange(1, n + 1)))
    noise = np.random.default_rng(n).standard_normal((n, trials))
    kept = np.exp(-steps / length) if length else np.zeros(n - 1)
    for k, r in enumerate(kept, start=1):
        noise[k] = r * noise[k - 1] + np.sqrt(1 - r**2) * noise[k]
    for residuals in noise.T:
        fit = fit_power_law(law(n, 1.2) * np.exp(0.1 * residuals))
        assert fit is not None
        hits += fit.interval[0] <= 1.2 <= fit.interval[1]
    assert hits / trials >= 0.93


def test_correlated_residuals_widen_the_error_beyond_that_of_independent_ones():
    # A slow wave along log k is what spectra of real data look like: neighbouring ranks err together.
    waves = [0.09 * np.sin(2 * np.log(np.arange(1, 1001)) + phase) for phase in np.pi * np.arange(6) / 3]
    shuffled = [np.random.default_rng(seed).permutation(wave) for wave in waves for seed in range(10)]
    slow, fast = ([fit_power_law(law(1000, 1.0) * np.exp(r)) for r in group] for group in (waves, shuffled))
    squares = [np.mean([fit.standard_error**2 for fit in group if fit]) for group in (slow, fast)]
    assert squares[0] > 4 * squares[1]


def test_an_exponential_spectrum_is_said_to_be_no_power_law():
    fit = fit_power_law(np.exp(-np.arange(200) / 5.0))
    assert fit is not None
    assert not fit.straight
    assert (fit.first, fit.last) == (1, 200)


@pytest.mark.parametrize("values", [np.ones(9), np.zeros(50), np.full(50, -1.0), np.array([])])
def test_too_few_interpretable_eigenvalues_give_no_fit(values):
    assert fit_power_law(values) is None
