"""The vocabulary of architectures: layers as frozen values, with the names and arguments of `neural_tangents.stax`.

    init_fn, apply_fn, kernel_fn = stax.serial(stax.Dense(512, W_std=1.5, b_std=0.05), stax.Relu(), stax.Dense(1))
"""

from ntk.errors import ArchitectureError
from ntk.stax.combinators import Parallel, Serial, parallel, repeat, serial
from ntk.stax.elementwise import ABRelu, Abs, Erf, LeakyRelu, Relu
from ntk.stax.layer import Layer
from ntk.stax.linear import Dense
from ntk.stax.spec import fingerprint, from_spec, to_spec

__all__ = [
    "ABRelu",
    "Abs",
    "ArchitectureError",
    "Dense",
    "Erf",
    "Layer",
    "LeakyRelu",
    "Parallel",
    "Relu",
    "Serial",
    "fingerprint",
    "from_spec",
    "parallel",
    "repeat",
    "serial",
    "to_spec",
]
