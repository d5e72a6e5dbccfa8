"""The stated error bounds of the fast angle functions, against NumPy in a wider type."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk.analytic.dual.angle import arccos_of_gap, arcsin, excess_of_gap

PRECISIONS = [np.float32, np.float64]


def gaps(dtype):
    return np.concatenate([np.linspace(0, 1, 20001), np.logspace(-20, 0, 2001)]).astype(dtype)


def relative(got, exact):
    exact = exact.astype(np.longdouble)
    return np.max(np.abs(np.asarray(got).astype(np.longdouble) - exact) / np.maximum(np.abs(exact), 1e-300))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_arccos_and_excess_are_good_to_four_rounding_units(dtype):
    s = gaps(dtype)
    s = s[s > 0]
    wide = s.astype(np.longdouble)
    theta = 2 * np.arcsin(np.sqrt(wide / 2))
    square = theta * theta
    series, term = np.zeros_like(theta), theta * square / 6
    for n in range(1, 20):
        series += 2 * n * term
        term = -term * square / ((2 * n + 2) * (2 * n + 3))
    with jax.enable_x64(True):
        limit = 4 * np.finfo(dtype).eps
        assert relative(arccos_of_gap(jnp.asarray(s)), theta) < limit
        assert relative(excess_of_gap(jnp.asarray(s)), series) < limit


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_arcsin_is_good_to_four_rounding_units(dtype):
    x = np.concatenate([gaps(dtype), -gaps(dtype)])
    with jax.enable_x64(True):
        got = arcsin(jnp.asarray(x))
    assert relative(got[x != 0], np.arcsin(x[x != 0].astype(np.longdouble))) < 4 * np.finfo(dtype).eps
    assert np.all(np.asarray(got)[x == 0] == 0)
