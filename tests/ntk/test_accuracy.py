"""The guarantees of docs/accuracy.md: float32 within its bound of float64 in every entry, symmetric bit for bit,
positive semi-definite up to rounding; whatever the norms and angles of the inputs."""

import jax
import numpy as np
import pytest

from ntk import stax
from ntk.analytic import TileKernel
from ntk.analytic.kernel import paired_kernel
from ntk.stax import Dense, serial
from tests.ntk.accuracy_cases import IMAGE, QUICK, SLOW, VECTOR, conv, dense, rows

NAMES = ("nngp", "ntk")
ALL = [
    *[pytest.param(*case, id=name) for name, case in QUICK.items()],
    *[pytest.param(*case, id=name, marks=pytest.mark.slow) for name, case in SLOW.items()],
]


def correlations(kernel, own, rows=np.s_[:, None], columns=np.s_[:]):
    """K_ij / √(K_ii K_jj); rows whose own kernel is zero have only zeros to divide."""
    root = np.sqrt(np.where(own > 0, own, 1))
    return np.asarray(kernel, float) / root[rows] / root[columns]


@pytest.mark.parametrize(("network", "shape", "bound"), ALL)
def test_every_entry_is_right_whatever_norms_and_angles(network, shape, bound):
    x = rows(shape)
    n = len(x)
    wide = TileKernel(network, shape, get=NAMES, precision="float64", tile=n)
    exact, own = wide(x), wide.diagonal(x)
    narrow = TileKernel(network, shape, get=NAMES, precision="float32", tile=n)(x)
    for name in NAMES:
        for kernel, eps in ((narrow[name], 2.0**-23), (exact[name], 2.0**-52)):
            assert np.isfinite(kernel).all()
            assert np.array_equal(kernel, kernel.T)
            assert np.linalg.eigvalsh(correlations(kernel, own[name]))[0] > -50 * n * eps
        deviation = np.abs(correlations(narrow[name].astype(float) - exact[name], own[name]))
        worst = np.unravel_index(np.argmax(deviation), deviation.shape)
        assert deviation[worst] < bound, (name, worst, narrow[name][worst], exact[name][worst])


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        pytest.param(
            network, shape, id=name, marks=[pytest.mark.slow] if shape == IMAGE or name in SLOW else []
        )
        for name, (network, shape, _) in {**QUICK, **SLOW}.items()
    ],
)
def test_float64_entries_are_those_of_the_exact_paired_kernel(network, shape):
    x = rows(shape)
    tile = TileKernel(network, shape, get=NAMES, tile=len(x))
    fast, own = tile(x), tile.diagonal(x)
    i, j = np.triu_indices(len(x), 1)
    with jax.enable_x64(True):
        exact = jax.jit(lambda a, b: paired_kernel(network, a, b, NAMES))(*np.float64((x[i], x[j])))
    for name in NAMES:
        deviation = correlations(fast[name][i, j], own[name], i, j) - correlations(
            exact[name], own[name], i, j
        )
        assert np.max(np.abs(deviation)) < (1e-8 if shape == IMAGE else 1e-10)


def test_sines_of_huge_and_of_tiny_pre_activations_are_right():
    """E sin u sin v = exp(−(var1 + var2) / 2) sinh(k), in a wider type, where exponentials nearly cancel."""
    x = np.concatenate([rows(VECTOR)[-2:], 1e-6 * rows(VECTOR)[:1]]).astype(np.float64)
    x[1] = x[0] * (1 + 1e-9) + 0.3 * rows(VECTOR)[1]
    k = TileKernel(serial(Dense(8), stax.Sin()), VECTOR, get=NAMES, tile=3)(x)
    wide = x.astype(np.longdouble)
    far = np.mean((wide[:, None] - wide) ** 2, axis=-1)
    near = np.mean((wide[:, None] + wide) ** 2, axis=-1)
    products = np.mean(wide[:, None] * wide, axis=-1)
    expected = -np.exp(-far / 2) * np.expm1((far - near) / 2) / 2
    np.testing.assert_allclose(k["nngp"], expected.astype(float), rtol=1e-9, atol=1e-300)
    slope = (np.exp(-far / 2) + np.exp(-near / 2)) / 2
    np.testing.assert_allclose(k["ntk"], (products * slope).astype(float), rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (dense(stax.Abs(), stax.Relu(), bias=None), VECTOR),
        (dense(stax.Sign(), bias=None), VECTOR),
        (serial(conv(), stax.Relu(), stax.GlobalAvgPool(), Dense(1)), IMAGE),
    ],
    ids=["vectors", "signs", "images"],
)
@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e25])
def test_squares_beyond_float32_lose_nothing_where_the_kernel_is_within(network, shape, scale):
    x = rows(shape)[:3]
    x = np.concatenate([x, scale * x[:2], 0 * x[:1]]).astype(np.float32)
    exact = TileKernel(network, shape, precision="float64", tile=len(x))(x)["ntk"]
    narrow = TileKernel(network, shape, precision="float32", tile=len(x))(x)["ntk"]
    within = (np.abs(exact) > 1e-37) & (np.abs(exact) < 1e38)
    assert within[:3, 3:5].all()
    np.testing.assert_allclose(narrow[within], exact[within], rtol=1e-4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_inputs_that_are_not_finite_spoil_their_own_rows_alone_and_silently(precision):
    x = rows(VECTOR)[:4]
    x[1, 0], x[2, 3] = np.nan, np.inf
    k = TileKernel(dense(stax.Relu()), VECTOR, precision=precision, tile=4)(x)["ntk"]
    bad = np.isin(np.arange(4), (1, 2))
    assert np.array_equal(np.isfinite(k), ~(bad[:, None] | bad))


@pytest.mark.filterwarnings("error")
def test_what_leaves_the_range_of_the_type_is_infinite_without_a_warning():
    x = rows(VECTOR)[:2] * np.float32(1e12)
    k = TileKernel(dense(stax.Monomial(3)), VECTOR, get=NAMES, precision="float32", tile=2)(x)
    assert all(np.isinf(np.diag(k[name])).all() and not np.isnan(k[name]).any() for name in NAMES)
