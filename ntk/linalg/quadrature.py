"""Spectral density and traces of functions of a symmetric operator by stochastic Lanczos quadrature.

For a probe z of independent signs, E zᵀ f(K) z = tr f(K). Lanczos steps from z/√n give a tridiagonal T whose
eigenvalues θ_k and squared first components τ_k² of its eigenvectors are the Gauss quadrature of the probe's spectral
measure, exact for polynomials of degree 2m − 1 (Golub & Meurant 2010, ch. 6; Ubaru, Chen & Saad 2017):

    tr f(K) ≈ n/p Σ_probes Σ_k τ_k² f(θ_k).

All probes take a step with one product, each has its own recurrence, and every new vector is made orthogonal to all
earlier ones of its probe. Error bars are the scatter of the probes and what the quadrature of each may be off, which is
bounded: of counts by the weights at hand, of functions like the logarithm by a second quadrature, with one node at the
lower end of the spectrum (Gauss–Radau), that errs to the other side (Golub & Meurant 2010, §6). State in, state out:
the caller owns the products and keeps the vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.special import stdtrit

Array = NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean over the probes and half the width of its 95 % interval (Student's t), of any shape."""

    value: Array
    half_width: Array


@dataclass(frozen=True, slots=True)
class Quadrature:
    """Gauss quadratures of the probes: nodes θ ascending and weights τ² (sum 1), each (probes, steps).

    radau: of the Gauss–Radau quadratures with a node at zero, or just below all nodes, the same (probes, steps + 1).
    """

    nodes: Array
    weights: Array
    n: int
    radau: tuple[Array, Array] | None = None

    def concave_trace(self, f: Callable[[Array], Array]) -> Estimate:
        """tr f(K) for positive semi-definite K and an f whose derivatives above zero alternate, the first positive:
        log(θ + s), θ / (θ + s).

        The Gauss quadrature of a probe is then above its zᵀ f(K) z and that of Gauss and Radau below: the middle is
        taken, and half the gap added to the half width.

        Raises:
            ValueError: the Radau quadratures are not known.
        """
        if self.radau is None:
            raise ValueError("the Gauss–Radau quadratures are not known")
        above, below = self._samples(f, self.nodes, self.weights), self._samples(f, *self.radau)
        found = estimate((above + below) / 2)
        return Estimate(found.value, found.half_width + np.abs(above - below).mean(axis=0) / 2)

    def trace(self, f: Callable[[Array], Array]) -> Estimate:
        """tr f(K) for f of an array of nodes; trailing axes that f adds are kept.

        Args:
            f: (probes, steps) → (probes, steps, …).
        """
        return estimate(self._samples(f, self.nodes, self.weights))

    def _samples(self, f: Callable[[Array], Array], nodes: Array, weights: Array) -> Array:
        values = f(nodes)
        return self.n * np.sum(weights.reshape(weights.shape + (1,) * (values.ndim - 2)) * values, axis=1)

    def count_above(self, thresholds: Array) -> Estimate:
        """How many eigenvalues exceed each threshold, (thresholds,).

        A probe's distribution function at a node lies between the sums of the weights before and behind it (Chebyshev,
        Markov & Stieltjes; Golub & Meurant 2010, §2.3): the middle is taken, with straight lines between nodes, and
        the distance to the farther bound is added to the half width.
        """
        p = len(self.nodes)
        counts, off = np.empty((p, len(thresholds))), np.empty((p, len(thresholds)))
        for probe, (nodes, weights) in enumerate(zip(self.nodes, self.weights, strict=True)):
            upto = np.cumsum(weights)
            # The last node not above a threshold.
            before = np.searchsorted(nodes, thresholds, side="right") - 1
            least = np.where(before < 0, 0.0, (upto - weights)[np.maximum(before, 0)])
            most = upto[np.minimum(before + 1, len(nodes) - 1)]
            share = np.interp(thresholds, nodes, upto - weights / 2, right=1.0)
            counts[probe], off[probe] = 1 - share, np.maximum(share - least, most - share)
        found = estimate(self.n * counts)
        return Estimate(found.value, found.half_width + self.n * off.mean(axis=0))

    def density(self, points: Array, degree: int, interval: tuple[float, float]) -> Estimate:
        """Eigenvalues per unit of λ by the kernel polynomial method with Jackson's kernel (Weiße et al. 2006, eq. 71).

        Its Chebyshev moments zᵀ T_j(K̃) z, j ≤ degree < 2 · steps, are exact from the same quadrature, so that it checks
        the quadrature's picture without another pass. Resolution: about π · (length of the interval) / degree.

        Args:
            points: λ, (k,), inside the interval.
            interval: holds every node.
        """
        low, high = interval
        half = (high - low) / 2
        scaled = np.clip((self.nodes - low) / half - 1, -1, 1)
        moments = np.sum(
            self.weights[..., None] * np.cos(np.arange(degree + 1) * np.arccos(scaled)[..., None]), axis=1
        )
        x = (points - low) / half - 1
        damped = moments * jackson(degree)
        damped[:, 1:] *= 2
        values = chebyshev.chebval(x, damped.T)
        return estimate(self.n * np.atleast_2d(values) / (np.pi * half * np.sqrt(1 - x**2)))


