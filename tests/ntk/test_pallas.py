"""The GPU kernels of the staged kernel, interpreted, against their plain twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk import stax, zoo
from ntk.analytic import displaced, pallas_displacement, pallas_program
from ntk.analytic.footprint import fused_block
from ntk.analytic.staging import staged
from ntk.stax import Abs, AvgPool, Conv, Dense, Erf, Flatten, GlobalAvgPool, LeakyRelu, Relu


def conv(*window, **arguments):
    return Conv(8, window or (3, 3), **{"padding": "SAME", "W_std": 1.5, "b_std": 0.1, **arguments})


CASES = {
    "columns anew, pooling, whole rows": (
        (
            conv(), Relu(), conv(1, 3), Relu(), AvgPool((2, 2), (2, 2)), conv(), LeakyRelu(0.3),
            AvgPool((2, 2), (2, 2)), GlobalAvgPool(), Dense(1),
        ),
        (4, 4, 3),
    ),
    "two kernels a stage": (
        (conv(parameterization="standard"), Abs(), conv(3, 1), Relu(), conv(b_std=None), Relu(), Flatten(), Dense(1)),
        (3, 2, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "wants_ntk"), [*[(case, True) for case in CASES], ("two kernels a stage", False)]
)
def test_kernels_are_their_plain_twin(case, wants_ntk, monkeypatch):
    monkeypatch.setattr(pallas_program, "_COLUMNS", 2)
    layers, shape = CASES[case]
    plan = staged(stax.serial(*layers), shape)
    assert plan is not None and pallas_displacement.suits(plan)
    rng = np.random.default_rng(0)
    x1, x2 = rng.standard_normal((3, *shape)), rng.standard_normal((4, *shape))
    x2[1] = x1[2]  # in doubt

    def both(x1, x2):
        rows = displaced.variances(plan, x1), displaced.variances(plan, x2)
        fused = pallas_displacement.outer(plan, *rows, wants_ntk=wants_ntk, interpret=True)
        plain = displaced.outer(plan, *rows, wants_ntk=wants_ntk, doubting=True)
        return [(s.nngp, s.ntk, s.doubt) for s in (fused, plain)]

    with jax.enable_x64(True):
        fused, plain = jax.tree.map(np.asarray, jax.jit(both)(jnp.asarray(x1), jnp.asarray(x2)))
    np.testing.assert_allclose(fused[2], plain[2], rtol=1e-12)
    assert plain[2][2, 1] > 0
    sure = plain[2] == 0
    for a, b in zip(fused[:2], plain[:2], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a[sure], b[sure], rtol=1e-13)


def test_what_kernels_do_not_take_is_left_to_the_plain_twin():
    def suits(*layers, shape=(4, 4, 3)):
        plan = staged(stax.serial(*layers), shape)
        assert plan is not None
        return pallas_displacement.suits(plan)

    assert suits(conv(), Relu(), GlobalAvgPool())
    assert not suits(conv(), Erf(), GlobalAvgPool())
    assert not suits(conv(strides=(2, 2)), Relu(), GlobalAvgPool())
    assert not suits(conv(padding="CIRCULAR"), Relu(), GlobalAvgPool())
    assert not suits(conv(), GlobalAvgPool())
    assert not suits(conv(), Relu(), GlobalAvgPool(), shape=(4, 4, 5))


def test_blocks_fit_the_memory_of_a_device():
    plan = staged(zoo.myrtle(5), (32, 32, 3))
    assert plan is not None
    for memory, pairs in ((2**37, 512), (2**33, 64)):
        block = fused_block(plan, 4, 512, 128, memory)
        assert block.pairs == pairs and block.b2 == min(pairs, 128)
        assert block.pairs * 4 * 4 * 32**4 <= memory / 8
