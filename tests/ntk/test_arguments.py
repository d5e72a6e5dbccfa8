"""Arguments: their names and order are those of neural_tangents 0.6.5, and no architecture can be written that eats the
memory or whose numbers overflow."""

import inspect
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk import stax
from ntk.errors import ArchitectureError
from ntk.stax.combinators import MOST_LAYERS, size

MANY = 1_000_000_000

_AXES = "batch_axis channel_axis"
_FILTER = "out_chan filter_shape strides padding W_std b_std dimension_numbers parameterization s"
_WAVE = "a b c"
#: Of every layer of neural_tangents.stax 0.6.5.
ORDER = {
    "ABRelu": "a b do_stabilize",
    "Abs": "do_stabilize",
    "Aggregate": f"aggregate_axis {_AXES} to_dense implementation",
    "AvgPool": f"window_shape strides padding normalize_edges {_AXES}",
    "Conv": _FILTER,
    "ConvLocal": _FILTER,
    "ConvTranspose": _FILTER,
    "Cos": _WAVE,
    "Dense": f"out_dim W_std b_std {_AXES} parameterization s",
    "DotGeneral": f"lhs rhs dimension_numbers precision {_AXES}",
    "Dropout": "rate mode",
    "Elementwise": "fn nngp_fn d_nngp_fn",
    "ElementwiseNumerical": "fn deg df",
    "Erf": _WAVE,
    "Exp": "a b",
    "ExpNormalized": "gamma shift do_clip",
    "FanInConcat": "axis",
    "FanInProd": "",
    "FanInSum": "",
    "FanOut": "num",
    "Flatten": "batch_axis batch_axis_out",
    "Gabor": "",
    "Gaussian": "a b",
    "Gelu": "approximate",
    "GlobalAvgPool": _AXES,
    "GlobalSelfAttention": "n_chan_out n_chan_key n_chan_val n_heads linear_scaling W_key_std W_value_std W_query_std "
    "W_out_std b_std attention_mechanism pos_emb_type pos_emb_p_norm pos_emb_decay_fn n_chan_pos_emb W_pos_emb_std "
    f"val_pos_emb {_AXES}",
    "GlobalSumPool": _AXES,
    "Hermite": "degree",
    "Identity": "",
    "ImageResize": f"shape method antialias precision {_AXES}",
    "Index": f"idx {_AXES}",
    "LayerNorm": f"axis eps {_AXES}",
    "LeakyRelu": "alpha do_stabilize",
    "Monomial": "degree",
    "Polynomial": "coef",
    "Rbf": "gamma",
    "RectifiedMonomial": "degree",
    "Relu": "do_stabilize",
    "Sigmoid_like": "",
    "Sign": "",
    "Sin": _WAVE,
    "SumPool": f"window_shape strides padding {_AXES}",
    "parallel": "layers",
    "repeat": "layer n",
    "serial": "layers",
}


@pytest.mark.parametrize("name", ORDER)
def test_names_and_order_are_the_old_ones(name):
    assert " ".join(inspect.signature(getattr(stax, name)).parameters) == ORDER[name]


def test_layouts_are_accepted_where_they_are_ours_and_are_no_part_of_the_layer():
    assert stax.Dense(8, 1.5, 0.1, 0, -1, "standard", (1, 2)) == stax.Dense(
        8, 1.5, 0.1, parameterization="standard", s=(1, 2)
    )
    last = ("NHWC", "HWIO", "NHWC")
    assert stax.Conv(8, (3, 3), None, "SAME", 1.0, None, last).to_spec() == {
        "Conv": {"out_chan": 8, "filter_shape": [3, 3], "padding": "SAME"}
    }
    assert stax.ImageResize((-1, 2, -1), "linear", True, jax.lax.Precision.HIGHEST, 0, -1).antialias


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: stax.Dense(8, channel_axis=1), "Dense: channel_axis must be -1, got 1. hint: inputs are"),
        (lambda: stax.Dense(8, 1.0, 0.1, "standard"), "Dense: batch_axis must be 0, got 'standard'"),
        (lambda: stax.Flatten(0, 1), "Flatten: batch_axis_out must be 0, got 1"),
        (
            lambda: stax.Conv(8, (3, 3), dimension_numbers=("NCHW", "OIHW", "NCHW")),
            "Conv: dimension_numbers must be None or channels last, as",
        ),
        (
            lambda: stax.DotGeneral(rhs=2.0, precision=jax.lax.Precision.DEFAULT),
            "DotGeneral: precision must be None or HIGHEST",
        ),
        (lambda: stax.Elementwise(), "Elementwise: fn must be a function, or nngp_fn its dual"),
    ],
)
def test_other_layouts_are_refused(make, match):
    with pytest.raises(ArchitectureError, match=match):
        make()


@pytest.mark.parametrize("one_half", [np.float32(0.5), np.array(0.5), jnp.sqrt(0.25)])
def test_scalars_of_numpy_and_jax_are_numbers(one_half):
    assert stax.Dense(np.array(8), one_half, one_half) == stax.Dense(8, 0.5, 0.5)
    with pytest.raises(ArchitectureError, match="out_dim must be an integer"):
        stax.Dense(one_half)
    with pytest.raises(ArchitectureError, match="W_std must be a finite number"):
        stax.Dense(8, one_half[None])


def test_a_dual_alone_has_a_kernel_but_no_finite_networks():
    layer = stax.Elementwise(nngp_fn=lambda k, v1, v2: k)
    x = np.ones((2, 3))
    np.testing.assert_allclose(stax.serial(stax.Dense(4), layer, stax.Dense(4)).kernel_fn(x).nngp, 1)
    with pytest.raises(ArchitectureError, match="fn is needed for finite networks"):
        layer.apply_fn((), x)


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
