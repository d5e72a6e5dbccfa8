"""The staged kernel, one displacement at a time, against the plain one of the full layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk import stax
from ntk.analytic import displaced
from ntk.analytic.footprint import Block
from ntk.analytic.kernel import outer_kernel, paired_kernel
from ntk.analytic.spatial import wanted
from ntk.analytic.staging import staged
from ntk.analytic.tile import TileKernel
from ntk.stax import AvgPool, Conv, Dense, Erf, FanInSum, FanOut, Flatten, GlobalAvgPool, Relu, SumPool

NAMES = ("nngp", "ntk")


def conv(*window, **arguments):
    return Conv(8, window or (3, 3), **{"padding": "SAME", "W_std": 1.5, "b_std": 0.1, **arguments})


CASES = {
    "flatten after pooling": (
        (conv(), Relu(), AvgPool((2, 2), (2, 2)), conv(), Relu(), Flatten(), Dense(1)),
        (8, 4, 3),
    ),
    "odd sizes": ((conv(), Relu(), SumPool((2, 2), (2, 2)), conv(), Erf(), GlobalAvgPool()), (7, 5, 2)),
    "valid": ((conv(padding="VALID"), Relu(), conv(), Relu(), GlobalAvgPool()), (5, 4, 2)),
    "circular": (
        (conv(padding="CIRCULAR", strides=(2, 1)), Relu(), GlobalAvgPool(), Dense(4), Relu(), Dense(1)),
        (4, 3, 2),
    ),
    "residual branches": (
        (
            conv(), Relu(), FanOut(2),
            stax.parallel(
                stax.serial(conv(strides=(2, 2)), Relu(), conv()), conv(1, 1, strides=(2, 2))
            ),
            FanInSum(), Relu(), GlobalAvgPool(), Dense(1),
        ),
        (4, 3, 2),
    ),
    "sequences": ((conv(4), Relu(), AvgPool((3,), (3,)), conv(2), Relu(), GlobalAvgPool()), (13, 20)),
}  # fmt: skip


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] if case == "odd sizes" else []) for case in CASES]
)
def test_one_displacement_at_a_time_is_the_full_kernel(case):
    layers, shape = CASES[case]
    layer = stax.serial(*layers)
    plan = staged(layer, shape)
    assert plan is not None
    rng = np.random.default_rng(0)
    x1, x2 = rng.standard_normal((2, *shape)), rng.standard_normal((3, *shape))
    x2[0] = x1[0]

    def values(state):
        return state.nngp, state.ntk

    def both(x1, x2):
        first, second = displaced.variances(plan, x1), displaced.variances(plan, x2)
        plain, _ = outer_kernel(layer, x1, x2, NAMES)
        exact = paired_kernel(layer, x1, x2[:2], NAMES)
        pairs = jax.tree.map(lambda a: a[..., :2], second)
        return (
            values(displaced.outer(plan, first, second, wants_ntk=True)),
            tuple(plain[name] for name in NAMES),
            values(displaced.paired(plan, first, pairs, wants_ntk=True, itself=False)),
            tuple(exact[name] for name in NAMES),
        )

    with jax.enable_x64(True):
        fast, plain, fast_pairs, plain_pairs = jax.jit(both)(jnp.asarray(x1), jnp.asarray(x2))
    for a, b in zip(fast, plain, strict=True):
        np.testing.assert_allclose(np.delete(a, 0), np.delete(b, 0), rtol=1e-13)
    for a, b in zip(fast_pairs, plain_pairs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


def test_what_no_stage_can_hold_is_left_to_the_full_layout():
    overlapping = stax.serial(conv(), Relu(), AvgPool((3, 3), (1, 1)), Flatten(), Dense(1))
    assert staged(overlapping, (5, 5, 2)) is None
    assert staged(stax.serial(Dense(4), Relu(), Dense(1)), (5,)) is None


def test_only_displacements_that_are_read_are_computed():
    layers, shape = CASES["flatten after pooling"]
    plan = staged(stax.serial(*layers), shape)
    assert [len(stage.steps) for stage in plan.stages] == [9, 1]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("n1, n2", [(7, 9), (16, 16), (1, 1)])
def test_blocks_hold_every_wanted_entry_once(n1, n2, symmetric):
    size = Block(2, 4)
    hits = np.zeros((n1 + 4, n2 + 4), int)
    for i, j in wanted(size, n1, n2, symmetric):
        hits[i : i + 2, j : j + 4] += 1
    asked = hits[:n1, :n2]
    assert asked.max() == 1
    assert np.all(asked[np.triu_indices(n1, 0, n2)] == 1 if symmetric else asked == 1)


@pytest.mark.parametrize("precision", [pytest.param("float32", marks=pytest.mark.slow), "float64"])
def test_tiles_of_images_are_symmetric_cropped_and_exact_for_duplicates(precision):
    layers, shape = CASES["flatten after pooling"]
    layer = stax.serial(*layers)
    x = np.random.default_rng(1).standard_normal((6, *shape))
    x[4], x[5] = x[0], x[1] * (1 + 1e-7)
    kernel = TileKernel(layer, shape, get=("ntk",), precision=precision, tile=8)
    square, cross = kernel(x)["ntk"], kernel(x[:3], x[3:])["ntk"]
    with jax.enable_x64(True):
        exact = np.stack(
            [
                paired_kernel(layer, jnp.asarray(x), jnp.asarray(np.roll(x, -k, 0)), ("ntk",))["ntk"]
                for k in range(6)
            ]
        )
    wide = np.empty((6, 6))
    for k in range(6):
        wide[np.arange(6), (np.arange(6) + k) % 6] = exact[k]
    # A pooling leaves residuals of nearly equal inputs to cancellation, in either layout: angles to √ε.
    tolerance = 1e-5 if precision == "float32" else 1e-8
    np.testing.assert_array_equal(square, square.T)
    np.testing.assert_allclose(square, wide, rtol=tolerance)
    np.testing.assert_allclose(cross, wide[:3, 3:], rtol=tolerance)
