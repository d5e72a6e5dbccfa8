"""Empirical kernels of neural-tangents 0.6.5 in float64, at parameters that it saved.

`tests/data/reference/empirical.npz` holds, under `name/`, inputs x1 and x2, parameters, outputs f1 and f2, and kernels.
The networks stand here as plain JAX functions.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.scipy.special import erf

import ntk
from ntk import stax
from tests.ntk.references import HERE


def relu(x):
    return jnp.maximum(x, 0)


def dense(x, layer, W_std=1.0, b_std=0.0, standard=False):
    out = jnp.matmul(x, layer["W"])
    if standard:
        return out + layer["b"]
    return W_std / x.shape[-1] ** 0.5 * out + (b_std * layer["b"] if "b" in layer else 0.0)


def conv(x, layer, padding, W_std=1.0, b_std=0.0, strides=(1, 1), standard=False):
    weight = layer["W"]
    if padding == "CIRCULAR":
        (h, w), padding = weight.shape[:2], "VALID"
        x = jnp.pad(x, ((0, 0), ((h - 1) // 2, h // 2), ((w - 1) // 2, w // 2), (0, 0)), mode="wrap")
    out = lax.conv_general_dilated(x, weight, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    if standard:
        return out + layer["b"]
    scale = W_std / np.prod(weight.shape[:3]) ** 0.5
    return scale * out + (b_std * layer["b"] if "b" in layer else 0.0)


def flatten(x):
    return x.reshape(len(x), -1)


def fc_relu(p, x):
    return dense(relu(dense(relu(dense(x, p[0], 1.5, 0.1)), p[1], 1.5, 0.1)), p[2])


def fc_erf_std(p, x):
    return dense(erf(dense(x, p[0], standard=True)), p[1], standard=True)


def fc_res_gelu_ln(p, x):
    h = dense(x, p[0], 1.2, 0.1)
    h = h + dense(jax.nn.gelu(h, approximate=False), p[1], 1.1, 0.2)
    h = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-12)
    return dense(relu(h), p[2])


def cnn_same_flat(p, x):
    h = relu(conv(x, p[0], "SAME", 1.4, 0.1))
    return dense(flatten(relu(conv(h, p[1], "SAME", 1.4, 0.1, (2, 2)))), p[2], 1.0, 0.1)


def cnn_pool_gap(p, x):
    h = relu(conv(x, p[0], "CIRCULAR", 1.4, 0.1))
    h = h.reshape(len(h), 4, 2, 4, 2, -1).mean((2, 4))
    return dense(erf(conv(h, p[1], "VALID", 1.4)).mean((1, 2)), p[2], 1.2)


def cnn_std(p, x):
    return dense(flatten(erf(conv(x, p[0], "SAME", standard=True))), p[1], standard=True)


def attn(p, x):
    flat, layer = x.reshape(len(x), -1, 3), p[0]
    keys = jnp.einsum("bsc,hck->bhsk", flat, layer["K"]) / 3**0.5
    values = jnp.einsum("bsc,hcv->bhsv", flat, layer["V"]) / 3**0.5
    weights = jax.nn.softmax(jnp.einsum("bhsk,bhtk->bhst", keys, keys) / 3, axis=-1)
    heads = jnp.einsum("bhst,bhtv->bsvh", weights, values).reshape(len(x), -1, 6)
    out = heads @ layer["O"] / 6**0.5 + 0.1 * layer["b"].reshape(1, 1, 4)
    return dense(flatten(relu(out)), p[1])


NETWORKS = [fc_relu, fc_erf_std, fc_res_gelu_ln, cnn_same_flat, cnn_pool_gap, cnn_std, attn]


@cache
def archive():
    with np.load(HERE / "empirical.npz") as file:
        return dict(file)


def arrays(name):
    """The arrays of a case, and its parameters as a list of dictionaries, one per layer."""
    data = {k.removeprefix(f"{name}/"): v for k, v in archive().items() if k.startswith(f"{name}/")}
    layers = {}
    for key in [key for key in data if key.startswith("param_")]:
        _, index, array = key.split("_")
        layers.setdefault(int(index), {})[array] = data.pop(key)
    return data, [layers[i] for i in sorted(layers)]


def close(got, expected):
    assert got.dtype == np.float64
    assert np.max(np.abs(np.asarray(got) - expected)) < 1e-12 * np.max(np.abs(expected))


@pytest.mark.parametrize("method", ["JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS", "STRUCTURED_DERIVATIVES"])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda f: f.__name__)
def test_reference(network, method):
    data, params = arrays(network.__name__)
    x1, x2 = data["x1"], data["x2"]
    kernel_fn = ntk.empirical_kernel_fn(network, vmap_axes=0, implementation=method)
    full_fn = ntk.empirical_ntk_fn(network, (), vmap_axes=0, implementation=method)

    @jax.jit
    def everything(params, x1, x2):
        return (
            network(params, x1),
            *kernel_fn(x1, x2, None, params),
            kernel_fn(x1, None, "ntk", params),
            full_fn(x1, x2, params),
        )

    with jax.enable_x64(True):
        names = ["f1", "nngp_trace", "ntk_trace", "ntk_trace_11", "ntk_full"]
        for name, got in zip(names, everything(params, x1, x2), strict=True):
            close(got, data[name])


def test_our_networks_are_theirs():
    net = stax.serial(
        stax.Dense(32, W_std=1.5, b_std=0.1),
        stax.Relu(),
        stax.Dense(32, W_std=1.5, b_std=0.1),
        stax.Relu(),
        stax.Dense(3),
    )
    data, params = arrays("fc_relu")
    nested = tuple(entry for layer in params for entry in ((layer["W"], layer.get("b")), ()))[:-1]
    with jax.enable_x64(True):
        close(net.apply_fn(nested, data["x1"]), data["f1"])
        close(
            ntk.empirical_ntk_fn(net.apply_fn, (), vmap_axes=0)(data["x1"], data["x2"], nested),
            data["ntk_full"],
        )


def test_our_attention_is_theirs():
    net = stax.serial(
        stax.GlobalSelfAttention(4, 3, 3, 2, b_std=0.1), stax.Relu(), stax.Flatten(), stax.Dense(2)
    )
    data, (attention, dense_layer) = arrays("attn")
    nested = ((None, *(attention[name] for name in "KVOb"), None), (), (), (dense_layer["W"], None))
    with jax.enable_x64(True):
        close(net.apply_fn(nested, data["x1"]), data["f1"])
