"""Bounds of arguments: no architecture can be written that eats the memory or whose numbers overflow."""

import time

import pytest

from ntk import stax
from ntk.errors import ArchitectureError
from ntk.stax.combinators import MOST_LAYERS, size

MANY = 1_000_000_000


@pytest.mark.parametrize(
    "make",
    [
        lambda: stax.repeat(stax.Relu(), MANY),
        lambda: stax.repeat(stax.serial(), MANY),
        lambda: stax.repeat(stax.repeat(stax.Relu(), 200), 200),
        lambda: stax.repeat(stax.parallel(*[stax.Relu()] * 200), 200),
        lambda: stax.serial(*[stax.repeat(stax.Relu(), MOST_LAYERS), stax.Relu()]),
        lambda: stax.from_spec([{"repeat": {"layer": "Relu", "n": MANY}}]),
        lambda: stax.from_spec({"repeat": {"layer": {"repeat": {"layer": "Relu", "n": 5000}}, "n": 5000}}),
    ],
)
def test_the_number_of_layers_is_bounded(make):
    start = time.monotonic()
    with pytest.raises(ArchitectureError, match=f"at most {MOST_LAYERS} layers"):
        make()
    assert time.monotonic() - start < 5


def test_the_bound_itself_is_allowed():
    assert size(stax.repeat(stax.Relu(), MOST_LAYERS)) == MOST_LAYERS
    assert stax.repeat(stax.Relu(), 0) == stax.serial()


def test_copies_are_bounded():
    with pytest.raises(ArchitectureError, match="FanOut: num must be"):
        stax.FanOut(MANY)


@pytest.mark.parametrize("argument", ["W_std", "b_std"])
@pytest.mark.parametrize("value", [-1.0, -1e-300, float("inf"), float("nan"), 1e155, 10**400])
@pytest.mark.parametrize("kind", [stax.Dense, stax.Conv, stax.ConvLocal, stax.ConvTranspose])
def test_standard_deviations_are_finite_and_not_negative(kind, argument, value):
    window = () if kind is stax.Dense else ((2, 2),)
    with pytest.raises(ArchitectureError, match=f"{kind.__name__}: {argument} must be"):
        kind(8, *window, **{argument: value})
    kind(8, *window, **{argument: 0.0})


def test_no_weights_at_all_are_refused_but_no_bias_is_not():
    assert stax.Dense(8, b_std=None).b_std is None
    with pytest.raises(ArchitectureError, match="W_std must be a finite number"):
        stax.Dense(8, W_std=None)
