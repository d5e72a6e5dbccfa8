"""Phases against what is known in closed form, and against depth itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from ntk import stax
from ntk.errors import ArchitectureError
from ntk.phases import critical_W_std, moments, phase

TANH = stax.ElementwiseNumerical("tanh", deg=41)


@pytest.mark.parametrize("W_std", [0.5, 1.0, 1.3])
@pytest.mark.parametrize("b_std", [0.0, 0.4])
def test_ordered_rectifier(W_std: float, b_std: float) -> None:
    """Relu: χ₁ = V' = σ_w²/2 and q* = σ_b² / (1 − σ_w²/2)."""
    found = phase(stax.Relu(), W_std, b_std)
    assert found.name == "ordered" and found.correlation == 1.0
    assert found.chi == pytest.approx(W_std**2 / 2, rel=1e-14)
    assert found.variance == pytest.approx(b_std**2 / (1 - W_std**2 / 2), rel=1e-12)
    depth = -1 / math.log(W_std**2 / 2)
    assert found.correlation_depth == pytest.approx(depth) and found.variance_depth == pytest.approx(depth)


def test_rectifier_at_and_beyond_the_edge() -> None:
    """He initialisation keeps every variance; beyond it variances explode. A bias leaves no critical point."""
    assert critical_W_std(stax.Relu()) == pytest.approx(math.sqrt(2), rel=1e-12)
    edge = phase(stax.Relu(), math.sqrt(2), variance=3.0)
    assert (edge.name, edge.variance, edge.correlation_depth) == ("critical", 3.0, math.inf)
    beyond = phase(stax.Relu(), 1.6)
    assert (
        beyond.variance == math.inf and beyond.chi == pytest.approx(1.28) and math.isnan(beyond.correlation)
    )
    with pytest.raises(ValueError, match="no critical point"):
        critical_W_std(stax.Relu(), 0.1)
    slope = 0.2
    assert critical_W_std(stax.LeakyRelu(slope)) == pytest.approx(math.sqrt(2 / (1 + slope**2)), rel=1e-12)


def test_known_edges() -> None:
    """erf: φ'(0)² = 4/π. tanh: 1 without bias, σ_w² ≈ 1.76 at σ_b² = 0.05 (Pennington et al. 2017)."""
    assert critical_W_std(stax.Erf()) == pytest.approx(math.sqrt(math.pi) / 2, rel=1e-9)
    assert critical_W_std(TANH) == pytest.approx(1.0, rel=1e-6)
    assert critical_W_std(TANH, math.sqrt(0.05)) ** 2 == pytest.approx(1.76, abs=0.005)


@pytest.mark.parametrize("b_std", [0.0, 0.2, 0.6])
def test_the_edge_parts_order_from_chaos(b_std: float) -> None:
    edge = critical_W_std(stax.Erf(), b_std)
    below, at, above = (phase(stax.Erf(), edge * factor, b_std) for factor in (0.98, 1.0, 1.02))
    assert (below.name, above.name) == ("ordered", "chaotic")
    assert at.chi == pytest.approx(1, abs=1e-7)
    assert below.correlation == 1.0 > above.correlation


def through(layers: int, W_std: float, b_std: float, q: float, c: float) -> tuple[float, float]:
    """Variance and correlation after some layers of Erf, from those of the first pre-activations."""
    for _ in range(layers):
        found = moments(stax.Erf(), np.array([q]), np.array([1 - c]))
        q, product = (W_std**2 * float(m[0]) + b_std**2 for m in (found.square, found.product))
        c = product / q
    return q, c


@pytest.mark.parametrize(("W_std", "b_std"), [(0.7, 0.3), (2.5, 0.3), (1.5, 0.0)])
def test_depth_arrives_there(W_std: float, b_std: float) -> None:
    """q* and c* are what depth leads to, and ξ_c is how fast."""
    found = phase(stax.Erf(), W_std, b_std)
    near, next_, deep = (through(depth, W_std, b_std, 0.9, 0.3) for depth in (14, 15, 200))
    assert deep[0] == pytest.approx(found.variance, rel=1e-9)
    assert deep[1] == pytest.approx(found.correlation, abs=1e-7)
    shrinkage = abs((near[1] - found.correlation) / (next_[1] - found.correlation))
    assert math.log(shrinkage) == pytest.approx(1 / found.correlation_depth, rel=0.03)


def test_the_recursion_is_that_of_the_network() -> None:
    dense = stax.Dense(1, W_std=1.4, b_std=0.3)
    net = stax.serial(dense, stax.Erf(), dense, stax.Erf(), dense)
    x = np.array([[1.0, 0.2], [0.2, -1.0]])
    first = 1.4**2 * x @ x.T / 2 + 0.3**2
    q, c = through(2, 1.4, 0.3, first[0, 0], first[0, 1] / first[0, 0])
    np.testing.assert_allclose(net.kernel_fn(x, None, "nngp"), [[q, q * c], [q * c, q]], rtol=1e-12)


def test_edges_of_growing_functions() -> None:
    """exp: E φ² = E φ'² = e^{2q}, so that σ_b² = q − 1 along the edge. x²: without bias the edge is nowhere."""
    for b_std in (0.0, 0.5):
        assert critical_W_std(stax.Exp(), b_std) == pytest.approx(math.exp(-1 - b_std**2), rel=1e-9)
    assert phase(stax.Exp(), 3.0).variance == math.inf
    with pytest.raises(ValueError, match="no critical point"):
        critical_W_std(stax.Monomial(2))


def test_odd_functions_without_bias_forget_everything() -> None:
    found = phase(stax.Erf(), 1.5)
    assert found.name == "chaotic" and found.correlation == pytest.approx(0, abs=1e-11)


def test_moments_are_gaussian_integrals() -> None:
    q, rho = 0.8, 0.35
    found = moments(stax.Gelu(), np.array([q]), np.array([1 - rho]))

    def gelu(x: float) -> float:
        return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))

    def normal(x: float) -> float:
        return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    square = quad(lambda x: gelu(math.sqrt(q) * x) ** 2 * normal(x), -9, 9)[0]
    assert found.square[0] == pytest.approx(square, rel=1e-8)
    assert found.distance[0] == pytest.approx(2 * (found.square[0] - found.product[0]), rel=1e-9)
    step = 1e-5
    low, high = (moments(stax.Gelu(), np.array([q + d]), np.zeros(1)).square[0] for d in (-step, step))
    assert found.growth[0] == pytest.approx((high - low) / (2 * step), rel=1e-6)


def test_what_has_no_phase_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="elementwise"):
        phase(stax.Dense(3), 1.0)  # type: ignore[arg-type]
    with pytest.raises(ArchitectureError, match="no derivative"):
        phase(stax.Sign(), 1.0)
    with pytest.raises(ValueError, match="W_std"):
        phase(stax.Relu(), -1.0)
    with pytest.raises(ValueError, match="no signal"):
        phase(stax.Relu(), 0.0)
