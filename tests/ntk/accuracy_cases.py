"""Architectures and inputs on which the guarantees of docs/accuracy.md are held."""

import numpy as np

from ntk import stax
from ntk.stax import Conv, Dense, Flatten, GlobalAvgPool, Layer, Relu, serial

VECTOR, IMAGE = (20,), (4, 4, 2)
#: Largest deviation of a float32 entry from the float64 one, over √(K_ii K_jj).
ARC_COSINE, OTHER = 1e-5, 1e-4


def dense(*nonlinearities: Layer, bias: float | None = 0.1) -> Layer:
    hidden = [layer for act in nonlinearities for layer in (Dense(8, 1.3, bias), act)]
    return serial(*hidden, Dense(1, 1.0, bias))


def conv(bias: float | None = None) -> Layer:
    return Conv(8, (3, 3), padding="SAME", W_std=1.4, b_std=bias)


def pool() -> Layer:
    return stax.AvgPool((2, 2), (2, 2))


#: (architecture, shape of an input, bound), the quick ones.
QUICK: dict[str, tuple[Layer, tuple[int, ...], float]] = {
    "relu": (dense(Relu(), Relu(), Relu()), VECTOR, ARC_COSINE),
    "leaky and abs, no bias": (dense(stax.LeakyRelu(0.2), stax.Abs(), bias=None), VECTOR, ARC_COSINE),
    "erf": (dense(stax.Erf(), stax.Erf()), VECTOR, OTHER),
    "sin, no bias": (dense(stax.Sin(), stax.Sin(), bias=None), VECTOR, OTHER),
    "conv flatten": (serial(conv(0.1), Relu(), conv(), Relu(), Flatten(), Dense(1)), IMAGE, ARC_COSINE),
}

SMOOTH = (
    stax.Sigmoid_like(),
    stax.Gelu(),
    stax.Cos(),
    stax.Rbf(),
    stax.Gaussian(),
    stax.ExpNormalized(),
    stax.Gabor(),
    stax.Sign(),
    stax.RectifiedMonomial(0),
)
SLOW: dict[str, tuple[Layer, tuple[int, ...], float]] = {
    **{
        f"{type(act).__name__}, bias {bias}": (dense(act, act, bias=bias), VECTOR, OTHER)
        for act in SMOOTH
        for bias in (0.1, None)
    },
    "myrtle": (
        serial(conv(), Relu(), pool(), conv(), Relu(), pool(), Flatten(), Dense(1)),
        IMAGE,
        ARC_COSINE,
    ),
    "ABRelu": (dense(stax.ABRelu(-0.5, 1.2), stax.ABRelu(0.3, 1.0)), VECTOR, ARC_COSINE),
    "deep": (dense(*[Relu()] * 12), VECTOR, ARC_COSINE),
    "conv mean": (serial(conv(), Relu(), conv(), Relu(), GlobalAvgPool(), Dense(1)), IMAGE, ARC_COSINE),
    "gelu pool": (
        serial(conv(0.1), stax.Gelu(), pool(), conv(), stax.Gelu(), GlobalAvgPool(), Dense(1)),
        IMAGE,
        OTHER,
    ),
    "erf mean": (serial(conv(), stax.Erf(), conv(0.1), stax.Erf(), GlobalAvgPool(), Dense(1)), IMAGE, OTHER),
    "layer norm": (
        serial(conv(0.1), stax.LayerNorm(), Relu(), conv(), Relu(), GlobalAvgPool(), Dense(1)),
        IMAGE,
        ARC_COSINE,
    ),
    "local": (
        serial(
            stax.ConvLocal(8, (3, 3), padding="SAME"), Relu(), GlobalAvgPool(), Dense(8), Relu(), Dense(1)
        ),
        IMAGE,
        ARC_COSINE,
    ),
    "residual": (
        serial(
            conv(),
            stax.FanOut(2),
            stax.parallel(serial(Relu(), conv(0.1)), stax.Identity()),
            stax.FanInSum(),
            Relu(),
            GlobalAvgPool(),
            Dense(8),
            Relu(),
            Dense(1),
        ),
        IMAGE,
        ARC_COSINE,
    ),
}


def rows(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Eleven inputs: two at random, a duplicate, an antipode and a multiple of the first, one at cos θ = 1 − 1e-7 of
    it and one as near to its antipode (images: one that shares a row of pixels with it), the zero vector, one 1e-6 and
    two 1e6 times as large, the latter nearly parallel. float32, so that both precisions see the same numbers."""
    rng = np.random.default_rng(seed)

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.sqrt(np.sum(x * x))

    a, b, c, away = (unit(rng.standard_normal(shape)) for _ in range(4))
    away = unit(away - np.sum(away * a) * a)
    near = np.sqrt(2e-7)
    scale = np.sqrt(np.prod(shape))
    last = -(a - near * away)
    if len(shape) > 1:
        last = b.copy()
        last[0] = a[0]
    unit_rows = [scale * x for x in (a, b, a, -a, 2.5 * a, a + near * away, last, 0 * a)]
    far = [1e6 * scale * x for x in (c, c + 1e-4 * away)]
    return np.stack([*unit_rows, 1e-6 * scale * b, *far]).astype(np.float32)
