"""Order, chaos and the edge between: what depth does to signals, from the dual activations alone.

A layer z = W φ(z) + b with W ~ N(0, σ_w²/n), b ~ N(0, σ_b²) takes two inputs of pre-activation variance q and
correlation c to

    V(q) = σ_w² E φ(u)² + σ_b²,     C(c) = (σ_w² E φ(u) φ(v) + σ_b²) / q*,     u, v ~ N(0, q*), correlation c.

Variances tend to a fixed point q* of V. There c = 1 is a fixed point of C with slope χ₁ = σ_w² E φ'(u)²: stable for
χ₁ < 1 (order: all inputs become alike, gradients vanish), unstable for χ₁ > 1 (chaos: near inputs part, gradients
explode, and correlations tend to some c* < 1). Depth erases q and c as e^{−l/ξ}, and a network can be trained to a
few ξ of the correlation (Poole et al. 2016, eq. 3–5; Schoenholz et al. 2017, eq. 5–9).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ntk.analytic.rules import propagate
from ntk.analytic.state import Covariance, Residual
from ntk.errors import ArchitectureError
from ntk.stax.elementwise import Nonlinearity

VARIANCES = (1e-12, 1e12)
"""Fixed points of the variance are sought between these; one below counts as zero, one beyond as infinity."""
EDGE = 1e-9
"""|χ₁ − 1| up to this is critical."""

_POINTS = 2001
_REFINEMENTS = 6
_LEAST_GAP = 1e-8


@dataclass(frozen=True, slots=True)
class Phase:
    """Where a nonlinearity with W_std and b_std stands.

    Attributes:
        name: ordered (χ₁ < 1), critical, or chaotic (χ₁ > 1).
        variance: q*, the pre-activation variance that depth leads to; 0 and infinity are possible.
        chi: χ₁, the mean squared singular value of a layer's Jacobian at q* (for infinity at the largest considered).
        correlation: c*, the correlation that depth leads two different inputs to; NaN, as its depth, where variances
            grow for ever.
        variance_depth, correlation_depth: ξ_q and ξ_c in layers: deviations from q* and c* shrink by e per ξ; infinity
            at criticality, 0 where one layer suffices.
    """

    name: Literal["ordered", "critical", "chaotic"]
    variance: float
    chi: float
    correlation: float
    variance_depth: float
    correlation_depth: float


def phase(nonlinearity: Nonlinearity, W_std: float, b_std: float = 0.0, *, variance: float = 1.0) -> Phase:
    """The phase of networks of this nonlinearity.

    Args:
        variance: of the first pre-activations. It matters where every variance is a fixed point (rectifiers at
            criticality), and chooses among several: the first stable one that V reaches from there.

    Raises:
        ValueError: standard deviations that are negative or not finite, both zero, or a variance that is not positive.
        ArchitectureError: a layer that is no elementwise nonlinearity, or one without a derivative.
    """
    w2, b2 = _squares(W_std, b_std)
    if not 0 < variance < np.inf:
        raise ValueError(f"variance must be positive and finite, got {variance}")
    q = _fixed_variance(nonlinearity, w2, b2, variance)
    at = min(max(q, VARIANCES[0]), VARIANCES[1])
    here = moments(nonlinearity, np.array([at]), np.zeros(1))
    chi, stretch = w2 * float(here.slope[0]), w2 * float(here.growth[0])
    name = "critical" if abs(chi - 1) <= EDGE else "ordered" if chi < 1 else "chaotic"
    if math.isinf(q):
        return Phase(name, q, chi, math.nan, _depth(stretch), math.nan)
    gap = 0.0
    if name == "chaotic":
        gap = _fixed_gap(nonlinearity, w2, at)
        chi_there = w2 * float(moments(nonlinearity, np.array([at]), np.array([gap])).slope[0])
    else:
        chi_there = chi
    return Phase(name, q, chi, 1.0 - gap, _depth(stretch), _depth(chi_there))


def critical_W_std(nonlinearity: Nonlinearity, b_std: float = 0.0) -> float:
    """The W_std at which χ₁ = 1 for a given b_std: the edge of chaos.

    Along the edge σ_w² = 1 / E φ'(u)² and σ_b² = q − E φ(u)² / E φ'(u)², u ~ N(0, q): the first q at which that is
    b_std² is found. For rectifiers σ_b² = 0 at every q: with a bias they have no critical point.

    Raises:
        ValueError: b_std is negative or not finite, or no finite variance is critical for it.
        ArchitectureError: see `phase`.
    """
    _, b2 = _squares(1.0, b_std)

    def excess(q: NDArray[np.float64]) -> NDArray[np.float64]:
        found = moments(nonlinearity, q, np.zeros_like(q))
        bias = q - found.square / found.slope
        # Differences at rounding level are none: σ_b² of a rectifier is zero, not 1e-16 q.
        return np.where(np.abs(bias) <= 1e-13 * q, 0.0, bias) - b2

    lowest = float(excess(np.array(VARIANCES[:1]))[0])
    q: float | None
    if b2 == 0 and (lowest >= 0 or abs(lowest) <= 1e-6 * VARIANCES[0]):
        # The edge is where the signal vanishes, if the derivative does not vanish with it.
        near, far = moments(nonlinearity, VARIANCES[0] * np.array([1.0, 100.0]), np.zeros(2)).slope
        q = VARIANCES[0] if abs(near - far) <= 1e-3 * near else None
    else:
        q = _crossing(lambda q: -excess(q), *VARIANCES)
    if q is None:
        raise ValueError(
            f"{type(nonlinearity).__name__} has no critical point of finite variance with b_std = {b_std}"
        )
    return 1 / math.sqrt(float(moments(nonlinearity, np.array([q]), np.zeros(1)).slope[0]))


class Moments(NamedTuple):
    """Arrays over pairs (u, v): square E φ(u)², product E φ(u) φ(v), slope E φ'(u) φ'(v), distance
    E (φ(u) − φ(v))², growth d E φ(u)² / dq."""

    square: NDArray[np.float64]
    product: NDArray[np.float64]
    slope: NDArray[np.float64]
    distance: NDArray[np.float64]
    growth: NDArray[np.float64]


def moments(nonlinearity: Nonlinearity, q: NDArray[np.float64], gap: NDArray[np.float64]) -> Moments:
    """Gaussian moments of φ for u, v ~ N(0, q) of correlation 1 − gap, elementwise; float64, shape of q.

    The gap, not the correlation, is the argument, so that nothing is lost where it tends to zero.

    Raises:
        ArchitectureError: see `phase`.
    """
    if not isinstance(nonlinearity, Nonlinearity):
        raise ArchitectureError(
            f"a phase belongs to an elementwise nonlinearity, got {type(nonlinearity).__name__}"
        )
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        found = _compiled(nonlinearity)(jnp.asarray(q, jnp.float64), jnp.asarray(gap, jnp.float64))
    return Moments(*(np.asarray(value) for value in found))


@lru_cache(maxsize=64)
def _compiled(nonlinearity: Nonlinearity) -> Callable[..., Any]:
    def state(q: jax.Array, gap: jax.Array) -> Covariance:
        one = jnp.ones_like(q)
        residual = Residual(one, 2 * q * gap, 2 * q * (2 - gap), 0 * q)
        before = Covariance(
            q * (1 - gap), one, q, q, residual, None, (1,), False, False, False, wants_ntk=True
        )
        after = propagate(nonlinearity, before)
        if after.ntk is None:
            raise ArchitectureError(
                f"{type(nonlinearity).__name__} has no derivative, so that χ₁ is undefined"
            )
        return after

    def run(q: jax.Array, gap: jax.Array) -> tuple[jax.Array, ...]:
        after = state(q, gap)
        _, growth = jax.jvp(lambda q: state(q, gap).cov1, (q,), (jnp.ones_like(q),))
        assert after.ntk is not None and after.residual is not None
        return after.cov1, after.nngp, after.ntk, after.residual.minus, growth

    return jax.jit(run)


def _fixed_variance(nonlinearity: Nonlinearity, w2: float, b2: float, start: float) -> float:
    def growth(q: NDArray[np.float64]) -> NDArray[np.float64]:
        change = w2 * moments(nonlinearity, q, np.zeros_like(q)).square + b2 - q
        return np.where(np.abs(change) <= 1e-13 * q, 0.0, change)

    low, high = VARIANCES
    first = float(growth(np.array([start]))[0])
    if first == 0:
        return start
    if first > 0:
        found = _crossing(growth, start, high)
        return math.inf if found is None else found
    # Downwards from the start the last crossing comes first: in 1/q the order is turned.
    turned = _crossing(lambda p: -growth(1 / p), 1 / start, 1 / low)
    return 0.0 if turned is None else 1 / turned


def _fixed_gap(nonlinearity: Nonlinearity, w2: float, q: float) -> float:
    """1 − c*: the gap at which C stops taking inputs apart."""

    def parting(gap: NDArray[np.float64]) -> NDArray[np.float64]:
        return w2 * moments(nonlinearity, np.full_like(gap, q), gap).distance / (2 * q) - gap

    found = _crossing(parting, _LEAST_GAP, 2.0)
    return 2.0 if found is None else found


def _crossing(
    f: Callable[[NDArray[np.float64]], NDArray[np.float64]], low: float, high: float
) -> float | None:
    """The first x in [low, high] at which f, sampled densely in log x, falls from above zero to zero or below."""
    for _ in range(_REFINEMENTS):
        x = np.geomspace(low, high, _POINTS)
        # Moments of functions that grow fast overflow at large variances.
        with np.errstate(over="ignore", invalid="ignore"):
            signs = f(x) > 0
        falls = np.flatnonzero(signs[:-1] & ~signs[1:])
        if not len(falls):
            return None
        low, high = float(x[falls[0]]), float(x[falls[0] + 1])
        if high - low <= 4 * np.finfo(float).eps * high:
            break
    return math.sqrt(low * high)


def _squares(W_std: float, b_std: float) -> tuple[float, float]:
    for name, value in (("W_std", W_std), ("b_std", b_std)):
        if not 0 <= value < np.inf:
            raise ValueError(f"{name} must be finite and not negative, got {value}")
    if W_std == b_std == 0:
        raise ValueError("W_std and b_std are both zero: there is no signal")
    return W_std**2, b_std**2


def _depth(slope: float) -> float:
    """−1 / log |slope|: infinite at 1, 0 at 0; beyond 1 deviations grow, and no depth describes a return."""
    magnitude = abs(slope)
    if magnitude == 0:
        return 0.0
    return math.inf if magnitude >= 1 - EDGE else -1 / math.log(magnitude)
