"""The vocabulary of architectures: layers as frozen values, with the names and arguments of `neural_tangents.stax`.

init_fn, apply_fn, kernel_fn = stax.serial(stax.Dense(512, W_std=1.5, b_std=0.05), stax.Relu(), stax.Dense(1))
"""

from ntk.errors import ArchitectureError
from ntk.stax import branch_signal, position_signal, spatial_signal  # noqa: F401 (register the type check)
from ntk.stax.attention import GlobalSelfAttention
from ntk.stax.branching import FanInConcat, FanInProd, FanInSum, FanOut, Identity
from ntk.stax.combinators import Parallel, Serial, parallel, repeat, serial
from ntk.stax.elementwise import (
    ABRelu,
    Abs,
    Cos,
    Elementwise,
    ElementwiseNumerical,
    Erf,
    Exp,
    ExpNormalized,
    Gabor,
    Gaussian,
    Gelu,
    Hermite,
    LeakyRelu,
    Monomial,
    Nonlinearity,
    Polynomial,
    Rbf,
    RectifiedMonomial,
    Relu,
    Sigmoid_like,
    Sign,
    Sin,
)
from ntk.stax.graph import Aggregate
from ntk.stax.layer import Layer
from ntk.stax.linear import Dense
from ntk.stax.normalization import BatchNorm, Dropout, LayerNorm
from ntk.stax.rearranging import DotGeneral, ImageResize, Index, Slice
from ntk.stax.spatial import (
    AvgPool,
    Conv,
    ConvLocal,
    ConvTranspose,
    Flatten,
    GlobalAvgPool,
    GlobalSumPool,
    MaxPool,
    SumPool,
)
from ntk.stax.spec import fingerprint, from_spec, to_spec

__all__ = [
    "ABRelu",
    "Abs",
    "Aggregate",
    "ArchitectureError",
    "AvgPool",
    "BatchNorm",
    "Conv",
    "ConvLocal",
    "ConvTranspose",
    "Cos",
    "Dense",
    "DotGeneral",
    "Dropout",
    "Elementwise",
    "ElementwiseNumerical",
    "Erf",
    "Exp",
    "ExpNormalized",
    "FanInConcat",
    "FanInProd",
    "FanInSum",
    "FanOut",
    "Flatten",
    "Gabor",
    "Gaussian",
    "Gelu",
    "GlobalAvgPool",
    "GlobalSelfAttention",
    "GlobalSumPool",
    "Hermite",
    "Identity",
    "ImageResize",
    "Index",
    "Layer",
    "LayerNorm",
    "LeakyRelu",
    "MaxPool",
    "Monomial",
    "Nonlinearity",
    "Parallel",
    "Polynomial",
    "Rbf",
    "RectifiedMonomial",
    "Relu",
    "Serial",
    "Sigmoid_like",
    "Sign",
    "Sin",
    "Slice",
    "SumPool",
    "fingerprint",
    "from_spec",
    "parallel",
    "repeat",
    "serial",
    "to_spec",
]