def jackson(degree: int) -> Array:
    """Jackson's damping factors g_0 … g_degree (Weiße et al. 2006, eq. 71)."""
    j, m = np.arange(degree + 1), degree + 2
    damped = (m - j) * np.cos(np.pi * j / m) + np.sin(np.pi * j / m) / np.tan(np.pi / m)
    return np.asarray(damped / m, np.float64)


def estimate(samples: Array) -> Estimate:
    """Mean over the first axis, of independent samples, at least two."""
    p = len(samples)
    quantile = float(stdtrit(p - 1, (1 + CONFIDENCE) / 2))
    return Estimate(samples.mean(axis=0), quantile * samples.std(axis=0, ddof=1) / math.sqrt(p))


@dataclass(frozen=True, slots=True)
class LanczosCoefficients:
    """Diagonals α (steps, probes) and off-diagonals β (steps, probes), β_k coupling steps k and k + 1."""

    alpha: Array
    beta: Array

    def extended(self, alpha: Array, beta: Array) -> LanczosCoefficients:
        """With one more step."""
        return LanczosCoefficients(np.vstack([self.alpha, alpha]), np.vstack([self.beta, beta]))


def probes(n: int, count: int, seed: int = 0) -> Array:
    """Random signs over √n, (n, count): unit vectors, the first vectors of all recurrences."""
    signs = np.random.default_rng(seed).integers(0, 2, (n, count)) * 2.0 - 1.0
    return np.asarray(signs / math.sqrt(n), np.float64)


def step(
    basis: Callable[[], Iterable[Array]], vectors: Array, products: Array, norm: float
) -> tuple[Array, Array, Array]:
    """One Lanczos step of every probe.

    Args:
        basis: reads the earlier vectors, (n, probes) each; called twice.
        vectors: v_k of every probe, (n, probes).
        products: K times them.
        norm: ‖K‖ or a bound, to tell when a probe's Krylov space is exhausted.

    Returns:
        α_k, β_k (probes,), and the next vectors; of an exhausted probe β is zero, and its vector: what T gains from
        then on has no weight.
    """
    alpha = np.einsum("np,np->p", vectors, products)
    rest = products - vectors * alpha
    for _ in range(2):
        for v in (*basis(), vectors):
            rest -= v * np.einsum("np,np->p", v, rest)
    beta = np.linalg.norm(rest, axis=0)
    beta[beta <= len(vectors) * EPS * norm] = 0.0
    following = np.divide(rest, beta, out=np.zeros_like(rest), where=beta > 0)
    return alpha, beta, following


def quadrature(coefficients: LanczosCoefficients, n: int) -> Quadrature:
    """The Gauss quadrature of every probe (Golub & Welsch 1969), and that of Gauss and Radau (Golub 1973)."""
    rules: list[tuple[Array, Array, Array, Array]] = []
    for alpha, beta in zip(coefficients.alpha.T, coefficients.beta.T, strict=True):
        nodes, vectors = _eigenpairs(alpha, beta[:-1])
        low = min(0.0, float(nodes[0])) - n * EPS * float(np.abs(nodes).max())
        # The last diagonal entry of a longer T that has `low` for an eigenvalue.
        last = low + beta[-1] ** 2 * float(np.sum(vectors[-1] ** 2 / (nodes - low))) if beta[-1] else low
        fixed, others = _eigenpairs(np.append(alpha, last), beta)
        rules.append((nodes, np.square(vectors[0]), fixed, np.square(others[0])))
    nodes, weights, fixed, shares = map(np.array, zip(*rules, strict=True))
    return Quadrature(nodes, weights, n, (fixed, shares))


def _eigenpairs(diagonal: Array, beside: Array) -> tuple[Array, Array]:
    if len(diagonal) == 1:
        return diagonal, np.ones((1, 1))
    values, vectors = eigh_tridiagonal(diagonal, beside)
    return values, vectors
