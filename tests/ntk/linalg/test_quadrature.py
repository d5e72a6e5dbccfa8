"""Stochastic Lanczos quadrature: exact where it must be, its error bars honest, and the kernel polynomials agree."""

from __future__ import annotations

import numpy as np
import pytest

from ntk.linalg import quadrature as slq
from tests.ntk.linalg.test_band import kernel, low_rank, with_spectrum


def run(a: np.ndarray, probes: int, steps: int, seed: int = 0) -> slq.Quadrature:
    vectors, basis = slq.probes(len(a), probes, seed), []
    coefficients = slq.LanczosCoefficients(np.empty((0, probes)), np.empty((0, probes)))
    norm = float(np.linalg.norm(a))
    for _ in range(steps):
        alpha, beta, following = slq.step(lambda: basis, vectors, a @ vectors, norm)
        coefficients = coefficients.extended(alpha, beta)
        basis.append(vectors)
        vectors = following
    return slq.quadrature(coefficients, len(a))


def test_polynomials_up_to_twice_the_steps_are_exact() -> None:
    """Σ τ² θ^j = zᵀ K^j z / zᵀz for j ≤ 2 m − 1, probe by probe."""
    a, z = kernel(40), slq.probes(40, 3)
    found = run(a, 3, 4)
    power = z
    for j in range(8):
        expected = np.einsum("np,np->p", z, power)
        assert np.allclose(np.sum(found.weights * found.nodes**j, axis=1), expected, rtol=1e-10)
        power = a @ power


@pytest.mark.parametrize("matrix", [low_rank, lambda n: with_spectrum(np.repeat([3.0, 1.0, 0.0], n // 3))])
def test_exhausted_probes_stay_exact(matrix) -> None:
    """More steps than distinct eigenvalues: the extra nodes have no weight."""
    a, z = matrix(60), slq.probes(60, 4)
    found = run(a, 4, 20)
    values, vectors = np.linalg.eigh(a)
    measure = np.square(vectors.T @ z)
    for s in (0.1, 2.0):
        expected = np.sum(measure * (values / (values + s))[:, None], axis=0)
        assert np.allclose(
            np.sum(found.weights * found.nodes / (found.nodes + s), axis=1), expected, atol=1e-10
        )


def test_kernel_polynomials_agree_with_the_smoothed_eigenvalues() -> None:
    values = np.linspace(0.5, 3, 400) ** 2 / 3
    a = with_spectrum(values)
    found, degree, interval = run(a, 24, 40), 60, (0.0, 3.1)
    points = np.linspace(0.3, 2.8, 15)
    # The same kernel applied to every eigenvalue.
    exact = slq.Quadrature(np.tile(values, (2, 1)), np.full((2, 400), 1 / 400), 400)
    expected = exact.density(points, degree, interval).value
    estimate = found.density(points, degree, interval)
    assert np.all(np.abs(estimate.value - expected) <= 2 * estimate.half_width + 1e-9)
    total = np.trapezoid(
        found.density(np.linspace(0.001, 3.099, 4000), degree, interval).value, dx=3.098 / 3999
    )
    assert total == pytest.approx(400, rel=0.02)


def coverage(a: np.ndarray, seeds: int, steps: int = 60) -> dict[str, float]:
    """How often the 95 % bars hold the truth, over seeds and several thresholds."""
    values = np.linalg.eigvalsh(a)
    shifts = values[-1] * np.array([1e-1, 1e-2, 1e-3])
    thresholds = np.sqrt(values[[240, 225, 200, 150]] * values[[241, 226, 201, 151]])
    traces = np.sum(values / (values + shifts[:, None]), axis=1)
    logs = np.sum(np.log(values + shifts[:, None]), axis=1)
    counts = np.sum(values > thresholds[:, None], axis=1)
    inside = {"dimension": [], "log det": [], "count": []}
    for seed in range(seeds):
        found = run(a, 16, steps, seed)
        dimension = found.concave_trace(lambda t: t[..., None] / (t[..., None] + shifts))
        log = found.concave_trace(lambda t: np.log(np.maximum(t, 0)[..., None] + shifts))
        count = found.count_above(thresholds)
        for name, estimate, truth in (
            ("dimension", dimension, traces), ("log det", log, logs), ("count", count, counts),
        ):  # fmt: skip
            inside[name].extend(np.abs(estimate.value - truth) <= estimate.half_width)
    return {name: float(np.mean(hits)) for name, hits in inside.items()}


def test_error_bars_hold() -> None:
    assert all(share >= 0.8 for share in coverage(kernel(250), 8).values())


@pytest.mark.parametrize("law", ["geometric", "power"])
@pytest.mark.parametrize("steps", [15, 60])
def test_error_bars_hold_where_the_quadrature_has_not_converged(law: str, steps: int) -> None:
    values = np.geomspace(1e-10, 1, 250) if law == "geometric" else np.arange(250.0, 0, -1) ** -4
    shares = coverage(with_spectrum(values), 8, steps)
    assert all(share >= 0.8 for share in shares.values()), shares


def test_gauss_and_radau_enclose_every_probe() -> None:
    values = np.geomspace(1e-8, 1, 60)
    a, z = with_spectrum(values), slq.probes(60, 5)
    modes = np.linalg.eigh(a)[1]
    for steps in (3, 8, 20):
        found = run(a, 5, steps)
        assert found.radau is not None
        for s in (1e-6, 1e-3, 1.0):
            for f in (lambda t, s=s: np.log(t + s), lambda t, s=s: t / (t + s)):
                exact = np.square(modes.T @ z).T @ f(values)
                above = np.sum(found.weights * f(found.nodes), axis=1)
                below = np.sum(found.radau[1] * f(np.maximum(found.radau[0], 0)), axis=1)
                assert np.all(below <= exact + 1e-12) and np.all(exact <= above + 1e-12)


@pytest.mark.slow
def test_error_bars_are_calibrated_over_fifty_seeds() -> None:
    shares = coverage(kernel(250), 50)
    assert 0.90 <= shares["dimension"] <= 0.99, shares
    assert 0.90 <= shares["log det"] <= 0.99, shares
    assert shares["count"] >= 0.90, shares
