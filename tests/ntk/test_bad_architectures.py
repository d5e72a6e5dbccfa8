"""Architectures that cannot be are refused, naming the layer by its position, what it got and what it wants: when they
are built where their arguments are impossible, else before anything is computed for the inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk import stax
from ntk.analytic import TileKernel, cost
from ntk.errors import ArchitectureError
from ntk.stax import (
    Aggregate,
    AvgPool,
    Conv,
    ConvLocal,
    ConvTranspose,
    Dense,
    DotGeneral,
    Elementwise,
    FanInConcat,
    FanInProd,
    FanInSum,
    FanOut,
    Flatten,
    GlobalAvgPool,
    GlobalSelfAttention,
    GlobalSumPool,
    Identity,
    ImageResize,
    Index,
    LayerNorm,
    Relu,
    Slice,
    SumPool,
    parallel,
    serial,
)
from pipeline.config.model import KernelConfig
from pipeline.errors import InputError
from pipeline.stages.kernels import specify

IMAGE, VECTOR = (6, 4, 3), (5,)
HEADS = (8, 4, 4, 2)


def after(*layers):
    return serial(Conv(8, (1, 1)), Relu(), *layers, Dense(1))


def branches(join, *sizes, layers=(Dense, Dense)):
    return serial(Dense(4), FanOut(2), parallel(*(k(n) for k, n in zip(layers, sizes, strict=True))), join)


#: The position that must be named, and what else the message says.
ON_IMAGES = {
    "pool after flatten": (after(Flatten(), AvgPool((2, 2))), r"\[3\] \(AvgPool\) needs spatial axes"),
    "sum pool after flatten": (after(Flatten(), SumPool((2, 2))), r"\[3\] \(SumPool\) needs spatial axes"),
    "pool after pool": (after(GlobalAvgPool(), GlobalSumPool()), r"\[3\] \(GlobalSumPool\) needs spatial"),
    "filter after pool": (after(GlobalAvgPool(), Conv(4, (3, 3))), r"\[3\] \(Conv\) needs spatial axes"),
    "local filter after flatten": (after(Flatten(), ConvLocal(4, (3, 3))), r"\[3\] \(ConvLocal\) needs"),
    "transposed filter": (after(Flatten(), ConvTranspose(4, (3, 3))), r"\[3\] \(ConvTranspose\) needs"),
    "attention after flatten": (
        after(Flatten(), GlobalSelfAttention(*HEADS)),
        r"\[3\] \(GlobalSelfAttention\) needs spatial axes and got a vector of 192 channels. hint: nothing spatial",
    ),
    "graph after flatten": (after(Flatten(), Aggregate()), r"\[3\] \(Aggregate\) needs spatial axes"),
    "resize after flatten": (
        after(Flatten(), ImageResize((-1, 2, -1), "linear")),
        r"\[3\] \(ImageResize\) needs",
    ),
    "filter of another rank": (
        after(Conv(4, (3,))),
        r"\[2\] \(Conv\) has a window of 1 sizes, \(3,\), and got 2",
    ),
    "window too large": (
        after(AvgPool((7, 1))),
        r"\[2\] \(AvgPool\): its window does not fit into the positions",
    ),
    "normalised batch": (after(LayerNorm((0, 3))), r"\[2\] \(LayerNorm\): axis must hold the channel axis 3"),
    "graph of another axis": (
        after(Aggregate(3)),
        r"\[2\] \(Aggregate\): aggregate_axis must name axes from 1 to 2",
    ),
    "graph of an axis twice": (after(Aggregate((1, -3))), r"\[2\] \(Aggregate\): aggregate_axis must name"),
    "resize of another rank": (
        after(ImageResize((-1, 3, -1), "linear")),
        r"\[2\] \(ImageResize\): shape must have 4 sizes",
    ),
    "resized channels": (
        after(ImageResize((-1, 3, 3, 5), "linear")),
        r"\[2\] \(ImageResize\): shape must be -1 for the batch and the channels, got \(-1, 3, 3, 5\)",
    ),
    "resized batch": (
        after(ImageResize((2, 3, 3, -1), "linear")),
        r"\[2\] \(ImageResize\): shape must be -1",
    ),
    "indexed batch": (
        after(Index(Slice[::2])),
        r"\[2\] \(Index\) must leave the batch and the channels whole",
    ),
    "indexed channels": (
        after(Index(Slice[..., :4])),
        r"\[2\] \(Index\) must leave the batch and the channels",
    ),
    "index of more axes": (after(Index(Slice[:, 1, 1, 1, :])), r"\[2\] \(Index\) names more axes than the 4"),
    "index outside": (after(Index(Slice[:, 6])), r"\[2\] \(Index\): 6 is outside the positions \(6, 4\)"),
    "index of nothing": (after(Index(Slice[:, 6:])), r"\[2\] \(Index\) leaves no positions of \(6, 4\)"),
    "product over the batch": (
        after(DotGeneral(rhs=[1.0, 2.0], dimension_numbers=(((0,), (0,)), ((), ())))),
        r"\[2\] \(DotGeneral\): dimension_numbers must name spatial axes of the input, from 1 to 2, got \(0,\)",
    ),
    "product over channels": (
        after(DotGeneral(lhs=[1.0] * 8, dimension_numbers=(((0,), (3,)), ((), ())))),
        r"\[2\] \(DotGeneral\): dimension_numbers must name spatial axes",
    ),
    "product of unequal sizes": (
        after(DotGeneral(rhs=[1.0, 2.0], dimension_numbers=(((1,), (0,)), ((), ())))),
        r"\[2\] \(DotGeneral\): axes \(1,\) of the input, positions \(6, 4\), and \(0,\) of the constant",
    ),
    "product over no axis": (
        after(DotGeneral(rhs=[1.0, 2.0], dimension_numbers=(((1,), (1,)), ((), ())))),
        r"\[2\] \(DotGeneral\): dimension_numbers must name axes of the constant of shape \(2,\)",
    ),
    "product over an axis twice": (
        after(DotGeneral(rhs=[1.0] * 6, dimension_numbers=(((1,), (0,)), ((1,), (0,))))),
        r"\[2\] \(DotGeneral\): dimension_numbers name an axis twice",
    ),
    "embeddings of other channels": (
        after(GlobalSelfAttention(*HEADS, pos_emb_type="SUM", n_chan_pos_emb=5)),
        r"\[2\] \(GlobalSelfAttention\) adds positional embeddings of 5 channels to an input of 8",
    ),
    "attention without closed form": (
        after(GlobalSelfAttention(*HEADS, linear_scaling=False), Flatten()),
        r"no infinite-width kernel: architecture\[2\] \(GlobalSelfAttention\) has no closed form without linear",
    ),
    "nested": (serial(parallel(Dense(1))), r"\[0\] \(parallel\) takes 1 branches and got one input"),
    "positions left": (after(), r"ends with positions of shape \(6, 4\)"),
}
ON_VECTORS = {
    "sum of unequal shapes": (
        branches(FanInSum(), 4, 5),
        r"\[3\] \(FanInSum\) needs branches of one shape, got",
    ),
    "product of unequal shapes": (
        branches(FanInProd(), 4, 5),
        r"\[3\] \(FanInProd\) needs branches of one shape",
    ),
    "concatenated batch": (
        branches(FanInConcat(0), 4, 5),
        r"\[3\] \(FanInConcat\) joins channels, axis -1 or 1",
    ),
    "join without branches": (
        serial(Dense(4), FanInSum()),
        r"\[1\] \(FanInSum\) joins branches and got one input",
    ),
    "branches without join": (
        serial(Dense(4), FanOut(2), Relu()),
        r"\[2\] \(Relu\) takes one input and got 2",
    ),
    "too few branches": (
        serial(Dense(4), FanOut(3), parallel(Dense(4), Dense(4))),
        r"\[2\] \(parallel\) has 2 branches and got 3 inputs",
    ),
    "inside a branch": (
        serial(Dense(4), FanOut(2), parallel(Identity(), serial(Dense(4), GlobalAvgPool())), FanInSum()),
        r"architecture\[2\]\.parallel\[1\]\[1\] \(GlobalAvgPool\) needs spatial axes",
    ),
    "attention on vectors": (
        serial(GlobalSelfAttention(*HEADS), Dense(1)),
        r"architecture\[0\] \(GlobalSelfAttention\) needs spatial axes and got a vector of 5 channels",
    ),
    "function without dual": (
        serial(Dense(4), Elementwise(jnp.tanh), Dense(1)),
        r"architecture\[1\] \(Elementwise\): nngp_fn is needed for the kernel. hint: ElementwiseNumerical",
    ),
    "nonlinearities in a row": (
        serial(Dense(4), Relu(), Relu()),
        r"architecture\[2\] \(Relu\) needs a layer with",
    ),
    "branches of branches": (
        serial(FanOut(2), parallel(Identity(), FanOut(2)), FanInSum()),
        r"\[2\] \(FanInSum\) joins branches, of which \[1\] ends in 2 branches of its own",
    ),
}
CASES = [
    *(pytest.param(*case, IMAGE, id=why) for why, case in ON_IMAGES.items()),
    *(pytest.param(*case, VECTOR, id=why) for why, case in ON_VECTORS.items()),
]


@pytest.mark.parametrize(("network", "match", "shape"), CASES)
def test_refused_before_anything_is_computed(network, match, shape):
    for refusing in (
        lambda: network.kernel_fn(np.zeros((2, *shape))),
        lambda: cost(network, shape),
        lambda: TileKernel(network, shape, tile=2),
    ):
        with pytest.raises(ArchitectureError, match=match):
            refusing()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: GlobalSelfAttention(0, 1, 1, 1), "n_chan_out must be at least 1, got 0"),
        (lambda: GlobalSelfAttention(1, 1, 1, 0), "n_heads must be at least 1"),
        (lambda: GlobalSelfAttention(*HEADS, W_key_std=-1), "W_key_std must be from 0"),
        (
            lambda: GlobalSelfAttention(*HEADS, attention_mechanism="softmax"),
            "one of SOFTMAX, IDENTITY, ABS, RELU",
        ),
        (lambda: GlobalSelfAttention(*HEADS, pos_emb_type="ADD"), "one of NONE, SUM, CONCAT"),
        (lambda: GlobalSelfAttention(*HEADS, pos_emb_decay_fn="linear"), "a function or one of exp"),
        (lambda: GlobalSelfAttention(*HEADS, pos_emb_p_norm=0), "pos_emb_p_norm must be greater than 0"),
        (lambda: GlobalSelfAttention(*HEADS, n_chan_pos_emb=0), "n_chan_pos_emb must be null or at least 1"),
        (lambda: Aggregate(implementation="sparse"), "one of DENSE, SPARSE"),
        (lambda: Aggregate(1.5), "aggregate_axis must be an integer"),
        (lambda: ImageResize((-1, 0, -1), "linear"), "sizes of at least 1, or -1"),
        (lambda: ImageResize((-1, 2, -1), "area"), "method must be one of nearest, linear"),
        (lambda: Index(Slice[:, 1.5]), "idx must be made of integers, slices"),
        (lambda: Index(Slice[..., ...]), "at most one"),
        (lambda: Index(Slice[:, ::0]), "idx must be made of"),
        (lambda: DotGeneral(lhs=1.0, rhs=2.0), "one of lhs and rhs must be null"),
        (lambda: DotGeneral(rhs=[[1.0], [1.0, 2.0]]), "rhs must be a number or an array of finite numbers"),
        (lambda: DotGeneral(lhs=float("nan")), "lhs must be a number"),
        (lambda: DotGeneral(rhs="weights.npy"), "rhs must be a number"),
        (lambda: DotGeneral(dimension_numbers=(((1,), (0,)), ((), ()))), "dimension_numbers need lhs or rhs"),
    ],
)
def test_impossible_arguments_are_refused_when_built(make, match):
    with pytest.raises(ArchitectureError, match=match):
        make()


def test_a_network_without_a_kernel_still_has_finite_ones():
    network = serial(GlobalSelfAttention(*HEADS, linear_scaling=False), Flatten(), Dense(1))
    params = network.init_fn(jax.random.key(0), (-1, *IMAGE))[1]
    assert network.apply_fn(params, np.ones((2, *IMAGE), np.float32)).shape == (2, 1)


def test_embeddings_of_no_covariance_are_refused():
    layer = GlobalSelfAttention(*HEADS, pos_emb_type="SUM", pos_emb_decay_fn=jnp.cosh)
    params = layer.init_fn(jax.random.key(0), (-1, *IMAGE))[1]
    with pytest.raises(ArchitectureError, match=r"smallest eigenvalue .* over 24 positions"):
        layer.apply_fn(params, np.ones((2, *IMAGE), np.float32))


def test_a_run_refuses_graphs_that_it_does_not_have():
    config = KernelConfig(architecture=[{"Dense": {"out_dim": 8}}, "Aggregate", "Flatten"])
    with pytest.raises(InputError, match="Aggregate needs the graph of every input") as refused:
        specify(config, (4, 3))
    assert "pattern=(p1, p2)" in str(refused.value.hint)


def test_equal_layers_are_equal_values_and_round_trip():
    assert (
        Index(Slice[:, 1:5:1])
        == Index([[None], [1, 5]])
        == stax.from_spec({"Index": {"idx": [[None], [1, 5]]}})
    )
    assert DotGeneral(rhs=np.eye(2)) == DotGeneral(rhs=[[1, 0], [0, 1]])
    assert hash(DotGeneral(rhs=jnp.ones(2))) == hash(DotGeneral(rhs=(1, 1)))
    for layer in (Index(Slice[:, 1, ..., ::2, :]), DotGeneral(lhs=2), GlobalSelfAttention(*HEADS, b_std=0.1)):
        assert stax.from_spec(layer.to_spec()) == layer
