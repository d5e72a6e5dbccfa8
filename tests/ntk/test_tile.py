"""Tiles: independence of padding and neighbours, exact diagonals, nearly parallel pairs, scale, bad input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk import stax
from ntk.analytic import TileKernel, cost

RELU = stax.serial(*[stax.Dense(64, W_std=1.5, b_std=0.05), stax.Relu()] * 3, stax.Dense(1))
NO_BIAS = stax.serial(*[stax.Dense(64, W_std=1.5), stax.Abs(), stax.Dense(8), stax.Relu()] * 2, stax.Dense(1))
ERF = stax.serial(*[stax.Dense(64, W_std=1.5, b_std=0.05), stax.Erf()] * 3, stax.Dense(1))
BOTH = ("nngp", "ntk")


def rows(n, d=20, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_an_entry_depends_on_its_two_rows_alone(precision):
    kernel = TileKernel(RELU, (20,), get=BOTH, precision=precision, tile=64)
    x, y, others = rows(64), rows(64, seed=1), 1e3 * rows(64, seed=2)
    whole, few = kernel(x, y), kernel(x[:5], y[:7])
    mixed = kernel(np.concatenate([x[:5], others[5:]]), np.concatenate([y[:7], others[7:]]))
    for name in BOTH:
        assert np.array_equal(whole[name][:5, :7], few[name])
        assert np.array_equal(mixed[name][:5, :7], few[name])


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_diagonal_tile_is_symmetric_with_the_exact_diagonal(precision):
    kernel = TileKernel(RELU, (20,), get=BOTH, precision=precision, tile=300)
    x = rows(290)
    tile, diagonal = kernel(x), kernel.diagonal(x)
    for name in BOTH:
        assert tile[name].dtype == precision and tile[name].shape == (290, 290)
        assert np.array_equal(tile[name], tile[name].T)
        assert np.array_equal(np.diag(tile[name]), diagonal[name])
        assert np.linalg.eigvalsh(tile[name].astype(float))[0] > -1e-6 * diagonal[name].max()


def closed_form_diagonal(x, depth, w2, b2):
    """ReLU: K' = w² K / 2 + b², T' = K' + w² T / 2, at equal inputs."""
    k = w2 * np.mean(x * x, axis=1) + b2
    t = k
    for layer in range(depth):
        last = layer == depth - 1
        k, t = (k / 2, k / 2 + t / 2) if last else (w2 * k / 2 + b2, w2 * k / 2 + b2 + w2 * t / 2)
    return k, t


@given(st.floats(-6, 6), st.integers(0, 10))
def test_diagonal_is_the_variance_recursion_at_every_scale(exponent, seed):
    x = 10**exponent * rows(3, seed=seed)
    got = TileKernel(RELU, (20,), get=BOTH, tile=4).diagonal(x)
    nngp, ntk = closed_form_diagonal(x, 3, 1.5**2, 0.05**2)
    np.testing.assert_allclose(got["nngp"], nngp, rtol=1e-14)
    np.testing.assert_allclose(got["ntk"], ntk, rtol=1e-14)


@pytest.mark.parametrize("network", [RELU, NO_BIAS])
@pytest.mark.parametrize("factor", [1.0, 2.5, -1.0, -0.3, 1e-6])
@pytest.mark.parametrize("offset", [0.0, 1e-12, 1e-9, 1e-7, 4.5e-4, 1e-2])
def test_parallel_and_nearly_parallel_pairs(network, factor, offset):
    """float64 is continuous through the singular angle; float32 is within 1e-5 of it."""
    x, away = rows(6), rows(6, seed=1)
    y = factor * (x + offset * away)
    wide = TileKernel(network, (20,), get=BOTH, precision="float64", tile=8)(x, y)
    narrow = TileKernel(network, (20,), get=BOTH, precision="float32", tile=8)(x, y)
    for name in BOTH:
        exact = np.diag(wide[name])
        assert np.isfinite(wide[name]).all()
        np.testing.assert_allclose(narrow[name], wide[name], rtol=1e-5, atol=1e-5 * np.abs(exact).max())
    if factor == 1.0:
        same = TileKernel(network, (20,), get=BOTH, precision="float64", tile=8).diagonal(x)
        for name, order in (("nngp", 1.0), ("ntk", 1.0)):
            change = np.abs(np.diag(wide[name]) / same[name] - 1)
            assert np.all(change <= 8 * offset**order + 4e-16 * 8)


def test_collinear_rows_of_a_homogeneous_network_scale_exactly():
    x = rows(8)
    kernel = TileKernel(NO_BIAS, (20,), get=BOTH, tile=8)
    same, scaled = kernel(x), kernel(x, 2.5 * x)
    for name in BOTH:
        np.testing.assert_allclose(np.diag(scaled[name]), 2.5 * np.diag(same[name]), rtol=1e-14)


def test_duplicate_rows_off_the_diagonal_equal_the_diagonal():
    x = rows(4)
    for network in (RELU, NO_BIAS, ERF):
        tile = TileKernel(network, (20,), get=BOTH, tile=8)(np.concatenate([x, x]))
        for name in BOTH:
            np.testing.assert_allclose(np.diag(tile[name][:4, 4:]), np.diag(tile[name])[:4], rtol=4e-15)


@pytest.mark.parametrize("network", [RELU, NO_BIAS, ERF])
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_extreme_norms_and_zero_vectors(network, precision, scale):
    x, y = scale * rows(6), rows(6, seed=1)
    x[0] = 0
    got = TileKernel(network, (20,), get=BOTH, precision=precision, tile=8)
    wide = TileKernel(network, (20,), get=BOTH, tile=8)
    for a, b in ((x, y), (x, x[::-1].copy()), (x, None)):
        values, exact = got(a, b), wide(a, b)
        for name in BOTH:
            assert np.isfinite(values[name]).all()
            np.testing.assert_allclose(
                values[name], exact[name], rtol=2e-5, atol=1e-5 * np.abs(exact[name]).max()
            )


def test_many_doubtful_pairs_come_from_a_wider_tile():
    deep = stax.serial(*[stax.Dense(8, W_std=1.3, b_std=1.0), stax.Relu()] * 10, stax.Dense(1))
    x = 0.05 * rows(64) + 1
    narrow, wide = (
        TileKernel(deep, (20,), get=BOTH, precision=p, tile=64)(x) for p in ("float32", "float64")
    )
    for name in BOTH:
        np.testing.assert_allclose(narrow[name], wide[name], rtol=1e-5)


def test_one_kernel_alone_equals_it_beside_the_other():
    x, y = rows(16), rows(16, seed=1)
    both = TileKernel(RELU, (20,), get=BOTH, tile=16)(x, y)
    for name in BOTH:
        alone = TileKernel(RELU, (20,), get=(name,), tile=16)(x, y)
        assert list(alone) == [name]
        np.testing.assert_allclose(alone[name], both[name], rtol=1e-14)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="float16"):
        TileKernel(RELU, (20,), precision="float16", tile=8)
    kernel = TileKernel(RELU, (20,), tile=8)
    with pytest.raises(ValueError, match=r"\(rows, 20\), got \(3, 21\)"):
        kernel(np.zeros((3, 21)))
    with pytest.raises(ValueError, match="at most 8 rows"):
        kernel(np.zeros((9, 20)))


def test_cost_grows_with_depth_and_needs_no_jax():
    one, three = cost(ERF, (20,)), cost(stax.serial(ERF, ERF, ERF), (20,))
    assert 0 < one.flops_per_pair < three.flops_per_pair
    assert one.bytes_per_pair > 0
