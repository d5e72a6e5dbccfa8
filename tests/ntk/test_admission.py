"""What has no kernel is refused before any work, by the cost in the same words as by the tiles."""

import jax.numpy as jnp
import numpy as np
import pytest

from ntk.analytic import TileKernel, cost
from ntk.errors import ArchitectureError
from ntk.stax import (
    AvgPool,
    Conv,
    Dense,
    Elementwise,
    FanInSum,
    FanOut,
    Flatten,
    GlobalAvgPool,
    Identity,
    Relu,
    parallel,
    serial,
)

IMAGE, VECTOR = (8, 8, 1), (5,)
REFUSED = {
    "positions": (
        serial(Dense(4), Relu(), Dense(1)),
        IMAGE,
        r"ends with positions of shape \(8, 8\); hint: add Flatten or GlobalAvgPool",
    ),
    "pooled positions": (
        serial(Conv(4, (3, 3)), Relu(), AvgPool((2, 3), (2, 3))),
        IMAGE,
        r"positions of shape \(3, 2\)",
    ),
    "one position": (serial(Conv(4, (8, 8))), IMAGE, r"positions of shape \(1, 1\)"),
    "branches": (serial(Dense(4), FanOut(3)), VECTOR, "ends in 3 branches"),
    "nonlinearity first": (
        serial(Relu(), Dense(1)),
        VECTOR,
        r"architecture\[0\] \(Relu\) needs a layer with weights",
    ),
    "nonlinearities in a row": (serial(Dense(4), Relu(), Relu(), Dense(1)), VECTOR, r"architecture\[2\]"),
    "correlated branches": (
        serial(Dense(4), Relu(), FanOut(2), parallel(Identity(), Identity()), FanInSum(), Dense(1)),
        VECTOR,
        "branches 0, 1 are correlated",
    ),
    "function without dual": (serial(Dense(4), Elementwise(jnp.tanh), Dense(1)), VECTOR, "nngp_fn is needed"),
    "window": (serial(Conv(4, (9, 9)), Flatten()), IMAGE, "does not fit"),
    "no positions": (serial(Dense(4), GlobalAvgPool()), VECTOR, "needs spatial axes"),
    "empty": (serial(), VECTOR, "no layer with weights: its NTK is zero"),
    "no weights": (serial(AvgPool((2, 2)), Flatten()), IMAGE, "no layer with weights: its NTK is zero"),
    "no channels": (serial(Dense(1)), (), "must have a shape"),
    "size 0": (serial(Dense(1)), (0,), "must have a shape"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_refused_by_cost_and_tile_alike(why):
    architecture, shape, match = REFUSED[why]
    with pytest.raises(ArchitectureError, match=match) as by_cost:
        cost(architecture, shape)
    with pytest.raises(ArchitectureError) as by_tile:
        TileKernel(architecture, shape, tile=4)
    if shape:
        assert str(by_cost.value) == str(by_tile.value)


def test_the_nngp_needs_no_weights():
    linear = serial(Flatten())
    x = np.arange(8.0).reshape(2, 2, 2)
    nngp = TileKernel(linear, (2, 2), get=("nngp",), tile=2)(x)["nngp"]
    np.testing.assert_allclose(nngp, x.reshape(2, 4) @ x.reshape(2, 4).T / 4)
    assert cost(linear, (2, 2), get=("nngp",)).bytes_per_pair > 0
