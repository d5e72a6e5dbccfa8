"""A network for every layer, whose kernel is held against sampled networks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from ntk import stax
from ntk.stax import Dense, FanOut, Identity, Layer, Relu, parallel, serial

SHAPES = {"vector": (6,), "image": (5, 4, 3), "sequence": (5, 3), "graph": (4, 3)}
WIDTH = 128
CHANNELS = 48


@dataclass
class Case:
    """tolerance: of the sampled kernels, relative to the largest entry. writable: whether the network has a
    specification. extra: further arguments of apply_fn. whole: whether the kernel is that of whole batches,
    by kernel_fn. exact: the kernels by name as a function of (x1, x2), where the infinite width is refused."""

    network: Layer
    inputs: str = "vector"
    tolerance: float = 0.2
    samples: int = 64
    writable: bool = True
    extra: Callable[[Any], dict] | None = None
    whole: bool = False
    exact: Callable[[Any, Any], dict] | None = None


def between(*layers: Layer, width: int = WIDTH, **kwargs: Any) -> Case:
    """`layers` between dense ones, the first of unit-variance pre-activations."""
    return Case(
        serial(Dense(width, W_std=0.8, b_std=0.3), *layers, Dense(16, W_std=1.1, b_std=0.1)), **kwargs
    )


def image(*layers: Layer, **kwargs: Any) -> Case:
    """`layers` between a convolution and a dense read-out."""
    return Case(
        serial(stax.Conv(CHANNELS, (2, 2), W_std=1.4, b_std=0.3), *layers, Dense(16)),
        inputs="image",
        **kwargs,
    )


def maxima_of_two(x1: Any, x2: Any) -> dict:
    """The kernels of Conv(filter 1) → MaxPool(2) → Flatten → Dense on sequences: max(a, b) = s + |d| with s, d half the
    sum and difference, of which s and |d| are uncorrelated."""

    def moments(x: Any, y: Any) -> tuple[Any, Any]:
        k = 1.4**2 * np.einsum("ipc,jqc->ijpq", x, y) / x.shape[-1] + 0.3**2
        k = k[:, :, :4, :4].reshape(len(x), len(y), 2, 2, 2, 2)  # (i, j, window, a or b, window, a or b)
        signs = np.array([1.0, -1.0])
        s = np.einsum("ijwawb->ijw", k) / 4
        return s, np.einsum("ijwawb,a,b->ijw", k, signs, signs) / 4

    s, d = moments(x1, x2)
    own1, own2 = (np.einsum("iiw->iw", moments(x, x)[1]) for x in (x1, x2))
    scale = np.sqrt(own1[:, None] * own2)
    cos = np.clip(d / scale, -1, 1)
    absolute = 2 / np.pi * scale * (np.sqrt(1 - cos**2) + cos * np.arcsin(cos))
    nngp = np.mean(s + absolute, axis=-1)
    return {"nngp": nngp, "ntk": nngp + np.mean(s + 2 / np.pi * np.arcsin(cos) * d, axis=-1)}


def sequence(*layers: Layer) -> Case:
    """`layers` after positions with a nonlinearity."""
    return Case(
        serial(Dense(WIDTH, W_std=0.8, b_std=0.3), Relu(), *layers, stax.Flatten(), Dense(16)),
        inputs="sequence",
    )


def attention(*layers: Layer) -> Case:
    """`layers` after positions of many channels, of which attention needs more than the inputs have."""
    return Case(serial(Dense(64, W_std=0.8, b_std=0.3), *layers, Dense(16)), inputs="graph", samples=48)


def graph(layer: Layer, patterns: Callable[[Any], Any]) -> Case:
    """`layer` between two dense ones, on graphs of four vertices."""
    return Case(
        serial(Dense(WIDTH, W_std=0.8, b_std=0.3), layer, Relu(), stax.GlobalAvgPool(), Dense(16)),
        inputs="graph",
        extra=lambda rng: {"pattern": (patterns(rng), patterns(rng))},
    )


CASES: dict[str, list[Case]] = {
    "Dense": [
        between(Relu()),
        Case(
            serial(
                Dense(128, 1.2, 0.3, parameterization="standard", s=(1, 2)),
                Relu(),
                Dense(128, 1.2, 0.1, parameterization="standard", s=(2, 2)),
                stax.Erf(),
                Dense(16, 1.1, 0.2, parameterization="standard", s=(2, 1)),
            )
        ),
    ],
    "Relu": [between(Relu())],
    "LeakyRelu": [between(stax.LeakyRelu(0.2))],
    "ABRelu": [between(stax.ABRelu(-0.5, 1.2))],
    "Abs": [between(stax.Abs())],
    "Sign": [between(stax.Sign())],
    "Erf": [between(stax.Erf(0.7, 1.3, 0.2))],
    "Sigmoid_like": [between(stax.Sigmoid_like())],
    "Gelu": [between(stax.Gelu())],
    "Sin": [between(stax.Sin(1.1, 1.2, 0.3))],
    "Cos": [between(stax.Cos(0.9, 1.3, 0.2))],
    "Rbf": [between(stax.Rbf(0.7))],
    "Exp": [between(stax.Exp(0.5, 0.5))],
    "Gaussian": [between(stax.Gaussian(1.3, -0.6))],
    "ExpNormalized": [between(stax.ExpNormalized(0.8, -0.9))],
    "Gabor": [between(stax.Gabor())],
    "Hermite": [between(stax.Hermite(2)), between(stax.Hermite(0))],
    "Monomial": [between(stax.Monomial(2)), between(stax.Monomial(0))],
    "RectifiedMonomial": [
        between(stax.RectifiedMonomial(0)),
        between(stax.RectifiedMonomial(1)),
        between(stax.RectifiedMonomial(2), tolerance=0.3),
    ],
    "Polynomial": [between(stax.Polynomial((0.1, 1.0, 0.3, -0.05)))],
    "Elementwise": [
        between(
            stax.Elementwise(jnp.exp, lambda k, v1, v2: jnp.exp((v1 + v2) / 2 + k)),
            writable=False,
            tolerance=0.35,
        )
    ],
    "ElementwiseNumerical": [
        between(stax.ElementwiseNumerical("tanh", 15)),
        between(stax.ElementwiseNumerical(jnp.tanh, 15), writable=False),
    ],
    "Identity": [between(Identity(), Relu())],
    "FanOut": [
        between(
            FanOut(2), parallel(serial(Relu(), Dense(WIDTH, 1.1, 0.2)), Identity()), stax.FanInSum(), Relu()
        )
    ],
    "FanInSum": [between(Relu(), FanOut(2), parallel(Identity(), Dense(WIDTH, 1.1, 0.2)), stax.FanInSum())],
    "FanInProd": [
        between(
            Relu(),
            FanOut(2),
            parallel(Dense(WIDTH, 1.0, 0.3), Dense(WIDTH, 1.1, 0.2)),
            stax.FanInProd(),
            tolerance=0.3,
        )
    ],
    "FanInConcat": [
        between(
            Relu(),
            FanOut(2),
            parallel(serial(Dense(WIDTH, 1.0, 0.3), Relu()), Dense(WIDTH // 2, 1.5, 0.2)),
            stax.FanInConcat(),
        )
    ],
    "LayerNorm": [between(stax.LayerNorm(), Relu())],
    "BatchNorm": [between(Relu(), stax.BatchNorm(), whole=True)],
    "Dropout": [between(Relu(), stax.Dropout(0.7, "test"))],
    "Conv": [
        image(stax.Conv(CHANNELS, (3, 2), padding="SAME", b_std=0.2), stax.Relu(), stax.Flatten()),
        image(stax.Conv(CHANNELS, (3, 3), (2, 1), "CIRCULAR"), stax.Relu(), stax.GlobalAvgPool()),
        Case(
            serial(
                stax.Conv(CHANNELS, (3,), None, "SAME", 1.2, 0.3, parameterization="standard"),
                Relu(),
                stax.Flatten(),
                Dense(16, 1.0, 0.1, parameterization="standard"),
            ),
            inputs="sequence",
        ),
    ],
    "ConvLocal": [
        image(stax.ConvLocal(CHANNELS, (3, 2), padding="SAME", b_std=0.2), Relu(), stax.Flatten()),
        image(stax.ConvLocal(CHANNELS, (2, 2), (1, 2), b_std=0.4), Relu(), stax.GlobalAvgPool()),
    ],
    "ConvTranspose": [
        image(stax.ConvTranspose(CHANNELS, (3, 2), (2, 1), "SAME"), Relu(), stax.GlobalAvgPool()),
        image(stax.ConvTranspose(CHANNELS, (2, 2), (1, 3)), Relu(), stax.Flatten()),
    ],
    "AvgPool": [
        image(Relu(), stax.AvgPool((2, 2), (1, 2)), stax.Flatten()),
        image(
            Relu(),
            stax.AvgPool((3, 2), (2, 1), "SAME", normalize_edges=True),
            stax.Conv(CHANNELS, (2, 2)),
            Relu(),
            stax.Flatten(),
        ),
        image(Relu(), stax.AvgPool((3, 2), padding="CIRCULAR"), stax.Flatten()),
    ],
    "SumPool": [image(Relu(), stax.SumPool((2, 3), (2, 1), "SAME"), stax.Flatten())],
    "MaxPool": [
        Case(
            serial(
                stax.Conv(CHANNELS, (1,), W_std=1.4, b_std=0.3),
                stax.MaxPool((2,), (2,)),
                stax.Flatten(),
                Dense(16),
            ),
            inputs="sequence",
            exact=maxima_of_two,
        )
    ],
    "GlobalAvgPool": [image(Relu(), stax.GlobalAvgPool())],
    "GlobalSumPool": [image(Relu(), stax.GlobalSumPool())],
    "Flatten": [image(Relu(), stax.Flatten()), between(stax.Flatten(), Relu())],
    "GlobalSelfAttention": [
        attention(
            stax.GlobalSelfAttention(64, 64, 16, 16, True, 1.3, 1.1, 0.9, 1.2, 0.2), Relu(), stax.Flatten()
        ),
        attention(
            stax.GlobalSelfAttention(
                64, 64, 64, 32, False, 0.9, b_std=0.2, attention_mechanism="IDENTITY", pos_emb_type="SUM"
            ),
            stax.GlobalAvgPool(),
        ),
        attention(
            stax.GlobalSelfAttention(
                64,
                64,
                16,
                16,
                attention_mechanism="ABS",
                pos_emb_type="CONCAT",
                pos_emb_decay_fn="exp",
                W_pos_emb_std=0.7,
                val_pos_emb=True,
            ),
            stax.Flatten(),
        ),
    ],
    "Aggregate": [
        graph(stax.Aggregate(), lambda rng: rng.uniform(size=(2, 4, 4)).astype(np.float32)),
        graph(
            stax.Aggregate(1, implementation="SPARSE"),
            lambda rng: rng.integers(-1, 4, size=(2, 6, 2)),
        ),
    ],
    "ImageResize": [sequence(stax.ImageResize((-1, 3, -1), "linear"))],
    "Index": [sequence(stax.Index(stax.Slice[:, 1::2]))],
    "DotGeneral": [
        sequence(
            stax.DotGeneral(
                lhs=[[1.0, -1.0, 0.5, 0.0, 2.0], [0.0, 1.0, 0.3, -1.0, 0.5]],
                dimension_numbers=(((1,), (1,)), ((), ())),
            ),
        ),
    ],
}
