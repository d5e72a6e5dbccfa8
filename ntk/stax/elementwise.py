"""Elementwise nonlinearities with a closed-form dual of the arc-cosine and arc-sine families."""

from __future__ import annotations

from ntk.stax.layer import Layer


class Relu(Layer):
    """max(0, x). `do_stabilize` is accepted for old code; the kernel is stable without it."""

    do_stabilize: bool = False


class LeakyRelu(Layer):
    """alpha · min(x, 0) + max(x, 0)."""

    alpha: float
    do_stabilize: bool = False


class ABRelu(Layer):
    """a · min(x, 0) + b · max(x, 0)."""

    a: float
    b: float
    do_stabilize: bool = False


class Abs(Layer):
    """|x|."""

    do_stabilize: bool = False


class Erf(Layer):
    """a · erf(b x) + c."""

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0
