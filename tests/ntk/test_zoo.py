"""Named architectures: the layers that were published, the same from Python and from YAML, written out when read."""

import numpy as np
import pytest

import ntk
from ntk import stax, zoo
from ntk.errors import ArchitectureError
from ntk.stax import Conv, Dense, Relu, from_spec, serial
from ntk.stax.signal import entry, trace
from tests.ntk.references import CASES

EXAMPLES = {
    "fc": ({"depth": 3}, (7,)),
    "myrtle": ({"depth": 5}, (8, 8, 3)),
    "cntk_vec": ({"depth": 3}, (6, 5, 3)),
    "cntk_gap": ({"depth": 4}, (6, 5, 3)),
    "wide_resnet": ({"block_size": 2, "k": 2}, (8, 8, 3)),
}


def test_every_name_has_an_example():
    assert set(EXAMPLES) == set(zoo.ARCHITECTURES)
    assert ntk.zoo is zoo


@pytest.mark.parametrize("name", EXAMPLES)
def test_yaml_and_python_give_one_value_and_one_fingerprint(name):
    arguments, shape = EXAMPLES[name]
    network = getattr(zoo, name)(**arguments)
    for spec in ({f"zoo.{name}": arguments}, [{f"zoo.{name}": arguments}]):
        assert from_spec(spec) == network
        assert stax.fingerprint(from_spec(spec)) == stax.fingerprint(network)
    assert "zoo" not in str(network.to_spec())
    assert from_spec(network.to_spec()) == network
    assert ntk.analytic.cost(network, shape).flops_per_pair > 0


def test_myrtle_ends_in_the_mean_that_three_halvings_leave_of_the_published_size():
    *body, pool, _ = zoo.myrtle(5).layers
    halve = stax.AvgPool((2, 2), (2, 2))
    published = trace(serial(*body, halve, halve, halve), entry((32, 32, 3)))
    assert pool == stax.GlobalAvgPool()
    assert published.spatial == (1, 1)


def test_myrtle_counts_its_layers():
    for depth in (5, 7, 10):
        layers = zoo.myrtle(depth).layers
        assert sum(isinstance(layer, (Conv, Dense)) for layer in layers) == depth


def test_wide_resnet_is_that_of_the_reference_kernels():
    """They were made with a last ReLU before the pooling, other variances in the first and last layer, and a group
    less: blocks are compared."""
    (case,) = [case for case in CASES if case["name"].startswith("wideresnet")]
    reference = from_spec(case["spec"]).layers
    ours = zoo.wide_resnet(2, 1, W_std=2**0.5).layers

    def shape(layer):
        if isinstance(layer, stax.Parallel):
            return [shape(serial(branch)) for branch in layer.layers]
        if isinstance(layer, stax.Serial):
            return [shape(inner) for inner in layer.layers]
        return (layer.W_std, layer.strides or (1, 1)) if isinstance(layer, Conv) else layer

    assert [shape(layer) for layer in ours[1:13]] == [shape(layer) for layer in reference[1:13]]


def test_cntk_is_the_published_recursion():
    """CNTK-GAP of depth 2 on inputs of one channel (Arora et al. 2019, section 4), written out with loops."""
    h, w = 3, 2
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, h, w))

    def patches(z):
        padded = np.pad(z, 1)
        return np.stack([padded[i : i + 3, j : j + 3].ravel() for i in range(h) for j in range(w)])

    p, q = patches(x), patches(y)
    sigma = p @ q.T
    norms = np.sqrt(np.outer(np.sum(p * p, 1), np.sum(q * q, 1)))
    theta = np.arccos(np.clip(sigma / norms, -1, 1))
    relu = 2 * norms * (np.sin(theta) + (np.pi - theta) * np.cos(theta)) / (2 * np.pi)
    slope = 2 * (np.pi - theta) / (2 * np.pi)
    published = {"nngp": np.mean(relu), "ntk": np.mean(sigma * slope) + np.mean(relu)}
    got = zoo.cntk_gap(2).kernel_fn(x[None, ..., None], y[None, ..., None])
    assert float((got.ntk / got.nngp)[0, 0]) == pytest.approx(published["ntk"] / published["nngp"], rel=1e-12)


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ({"zoo.myrtle": {"depth": 6}}, r"architecture: zoo.myrtle: depth must be one of 5, 7, 10, got 6"),
        ("zoo.myrtle", r"missing a required argument: 'depth'. hint: zoo.myrtle\(depth"),
        (
            {"zoo.fc": {"deph": 3}},
            r"zoo.fc has no argument 'deph'. hint: zoo.fc\(depth, width, W_std, b_std\)",
        ),
        ({"zoo.fc": {"depth": -1}}, "depth must be from 0"),
        ({"zoo.fc": {"depth": 10**9}}, "depth must be from 0"),
        ({"zoo.fc": {"depth": "3"}}, "depth must be an integer"),
        ({"zoo.fc": 3}, "arguments of zoo.fc are written"),
        ({"cntk_gap": {"depth": 3}}, "unknown layer 'cntk_gap'. hint: did you mean zoo.cntk_gap"),
        ([{"zoo.mirtle": {"depth": 5}}], r"architecture\[0\]: unknown architecture 'zoo.mirtle'.*zoo.myrtle"),
    ],
)
def test_bad_names_and_arguments_are_named(spec, match):
    with pytest.raises(ArchitectureError, match=match):
        from_spec(spec)


def test_a_named_architecture_is_a_part_like_any_other():
    spec = [{"zoo.fc": {"depth": 1, "width": 8}}, "Relu", {"Dense": {"out_dim": 2}}]
    hidden = [Dense(8, 2**0.5), Relu(), Dense(1, 2**0.5)]
    assert from_spec(spec) == serial(*hidden, Relu(), Dense(2))
