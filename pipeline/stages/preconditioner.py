"""A low-rank preconditioner of the stored Gram matrix, built by this process from rows or products of the workers and
kept in the store, so that a rerun continues with the same numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ntk.linalg import low_rank
from ntk.linalg.low_rank import LowRank
from pipeline.documents import finite
from pipeline.errors import InputError
from pipeline.plan.iterative import PROPOSALS
from pipeline.stages.operator import GramOperator
from pipeline.stages.regression import Regression
from pipeline.stages.session import Session

VECTORS = "solution/preconditioner"
VALUES = "solution/preconditioner-values"
CHUNK_ROWS = 64
"""Basis vectors in one stored chunk."""

SPREAD = 10.0
"""How far the eigenvalues that a preconditioner leaves are taken to spread about their mean, as a factor."""


def build(session: Session, operator: GramOperator, problem: Regression, rank: int) -> LowRank:
    """The preconditioner of this run: read where it is stored, else built and stored.

    Args:
        session: the opened run.
        operator: the Gram matrix.
        problem: its smallest λ says when a randomly pivoted Cholesky factor is good enough.
        rank: its largest rank; 0 for none.

    Raises:
        InputError: the approximation cannot be computed from this matrix.
    """
    if not rank:
        n = operator.n
        trace = problem.norms.trace
        return LowRank(np.empty((0, n)), np.empty(0), low_rank.resolved_tail(0.0, trace, n), trace)
    stored = session.journal.latest(VALUES, (0,)) if session.store.exists(VALUES) else None
    if stored is not None and session.store.array(VALUES).attrs["fingerprint"] == session.fingerprint(
        "solve"
    ):
        vectors = session.store.read_all(VECTORS) if stored.note["rank"] else np.empty((0, operator.n))
        values = session.store.read(VALUES, (0,))[: stored.note["rank"]]
        note = stored.note
        return LowRank(vectors, values, note["tail"], note["trace_residual"], note.get("clipped", math.nan))
    made = _nystrom(operator, problem, rank) if session.config.solve.preconditioner == "nystrom" else _pivoted(
        session, operator, problem, rank
    )  # fmt: skip
    _store(session, made)
    return made


def _pivoted(session: Session, operator: GramOperator, problem: Regression, rank: int) -> LowRank:
    state = low_rank.begin_pivots(operator.diagonal(), rank, proposals=min(PROPOSALS, rank))
    with session.counting("precondition", rank) as count:
        # Once the rest of K weighs less than the smallest λ on average, more columns would save few iterations.
        while not state.finished and state.trace_residual > problem.norms.n * min(problem.shifts):
            state = low_rank.grow(state, operator.rows(state.wants))
            count(state.rank)
    return low_rank.from_pivots(state)


def _nystrom(operator: GramOperator, problem: Regression, rank: int) -> LowRank:
    test = low_rank.nystrom_test(operator.n, rank)
    product = np.concatenate(
        [operator.matvec(test[:, start : start + PROPOSALS]) for start in range(0, rank, PROPOSALS)], axis=1
    )
    try:
        return low_rank.nystrom(test, product, problem.norms.trace)
    except np.linalg.LinAlgError:
        raise InputError(
            f"solve.preconditioner: nystrom of rank {rank}: the {problem.kernel} matrix is not positive definite on "
            "its test vectors, to rounding",
            hint="use rpcholesky, or a smaller solve.rank",
        ) from None


def _store(session: Session, made: LowRank) -> None:
    mark, rank = session.fingerprint("solve"), made.rank
    if rank:
        n = made.vectors.shape[1]
        session.create(VECTORS, (rank, n), (min(CHUNK_ROWS, rank), n), fingerprint=mark)
        for start in range(0, rank, CHUNK_ROWS):
            session.put(VECTORS, (start // CHUNK_ROWS, 0), made.vectors[start : start + CHUNK_ROWS])
    session.create(VALUES, (max(rank, 1),), (max(rank, 1),), fingerprint=mark)
    values = made.values if rank else np.zeros(1)
    note = {
        "rank": rank, "tail": made.tail, "trace_residual": made.trace_residual, "clipped": made.clipped
    }  # fmt: skip
    session.put(VALUES, (0,), values, note)


def predicted_products(made: LowRank, shift: float, tolerance: float) -> int:
    """Products that CG should need, ½ √κ ln(2/ε) (Saad 2003, eq. 6.128), κ the preconditioned condition number.

    The eigenvalues of what the approximation leaves are taken to lie within `SPREAD` of their mean either way. That is
    a guess from kernels of images: one that holds for all matrices is hundreds of times too high for these.
    """
    mean = made.trace_residual / max(made.vectors.shape[1] - made.rank, 1)
    model = made.tail + shift
    condition = (1 + SPREAD * mean / model) / min(1.0, (mean / SPREAD + shift) / model)
    return max(1, math.ceil(0.5 * math.sqrt(condition) * math.log(2 / tolerance)))


def figures(made: LowRank, method: str) -> dict[str, Any]:
    """What the metrics say about a preconditioner."""
    return {
        "preconditioner": method if made.rank else "none",
        "rank": made.rank,
        "trace_residual": made.trace_residual,
        "trace_clipped": finite(made.clipped),
    }
