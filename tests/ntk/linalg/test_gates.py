"""Gates hold for backward-stable answers at every conditioning, and fail for a single corrupted tile."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk.linalg.gates import (
    Gate,
    eigenpair_gate,
    factor_gate,
    frobenius_gate,
    orthogonality_gate,
    solve_gate,
    trace_gate,
)
from ntk.linalg.substitution import factor_product, solve
from ntk.linalg.tile_cholesky import NotPositiveDefinite, cholesky

N = 90
BLOCKS = [slice(0, 32), slice(32, 64), slice(64, 90)]


def conditioned(condition: float, seed: int = 0) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((N, N)))
    a = (q * np.geomspace(3.0, 3.0 / condition, N)) @ q.T
    return (a + a.T) / 2


def near_duplicates(seed: int = 0) -> np.ndarray:
    """A kernel matrix with equal and almost equal rows: singular up to rounding."""
    x = np.random.default_rng(seed).standard_normal((N // 3, 4))
    x = np.concatenate([x, x, x + 1e-9])
    return np.exp(-0.5 * ((x[:, None] - x[None]) ** 2).sum(-1))


def gates_of(a: np.ndarray, dtype) -> tuple[Gate, Gate]:
    u = cholesky(a.astype(dtype), BLOCKS)

    def tile(i: int, j: int) -> np.ndarray:
        return u[BLOCKS[i], BLOCKS[j]]

    def apply(x: np.ndarray) -> np.ndarray:
        return a.astype(dtype).astype(np.float64) @ x

    norm = float(np.linalg.norm(a))
    rhs = np.random.default_rng(1).standard_normal((N, 3))
    x = solve(tile, BLOCKS, rhs)
    first = factor_gate(apply, lambda v: factor_product(tile, BLOCKS, v), n=N, frobenius=norm, dtype=dtype)
    return first, solve_gate(rhs - apply(x), x, rhs, norm=norm, dtype=dtype)


@settings(deadline=None)
@given(st.floats(0, 14), st.integers(0, 2**31))
def test_cholesky_and_solve_gates_hold_up_to_condition_1e14_or_the_pivot_is_named(exponent, seed):
    try:
        gates = gates_of(conditioned(10**exponent, seed), np.float64)
    except NotPositiveDefinite as failure:
        assert exponent > 12
        assert abs(failure.value) < 1e-12
    else:
        assert all(gate.passed for gate in gates)


@settings(deadline=None)
@given(st.floats(0, 4), st.integers(0, 2**31))
def test_float32_factors_meet_the_gates_of_float32(exponent, seed):
    assert all(gate.passed for gate in gates_of(conditioned(10**exponent, seed), np.float32))


@pytest.mark.parametrize("ridge", [1e-13, 1e-9, 1e-3])
@pytest.mark.parametrize(
    "matrix", [near_duplicates(), scipy.linalg.hilbert(N)], ids=["duplicates", "hilbert"]
)
def test_singular_matrices_with_a_ridge_meet_the_gates(matrix, ridge):
    assert all(gate.passed for gate in gates_of(matrix + ridge * np.eye(N), np.float64))


@settings(deadline=None)
@given(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2**31))
def test_one_wrong_entry_in_one_tile_fails_the_factor_gate(i, j, seed):
    i, j = min(i, j), max(i, j)
    a = conditioned(1e6)
    u = cholesky(a, BLOCKS)
    u[BLOCKS[i], BLOCKS[j]][3, 5] += 1e-9

    def tile(p: int, q: int) -> np.ndarray:
        return u[BLOCKS[p], BLOCKS[q]]

    gate = factor_gate(
        lambda x: a @ x,
        lambda x: factor_product(tile, BLOCKS, x),
        n=N,
        frobenius=float(np.linalg.norm(a)),
        dtype=np.float64,
        seed=seed,
    )
    assert not gate.passed


def test_the_factor_gate_estimates_the_frobenius_norm_it_names():
    a = conditioned(10)
    error = np.random.default_rng(2).standard_normal((N, N))
    norm = float(np.linalg.norm(a))
    gate = factor_gate(
        lambda x: a @ x, lambda x: (a + error) @ x, n=N, frobenius=norm, dtype=np.float64, probes=400
    )
    exact = np.linalg.norm(error) / (N * np.finfo(np.float64).eps * norm)
    assert gate.value == pytest.approx(exact, rel=0.1)


@settings(deadline=None)
@given(st.floats(0, 16), st.integers(0, 2**31))
def test_lapack_eigenpairs_meet_every_gate_and_a_wrong_pair_none(exponent, seed):
    a = conditioned(10**exponent, seed)
    values, vectors = scipy.linalg.eigh(a)
    norm = float(np.linalg.norm(a))
    common = {"dtype": np.float64}
    assert eigenpair_gate(a @ vectors, values, vectors, lambda_max=values[-1], **common).passed
    assert orthogonality_gate(vectors, **common).passed
    assert trace_gate(values, trace=float(np.trace(a)), **common).passed
    assert frobenius_gate(values, frobenius=norm, **common).passed

    wrong = values.copy()
    wrong[-1] *= 1 + 1e-9
    bent = vectors.copy()
    bent[0, 0] += 1e-9
    assert not eigenpair_gate(a @ vectors, wrong, vectors, lambda_max=values[-1], **common).passed
    assert not orthogonality_gate(bent, **common).passed
    assert not trace_gate(wrong, trace=float(np.trace(a)), **common).passed
    assert not frobenius_gate(wrong, frobenius=norm, **common).passed


def test_gates_do_not_depend_on_the_scale_of_the_problem():
    # A power of two changes no rounding.
    a = conditioned(1e8)
    for scale in (2.0**-100, 2.0**100):
        for one, other in zip(gates_of(a, np.float64)[:1], gates_of(scale * a, np.float64)[:1], strict=True):
            assert one.value == pytest.approx(other.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_finite_number_never_passes_and_is_null_in_json(value):
    gate = Gate(value, 30.0)
    assert not gate.passed
    plain = json.loads(json.dumps(gate.to_dict(), allow_nan=False))
    assert plain == {"value": None, "limit": 30.0, "passed": False}
    assert not Gate(0.0, math.nan).passed


def test_a_nan_in_one_column_fails_the_whole_gate():
    good = np.zeros((4, 3))
    bad = good.copy()
    bad[2, 1] = np.nan
    ones = np.ones((4, 3))
    assert solve_gate(good, ones, ones, norm=1.0, dtype=np.float64).passed
    assert not solve_gate(bad, ones, ones, norm=1.0, dtype=np.float64).passed


def test_a_zero_right_hand_side_is_solved_perfectly_by_zero():
    zero = np.zeros(5)
    assert solve_gate(zero, zero, zero, norm=1.0, dtype=np.float64) == Gate(0.0, 150.0)
