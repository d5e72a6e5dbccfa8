"""Elementwise nonlinearities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ntk.stax.layer import Layer

#: Functions that `ElementwiseNumerical` knows by name, so that an architecture with one can be written down.
FUNCTIONS = ("elu", "mish", "selu", "sigmoid", "softplus", "softsign", "swish", "tanh")


class Nonlinearity(Layer, named=False):
    """A function applied to every entry."""


class Relu(Nonlinearity):
    """max(0, x). `do_stabilize` is accepted for old code; the kernel is stable without it."""

    do_stabilize: bool = False


class LeakyRelu(Nonlinearity):
    """alpha · min(x, 0) + max(x, 0)."""

    alpha: float
    do_stabilize: bool = False


class ABRelu(Nonlinearity):
    """a · min(x, 0) + b · max(x, 0)."""

    a: float
    b: float
    do_stabilize: bool = False


class Abs(Nonlinearity):
    """|x|."""

    do_stabilize: bool = False


class Sign(Nonlinearity):
    """sgn x; its tangent kernel is zero."""


class Erf(Nonlinearity):
    """a · erf(b x) + c."""

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0


class Sigmoid_like(Nonlinearity):
    """½ erf(x / 2.4020563531719796) + ½, the function of this form nearest to the logistic one on [−5, 5]."""


class Gelu(Nonlinearity):
    """x Φ(x), Φ the normal distribution function. `approximate` (tanh form) concerns the finite network alone."""

    approximate: bool = False


class Sin(Nonlinearity):
    """a · sin(b x + c)."""

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0


class Cos(Nonlinearity):
    """a · cos(b x + c)."""

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0


class Rbf(Nonlinearity):
    """√2 sin(√(2 gamma) x + π/4), whose dual is the squared-exponential kernel exp(−gamma |x − x'|²/d)."""

    gamma: float = 1.0

    def check(self) -> None:
        if self.gamma < 0:
            raise self.wrong("gamma", "at least 0")


class Exp(Nonlinearity):
    """a · exp(b x)."""

    a: float = 1.0
    b: float = 1.0


class Gaussian(Nonlinearity):
    """a · exp(b x²). For b > 0 the kernel exists while 2 b times the variance is below ½ only."""

    a: float = 1.0
    b: float = -1.0


class ExpNormalized(Nonlinearity):
    """The Gaussian-normalised kernel: |u| |v| exp(gamma (cos θ + shift)) (Shankar et al. 2020, page 6).

    The finite network applies the function with this dual to its pre-activations divided by their root mean square
    over channels. `do_clip` is accepted for old code; the cosine is always within [−1, 1].
    """

    gamma: float = 1.0
    shift: float = -1.0
    do_clip: bool = False

    def check(self) -> None:
        if self.gamma < 0:
            raise self.wrong("gamma", "at least 0")


class Gabor(Nonlinearity):
    """exp(−x²) sin x."""


class Hermite(Nonlinearity):
    """The Hermite polynomial of a degree, of norm 1 under the standard normal distribution."""

    degree: int

    def check(self) -> None:
        if self.degree < 0:
            raise self.wrong("degree", "at least 0")


class Monomial(Nonlinearity):
    """x ** degree."""

    degree: int

    def check(self) -> None:
        if self.degree < 0:
            raise self.wrong("degree", "at least 0")


class RectifiedMonomial(Nonlinearity):
    """x ** degree for x ≥ 0 and 0 elsewhere."""

    degree: int

    def check(self) -> None:
        if self.degree < 0:
            raise self.wrong("degree", "at least 0")


class Polynomial(Nonlinearity):
    """coef[0] + coef[1] x + … + coef[n] x ** n."""

    coef: tuple[float, ...]

    def check(self) -> None:
        if not self.coef:
            raise self.wrong("coef", "at least one number")


class Elementwise(Nonlinearity):
    """A function fn(x) with its dual nngp_fn(cov12, var1, var2) = E fn(u) fn(v), both of scalars and written in JAX.

    The dual of the derivative is d_nngp_fn or else ∂ nngp_fn / ∂ cov12, by automatic differentiation. Without fn there
    are no finite networks, without nngp_fn there is no infinite-width kernel.
    """

    fn: Callable[..., Any] | None = None
    nngp_fn: Callable[..., Any] | None = None
    d_nngp_fn: Callable[..., Any] | None = None

    def check(self) -> None:
        if self.fn is None and self.nngp_fn is None:
            raise self.wrong("fn", "a function, or nngp_fn its dual")


class ElementwiseNumerical(Nonlinearity):
    """A function with its dual by Gauss–Hermite quadrature of order `deg` in each of two dimensions.

    fn: a function of JAX arrays, or the name of one (see FUNCTIONS). df: its derivative, by automatic differentiation
    when None. The cost is deg² evaluations a pair; for smooth functions of pre-activations of variance about 1,
    deg = 25 gives four digits.
    """

    fn: str | Callable[..., Any]
    deg: int
    df: Callable[..., Any] | None = None

    def check(self) -> None:
        if isinstance(self.fn, str) and self.fn not in FUNCTIONS:
            raise self.wrong("fn", "a function or one of " + ", ".join(FUNCTIONS))
        if self.deg < 1:
            raise self.wrong("deg", "at least 1")
