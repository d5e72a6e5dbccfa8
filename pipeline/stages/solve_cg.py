"""Solving (K + λI) A = Y by preconditioned block conjugate gradients on the streamed matrix, one ridge after the other.

The ridges descend: the easiest first, each the start of the next. Every step is a checkpoint, written before the next
product is asked for, so that a rerun continues with the same numbers bit for bit. Where ridges have to be compared,
random right-hand sides go along: tr (K + λI)⁻¹ is estimated from them, for generalised cross-validation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ntk.linalg import conjugate_gradients as cg
from ntk.linalg.gates import Gate
from ntk.linalg.low_rank import LowRank
from pipeline.errors import GateError
from pipeline.plan import iterative
from pipeline.stages import preconditioner, stochastic
from pipeline.stages.advice import advice, reachable_shift, ridge_of
from pipeline.stages.operator import GramOperator, stored_operator
from pipeline.stages.regression import ALPHA, GATE_FACTOR, Regression, Solved
from pipeline.stages.session import Session
from pipeline.stages.solve_cg_state import Checkpoints


def solve(session: Session, problem: Regression) -> list[Solved]:
    """Solve for every ridge.

    Raises:
        GateError: an iteration broke down, stagnated or ran out of steps; the message explains it.
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    count, settings = len(problem.ridges), session.config.solve
    order = sorted(range(count), key=lambda index: -problem.shifts[index])
    if any(session.journal.latest(ALPHA, (index, 0, 0)) is None for index in order):
        operator = stored_operator(session, problem.kernel, "solve")
        rank = iterative.rank_of(settings, operator.n, session.inputs.outputs, session.resources.memory)
        made = preconditioner.build(session, operator, problem, rank)
        start = None
        for index in order:
            start = _solve_one(session, problem, operator, made, index, start)
    return [_solved(session, index) for index in range(count)]


def _solve_one(
    session: Session,
    problem: Regression,
    operator: GramOperator,
    made: LowRank,
    index: int,
    start: np.ndarray | None,
) -> np.ndarray:
    """Solve for one ridge from `start` and store its A; returns X, the start of the next."""
    settings, shift = session.config.solve, problem.shifts[index]
    y, probes = session.targets, stochastic.probes(settings, session.grid.n)
    system = cg.System(
        np.hstack([y, probes]),
        lambda v: made.precondition(shift, v),
        np.array([settings.tolerance] * y.shape[1] + [iterative.PROBE_TOLERANCE] * probes.shape[1]),
        settings.max_iterations,
    )
    checkpoints = Checkpoints(session, index, system)
    state = checkpoints.latest()
    if state is None:
        state = cg.begin(system, start)
        checkpoints.write(state)
    if session.journal.latest(ALPHA, (index, 0, 0)) is not None:
        return state.x
    with session.counting(f"cg {problem.ridges[index]:g}", 100) as count:
        while not state.finished:
            product = operator.matvec(state.wants) + shift * state.wants
            state = cg.step(system, state, product)
            checkpoints.write(state)
            count(_percent(state, system))
    if state.phase != "converged":
        raise _explain(session, problem, operator, index, system, state, made)
    outputs = y.shape[1]
    alpha = np.ascontiguousarray(state.x[:, :outputs])
    worst = float(np.max(state.residuals[:outputs], initial=0.0))
    note: dict[str, Any] = {
        "gates": {"residual": Gate(worst, GATE_FACTOR * settings.tolerance).to_dict()},
        "figures": preconditioner.figures(made, settings.preconditioner)
        | {
            "products": state.products,
            "predicted_products": preconditioner.predicted_products(made, shift, settings.tolerance),
            "convergence": checkpoints.history(outputs),
        }
        | stochastic.cross_validation(
            alpha,
            probes,
            state.x[:, outputs:],
            (made.precondition(shift, probes), made.inverse_diagonal(shift)),
        ),
    }
    session.put(ALPHA, (index, 0, 0), alpha[None], note)
    return state.x


def _percent(state: cg.State, system: cg.System) -> int:
    """How far down to its tolerance the slowest column is, on a logarithmic scale."""
    done = [
        math.log(max(residual, tolerance)) / math.log(tolerance) if 0 < tolerance < 1 else 1.0
        for residual, tolerance in zip(state.residuals, system.tolerance, strict=True)
    ]
    return max(0, min(100, int(100 * min(done, default=1.0))))


def _solved(session: Session, index: int) -> Solved:
    note = session.journal.records(ALPHA)[index, 0, 0].note
    return Solved(note["gates"], note["figures"])


def _explain(
    session: Session,
    problem: Regression,
    operator: GramOperator,
    index: int,
    system: cg.System,
    state: cg.State,
    made: LowRank,
) -> GateError:
    """Why an iteration ended without its tolerance, and what would help."""
    ridge, shift, tolerance = problem.ridges[index], problem.shifts[index], session.config.solve.tolerance
    worst = int(np.argmax(state.residuals / system.tolerance))
    reached = f"right-hand side {worst} is at {state.residuals[worst]:.3g} after {state.products} products"
    head = f"solve: conjugate gradients for ridge {ridge:g} (λ = {shift:.3g}), preconditioner of rank {made.rank}"
    if state.phase == "breakdown" and state.curvature is not None:
        known = advice(problem, lambda v: operator.matvec(v[:, None])[:, 0], session.spec.precision)
        wanted = known.sufficient + reachable_shift(problem, tolerance)
        return GateError(
            f"{head}: K + λI is not positive definite to rounding: a direction was met with sᵀ(K + λI)s = "
            f"{state.curvature:.3g} sᵀs; {known.smallest}; {reached}",
            hint=f"a ridge of {ridge_of(problem, wanted)} or more would do, or kernel.precision float64; look for "
            "repeated rows",
        )
    size = float(np.linalg.norm(state.x[:, worst]) / np.linalg.norm(system.b[:, worst]))
    floor = float(np.finfo(np.float64).eps) * problem.norms.shifted(shift).frobenius * size
    if state.phase == "stagnation":
        wanted = ridge_of(problem, max(2 * shift, reachable_shift(problem, tolerance)))
        return GateError(
            f"{head} stagnated: {reached}; rounding errors in products with K alone leave about {floor:.1g}",
            hint=f"set solve.tolerance to {max(10 * floor, 10 * tolerance):.0e}, or take a ridge of {wanted} or more, "
            "or solve.method cholesky",
        )
    return GateError(
        f"{head} did not reach {tolerance:g} within solve.max_iterations: {reached}",
        hint="allow more iterations, a larger solve.rank, a larger ridge, or set solve.method to cholesky",
    )
