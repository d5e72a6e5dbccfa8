"""Fixed linear maps of positions: the kernel after one is that of inputs mapped beforehand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk import stax
from ntk.analytic import TileKernel
from ntk.analytic.kernel import outer_kernel, paired_kernel
from ntk.errors import ArchitectureError
from ntk.stax import Aggregate, DotGeneral, Flatten, GlobalAvgPool, ImageResize, Index, Slice

SHAPE = (5, 4, 3)
RNG = np.random.default_rng(0)
X1, X2 = RNG.standard_normal((3, *SHAPE)), RNG.standard_normal((2, *SHAPE))

#: Each with the read-out after it; the global average pooling asks for covariances of all positions.
LAYERS = [
    (ImageResize((-1, 3, 7, -1), "linear"), Flatten()),
    (ImageResize((-1, -1, 6, -1), "cubic"), GlobalAvgPool()),
    (ImageResize((-1, 2, 9, -1), "nearest"), Flatten()),
    (ImageResize((-1, 2, 9, -1), "nearest"), GlobalAvgPool()),
    (Index(Slice[:, ::-2, 1:]), GlobalAvgPool()),
    (Index(Slice[..., -1, :]), Flatten()),
    (Index(Slice[:, 2, 3]), Flatten()),
    (DotGeneral(rhs=-1.5), GlobalAvgPool()),
    (DotGeneral(rhs=[1, -1, 0, 2, 0.5], dimension_numbers=(((1,), (0,)), ((), ()))), GlobalAvgPool()),
    (DotGeneral(lhs=np.arange(10.0).reshape(2, 5), dimension_numbers=(((1,), (1,)), ((), ()))), Flatten()),
    (
        DotGeneral(lhs=np.arange(20.0).reshape(4, 5), dimension_numbers=(((), ()), ((1, 0), (1, 2)))),
        GlobalAvgPool(),
    ),
    (DotGeneral(rhs=[0.5, 1, 0, -2], dimension_numbers=(((), ()), ((2,), (0,)))), Flatten()),
    (DotGeneral(lhs=[1, 3]), GlobalAvgPool()),
    (DotGeneral(rhs=RNG.standard_normal((5, 4)), dimension_numbers=(((1, 2), (0, 1)), ((), ()))), Flatten()),
]


def mapped(layer, x):
    with jax.enable_x64(True):
        return np.asarray(layer.apply_fn((), x))


@pytest.mark.parametrize(("layer", "read_out"), LAYERS, ids=lambda layer: type(layer).__name__)
def test_the_kernel_is_that_of_mapped_inputs(layer, read_out):
    after = [mapped(layer, x) for x in (X1, X2)]
    with jax.enable_x64(True):
        network, alone = stax.serial(layer, read_out), stax.serial(read_out)
        expected = outer_kernel(alone, *map(jnp.asarray, after), ("nngp",))[0]["nngp"]
        fast = outer_kernel(network, jnp.asarray(X1), jnp.asarray(X2), ("nngp",))[0]["nngp"]
        exact = paired_kernel(network, jnp.asarray(X1[:2]), jnp.asarray(X2), ("nngp",))["nngp"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(fast, expected, atol=1e-14 * scale, rtol=1e-13)
    np.testing.assert_allclose(exact, np.diag(expected), atol=1e-14 * scale, rtol=1e-13)


@pytest.mark.parametrize(
    "layer",
    [
        ImageResize((-1, 3, 7, -1), "linear"),
        stax.GlobalSelfAttention(8, 4, 4, 4, b_std=0.1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_tiles_are_symmetric_and_the_diagonal_exact(layer):
    network = stax.serial(
        stax.Conv(8, (2, 2), W_std=1.4), stax.Relu(), layer, stax.Dense(8, 1.2, 0.1), stax.Relu(), Flatten()
    )
    x = np.concatenate([X1, X1[:1]])
    wide, narrow = (TileKernel(network, SHAPE, precision=p, tile=4)(x)["ntk"] for p in ("float64", "float32"))
    assert np.array_equal(wide, wide.T)
    assert abs(wide[0, 3] / wide[0, 0] - 1) < 1e-13, "a repeated row is its diagonal"
    assert np.max(np.abs(narrow / wide - 1)) < 1e-5


GRAPHS = [RNG.uniform(size=(n, 5, 5)) for n in (3, 2)]
NETWORK = stax.serial(
    stax.Dense(8, 1.4, 0.1), Aggregate(1), stax.Relu(), stax.Dense(8), Aggregate(1), GlobalAvgPool()
)


def test_a_graph_multiplies_both_sides():
    got = stax.serial(Aggregate(1), Flatten()).kernel_fn(X1, X2, "nngp", pattern=GRAPHS)
    first, second = (np.einsum("nij,nihc->njhc", a, x) for a, x in zip(GRAPHS, (X1, X2), strict=True))
    expected = np.einsum("nijc,mijc->nm", first, second) / np.prod(SHAPE)
    np.testing.assert_allclose(got, expected, rtol=1e-13)


def test_kernels_of_graphs_are_symmetric_and_agree_in_every_form():
    alone = NETWORK.kernel_fn(X1, None, "ntk", pattern=GRAPHS[0])
    assert np.array_equal(alone, alone.T)
    np.testing.assert_allclose(
        NETWORK.kernel_fn(X1, X1, "ntk", pattern=(GRAPHS[0], GRAPHS[0])), alone, rtol=1e-12
    )
    with jax.enable_x64(True):
        traced = jax.jit(lambda x, p: NETWORK.kernel_fn(x, None, "ntk", pattern=p))(X1, GRAPHS[0])
    np.testing.assert_allclose(traced, alone, rtol=1e-12)
    eye = np.tile(np.eye(5), (3, 1, 1))
    without = NETWORK.kernel_fn(X1, None, "ntk")
    np.testing.assert_allclose(NETWORK.kernel_fn(X1, None, "ntk", pattern=eye), without, rtol=1e-12)


def test_sparse_and_dense_patterns_of_one_graph_agree():
    edges = np.array([[[[0, 1], [2, 3]], [[0, 1], [2, 3]], [[4, 4], [3, -1]], [[1, 0], [1, 0]]]] * 2)
    dense = np.zeros((2, 5, 4, 5, 4))
    dense[:, 0, 2, 1, 3] = 2
    dense[:, 1, 1, 0, 0] = 1
    sparse = stax.serial(Aggregate(implementation="SPARSE"), Flatten())
    decoded = stax.serial(Aggregate(to_dense=lambda p: 2 * p), Flatten())
    with jax.enable_x64(True):
        expected = stax.serial(Aggregate(), Flatten()).apply_fn(((), ()), X2, pattern=dense)
        np.testing.assert_allclose(sparse.apply_fn(((), ()), X2, pattern=edges), expected, rtol=1e-14)
        np.testing.assert_allclose(decoded.apply_fn(((), ()), X2, pattern=dense / 2), expected, rtol=1e-14)
        kernel = [
            np.asarray(net.kernel_fn(X2, None, "nngp", pattern=p))
            for net, p in ((sparse, edges), (decoded, dense / 2))
        ]
    np.testing.assert_allclose(kernel[0], kernel[1], rtol=1e-14)
    np.testing.assert_allclose(kernel[0], np.einsum("nc,mc->nm", expected, expected) / 60, rtol=1e-13)


@pytest.mark.parametrize(
    ("pattern", "match"),
    [
        ((GRAPHS[0], None), "graphs of x1 and of x2"),
        (GRAPHS[0], "graphs of x1 and of x2"),
        ((GRAPHS[0], GRAPHS[1][:, :4]), r"must have shape \(batch, 5, 5\), got"),
        ((GRAPHS[0], GRAPHS[1][..., None]), "must have shape"),
    ],
)
def test_patterns_that_do_not_fit_are_refused(pattern, match):
    with pytest.raises(ArchitectureError, match=match):
        NETWORK.kernel_fn(X1, X2, "ntk", pattern=pattern)


def test_patterns_without_place_are_refused():
    with pytest.raises(ArchitectureError, match="one graph for each of 2 inputs, got 1"):
        NETWORK.kernel_fn(X1, X2, "ntk", pattern=(GRAPHS[0], GRAPHS[1][:1]))
    with pytest.raises(ArchitectureError, match="no Aggregate to take a pattern"):
        stax.serial(Flatten()).kernel_fn(X1, X2, "nngp", pattern=GRAPHS)
    with pytest.raises(ArchitectureError, match="two kinds of graphs"):
        NETWORK.kernel_fn(X1, None, "ntk", pattern=(GRAPHS[0], 2 * GRAPHS[0]))
    with pytest.raises(ArchitectureError, match="pattern must be an array of real numbers, got complex128"):
        NETWORK.kernel_fn(X1, None, "ntk", pattern=1j * GRAPHS[0])
    with pytest.raises(ArchitectureError, match="array of integers"):
        stax.serial(Aggregate(1, implementation="SPARSE")).apply_fn(((),), X1, pattern=GRAPHS[0])


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["known", "traced"])
def test_edges_to_vertices_that_do_not_exist_are_refused(transform):
    net = stax.serial(Aggregate(1, implementation="SPARSE"), Flatten(), stax.Dense(1))
    _, params = net.init_fn(jax.random.key(0), (-1, *SHAPE))
    edges, size = np.zeros((len(X1), 2, 2), int), SHAPE[0]
    edges[1, 1] = -1, size  # left out
    wrong = edges.copy()
    wrong[1, 0] = 3, size
    message = rf"below \({size},\), got the edge from \[3\] to \[{size}\] of input 1"
    for call in (
        lambda x, p: net.kernel_fn(x, None, "ntk", pattern=p),
        lambda x, p: net.apply_fn(params, x, pattern=p),
    ):
        assert np.isfinite(transform(partial(call, p=edges))(X1)).all()
        with pytest.raises(ArchitectureError, match=message):
            transform(partial(call, p=wrong))(X1)
