"""Solving (K + λI) A = Y by ASkotch on rows of K that the workers compute when they are needed: nothing of K is stored.

The ridges descend, each the start of the next. Every few steps are a checkpoint; all that is random in a step follows
from its number, so that a rerun goes on from the last one with the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ntk.linalg import askotch
from ntk.linalg.gates import Gate
from pipeline.documents import finite
from pipeline.errors import GateError
from pipeline.plan import iterative
from pipeline.stages import stochastic
from pipeline.stages.operator import GramOperator, computed_operator
from pipeline.stages.regression import ALPHA, GATE_FACTOR, Regression, Solved
from pipeline.stages.session import Session
from pipeline.store.faults import TileError

STEPS_KEPT = 10
"""Steps from one checkpoint to the next; the end of a pass is one too."""

SLOTS = 2


def solve(session: Session, problem: Regression) -> list[Solved]:
    """Solve for every ridge.

    Raises:
        GateError: the iteration diverged or ran out of passes; the message explains it.
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    count = len(problem.ridges)
    order = sorted(range(count), key=lambda index: -problem.shifts[index])
    if any(session.journal.latest(ALPHA, (index, 0, 0)) is None for index in order):
        operator, start = computed_operator(session, problem.kernel, "solve"), None
        for index in order:
            start = _solve_one(session, problem, operator, index, start)
    notes = session.journal.records(ALPHA)
    return [
        Solved(notes[index, 0, 0].note["gates"], notes[index, 0, 0].note["figures"]) for index in range(count)
    ]


def _solve_one(
    session: Session, problem: Regression, operator: GramOperator, index: int, start: np.ndarray | None
) -> np.ndarray:
    """Solve for one ridge from `start` and store its A; returns W, the start of the next."""
    settings, shift = session.config.solve, problem.shifts[index]
    y, signs = session.targets, stochastic.probes(settings, session.grid.n)
    block, rank = iterative.block_of(settings, session.grid.n)
    system = askotch.System(
        np.hstack([y, signs]), shift, problem.norms.mean_diagonal,
        np.array([settings.tolerance] * y.shape[1] + [iterative.PROBE_TOLERANCE] * signs.shape[1]),
        block, rank, settings.max_iterations,
    )  # fmt: skip
    kept = _Checkpoints(session, index, system)
    state = kept.latest()
    if state is None:
        state = askotch.begin(system, start)
        kept.write(state)
    if session.journal.latest(ALPHA, (index, 0, 0)) is not None:
        return state.w
    with session.counting(f"askotch {problem.ridges[index]:g}", settings.max_iterations) as count:
        while not state.finished:
            before = state
            if state.phase == "residual":
                state = askotch.look(system, state, operator.matvec(state.w))
            else:
                rows = askotch.wanted_rows(system, state)
                inner, product = operator.rows_product(rows, state.z)
                # Threads that share a block of a few hundred rows cost more than they do.
                with threadpool_limits(1, "blas"):
                    state = askotch.step(system, state, rows, inner, product)
            if state.passes > before.passes or state.steps % STEPS_KEPT == 0 or state.finished:
                kept.write(state)
                count(state.passes)
    if state.phase != "converged":
        raise _explain(problem, index, system, state)
    outputs = y.shape[1]
    alpha = np.ascontiguousarray(state.w[:, :outputs])
    worst = float(np.max(state.residuals[:outputs], initial=0.0))
    note: dict[str, Any] = {
        "gates": {"residual": Gate(worst, GATE_FACTOR * settings.tolerance).to_dict()},
        "figures": {
            "block": block,
            "rank": rank,
            "preconditioner": "nystrom of every block",
            "products": state.passes,
            "convergence": kept.history(outputs),
        }
        | stochastic.cross_validation(alpha, signs, state.w[:, outputs:]),
    }
    session.put(ALPHA, (index, 0, 0), alpha[None], note)
    return state.w


class _Checkpoints:
    """Of one ridge, two kept in turn. Arrays: `solution/askotch-I` (slots, 3, n, k); `solution/askotch-I-residuals`
    (passes, k), a row for the start and one for each pass."""

    def __init__(self, session: Session, index: int, system: askotch.System):
        self._session, self._system = session, system
        self._states, self._residuals = f"solution/askotch-{index}", f"solution/askotch-{index}-residuals"
        n, k = system.b.shape
        mark = session.fingerprint("solve")
        session.create(self._states, (SLOTS, 3, n, k), (1, 3, n, k), fingerprint=mark)
        session.create(self._residuals, (system.limit + 2, k), (1, k), fingerprint=mark)

    def latest(self) -> askotch.State | None:
        """The newest sound checkpoint, or None."""
        records = self._session.journal.records(self._states)
        for key, record in sorted(records.items(), key=lambda item: -item[1].note["order"]):
            try:
                w, v, z = self._session.store.read(self._states, key)[0]
            except TileError:  # killed while this slot was written: the other one is whole
                continue
            note = record.note
            residuals = np.array([np.inf if value is None else value for value in note["residuals"]])
            return askotch.State(
                note["phase"], w, v, z, note["steps"], note["passes"], np.array(note["squares"]), residuals,
                note["exact"], note["looked"],
            )  # fmt: skip
        return None

    def write(self, state: askotch.State) -> None:
        """Keep a state, and its residuals in the history."""
        residuals = state.residuals
        row = np.where(np.isfinite(residuals), residuals, 1.0)[None]
        self._session.put(self._residuals, (state.passes, 0), row)
        note = {
            "order": state.steps + state.passes, "phase": state.phase, "steps": state.steps, "passes": state.passes,
            "squares": state.squares.tolist(), "exact": state.exact, "looked": state.looked,
            "residuals": [finite(value) for value in residuals],
        }  # fmt: skip
        blocks = np.stack([state.w, state.v, state.z])[None]
        records = self._session.journal.records(self._states)
        newest = max(records.items(), key=lambda item: item[1].note["order"], default=None)
        slot = 0 if newest is None else (newest[0][0] + 1) % SLOTS
        self._session.put(self._states, (slot, 0, 0, 0), blocks, note)

    def history(self, columns: int) -> list[list[float]]:
        """‖r‖ / ‖b‖ after each pass, for each of the first `columns` right-hand sides; three digits."""
        keys = sorted(self._session.journal.records(self._residuals))
        rows = [self._session.store.read(self._residuals, key)[0, :columns] for key in keys]
        return [[float(f"{value:.3g}") for value in column] for column in np.array(rows).T]


def _explain(problem: Regression, index: int, system: askotch.System, state: askotch.State) -> GateError:
    """Why an iteration ended without its tolerance, and what would help."""
    worst = int(np.argmax(state.residuals / system.tolerance))
    head = (
        f"solve: ASkotch for ridge {problem.ridges[index]:g} (λ = {system.shift:.3g}), blocks of {system.block} rows, "
        f"rank {system.rank}"
    )
    reached = f"right-hand side {worst} is at {state.residuals[worst]:.3g} after {state.passes} passes"
    if state.phase == "diverged":
        return GateError(
            f"{head} diverged: {reached}",
            hint="K + λI is not positive definite to rounding, or blocks are too small for it: use a larger ridge, a "
            "larger solve.block and solve.rank, or kernel.precision float64",
        )
    return GateError(
        f"{head} did not reach {float(np.min(system.tolerance)):g} within solve.max_iterations: {reached}",
        hint="allow more iterations, a larger solve.block and solve.rank, a larger ridge, or set solve.method to cg",
    )
