"""An architecture is accepted exactly where its kernel is that of wide networks: nothing whose kernel the rules cannot
hold gets through the type check, and nothing that they can is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk.analytic import cost
from ntk.analytic.kernel import outer_kernel
from ntk.errors import ArchitectureError
from ntk.stax import (
    AvgPool,
    Conv,
    Dense,
    Dropout,
    Erf,
    FanInConcat,
    FanInProd,
    FanInSum,
    FanOut,
    Flatten,
    Identity,
    LayerNorm,
    Relu,
    parallel,
    serial,
)

WIDTH, CHANNELS, NETWORKS = 1024, 256, 8


def dense(width=WIDTH, W_std=1.1, b_std=0.3):
    return Dense(width, W_std, b_std)


def joined(join, *branches):
    return serial(FanOut(len(branches)), parallel(*branches), join)


def total(*branches):
    return joined(FanInSum(), *branches)


def product(*branches):
    return joined(FanInProd(), *branches)


def side_by_side(*branches):
    return joined(FanInConcat(), *branches)


SKIP, OWN, OWN_RELU = Identity(), dense(), serial(dense(), Relu())
RESIDUAL = total(dense(), SKIP)
#: Channels of two variances, which do not grow in proportion.
UNLIKE = side_by_side(dense(WIDTH // 2, 0.2, 0.0), dense(WIDTH // 2, 3.0, 0.5))
FLAT = serial(Conv(CHANNELS, (1, 1), W_std=1.5), Flatten())

#: After Dense: Gaussian, centred, all channels alike.
ACCEPTED = {
    "residual": RESIDUAL,
    "residual of a nonlinearity": serial(Relu(), total(dense(), SKIP)),
    "weights after a nonlinearity": total(serial(Relu(), dense()), SKIP),
    "LayerNorm after weights": total(serial(dense(), LayerNorm()), SKIP),
    "Dropout after weights": total(serial(dense(), Dropout(0.7)), SKIP),
    "one mean": total(OWN_RELU, SKIP),
    "one mean of three": total(OWN_RELU, OWN, SKIP),
    "block that ends in weights": total(serial(RESIDUAL, Relu(), dense()), SKIP),
    "block without a skip": total(total(dense(), dense()), SKIP),
    "two skips, weights between": serial(RESIDUAL, Relu(), dense(), RESIDUAL, Relu()),
    "correlated side by side": side_by_side(SKIP, Relu()),
    "weights after unlike": serial(UNLIKE, dense(), Erf()),
    "LayerNorm of unlike": serial(UNLIKE, LayerNorm()),
    "product": product(OWN, SKIP),
    "product of means": product(OWN_RELU, Relu()),
    "product with unlike": product(UNLIKE, dense()),
    "sum with a centred product": total(product(OWN_RELU, dense()), Relu()),
}
REFUSED = {
    "twice the same": (total(SKIP, SKIP), "branches 0, 1 are correlated"),
    "nonlinearity and skip": (total(Relu(), SKIP), "branches 0, 1 are correlated"),
    "LayerNorm and skip": (total(SKIP, LayerNorm()), "branches 0, 1 are correlated"),
    "Dropout and skip": (total(SKIP, Dropout(0.7)), "branches 0, 1 are correlated"),
    "two of three": (total(SKIP, dense(), Relu()), "branches 0, 2 are correlated"),
    "skip around a residual block": (total(RESIDUAL, SKIP), "branches 0, 1 are correlated"),
    "skip around a product": (product(product(OWN, SKIP), SKIP), "branches 0, 1 are correlated"),
    "skip around a concatenation": (
        total(side_by_side(dense(WIDTH // 2), dense(WIDTH // 2)), side_by_side(SKIP), SKIP),
        "branches 1, 2 are correlated",
    ),
    "two means": (total(OWN_RELU, OWN_RELU), "the means of branches 0, 1 need not be zero"),
    "mean and mean of a nonlinearity": (
        serial(Relu(), total(OWN_RELU, SKIP)),
        "the means of branches 0, 1 need not be zero",
    ),
    "product of the same": (product(SKIP, SKIP), "branches 0, 1 are correlated"),
    "product of a nonlinearity and skip": (product(Relu(), SKIP), "branches 0, 1 are correlated"),
    "product of unlike": (product(UNLIKE, UNLIKE), "channels of one distribution in all branches but one"),
    "nonlinearity of unlike": (serial(UNLIKE, Erf()), "needs a layer with weights.*before FanInConcat"),
    "LayerNorm of a nonlinearity": (serial(Relu(), LayerNorm()), "subtracts a mean over channels"),
}
#: Where the inputs themselves enter: their channels have values of their own.
ON_INPUTS = {
    "sum with inputs": (total(dense(), SKIP), None),
    "product with inputs": (product(dense(), SKIP), None),
    "sum of means with inputs": (total(OWN_RELU, SKIP), "the means of branches 0, 1"),
    "LayerNorm of inputs": (LayerNorm(), "subtracts a mean over channels"),
}
#: After Conv, on positions of unequal variance.
ON_IMAGES = {
    "pooled skip": (
        total(serial(Conv(CHANNELS, (1, 1)), AvgPool((2, 2)), Flatten()), serial(AvgPool((2, 2)), Flatten())),
        None,
    ),
    "flattened": (total(FLAT, serial(Conv(4 * CHANNELS, (2, 2)), Flatten())), None),
    "product with flattened": (product(FLAT, serial(Conv(4 * CHANNELS, (2, 2)), Flatten())), None),
    "LayerNorm of flattened": (serial(Flatten(), LayerNorm()), None),
    "flattened skip": (total(Flatten(), serial(Relu(), Flatten())), "branches 0, 1 are correlated"),
    "product of flattened": (product(FLAT, FLAT), "channels of one distribution in all branches but one"),
    "nonlinearity of flattened": (serial(Flatten(), Erf()), "needs a layer with weights.*before Flatten"),
}
START = {
    "vector": serial(Dense(WIDTH, 0.8, 0.4)),
    "inputs": serial(),
    "image": serial(Conv(CHANNELS, (1, 1), W_std=1.5, b_std=0.1)),
}
CASES = [
    *(("vector", body, None, why) for why, body in ACCEPTED.items()),
    *(("vector", *case, why) for why, case in REFUSED.items()),
    *(("inputs", *case, why) for why, case in ON_INPUTS.items()),
    *(("image", *case, why) for why, case in ON_IMAGES.items()),
]


def inputs(kind):
    """Two batches of two inputs, all of them similar, so that their kernels are large beside the noise."""
    rng = np.random.default_rng(0)
    shape = {"vector": (6,), "inputs": (WIDTH,), "image": (2, 2, 3)}[kind]
    x = 1.0 + rng.standard_normal(shape) + rng.standard_normal((4, *shape))
    if kind == "image":
        x *= np.array([0.2, 0.6, 1.2, 2.0]).reshape(2, 2, 1)
    return jnp.asarray(x[:2], jnp.float32), jnp.asarray(x[2:], jnp.float32)


@pytest.mark.parametrize(("kind", "body", "refused"), [pytest.param(*c[:3], id=c[3]) for c in CASES])
def test_accepted_exactly_where_wide_networks_have_the_kernel(kind, body, refused):
    x1, x2 = inputs(kind)
    features = serial(START[kind], body)
    network = serial(features, Dense(1))
    # With a read-out of unit variance the kernel is what the mean over the channels of its input becomes.
    expected = np.asarray(outer_kernel(network, x1, x2, ("nngp",))[0]["nngp"])
    got = []
    for key in jax.random.split(jax.random.key(1), NETWORKS):
        params = features.init_fn(key, (-1, *x1.shape[1:]))[1]
        h1, h2 = (
            features.apply_fn(params, x, rng=jax.random.fold_in(key, i)) for i, x in enumerate((x1, x2))
        )
        got.append(np.asarray(h1) @ np.asarray(h2).T / h1.shape[-1])
    deviation = np.max(np.abs(np.mean(got, 0) - expected)) / np.max(np.abs(expected))
    if refused is None:
        cost(network, x1.shape[1:])
        assert deviation < 0.1
    else:
        with pytest.raises(ArchitectureError, match=f"no infinite-width kernel: .*{refused}"):
            cost(network, x1.shape[1:])
        assert deviation > 0.2
