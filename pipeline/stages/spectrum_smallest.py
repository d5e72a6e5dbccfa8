"""The smallest eigenpairs of a Gram matrix, by inverse Lanczos through a Cholesky factor stored for the purpose.

K + σI is factored tile by tile, with σ twice the noise floor, so that a matrix which is singular up to rounding has a
factor; one worker then iterates with it. Values are Rayleigh quotients of K itself, residuals from a product with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntk.linalg import substitution
from ntk.linalg.gates import orthogonality_gate, tolerance_gate
from ntk.linalg.inverse_krylov import smallest_pairs
from ntk.linalg.operator import symmetric_product
from ntk.spectral.stability import noise_floor
from pipeline.errors import GateError
from pipeline.plan.cholesky import FACTOR_KIND, cholesky_tasks
from pipeline.plan.gram import gram_array
from pipeline.plan.spectrum import INVERSE_STEPS, block_width
from pipeline.plan.tasks import Chunk, Record, Task
from pipeline.stages.cholesky_work import CholeskyWork, Factor, Indefinite
from pipeline.stages.session import Session
from pipeline.stages.spectrum_arrays import (
    SMALLEST_EIGENVALUES,
    SMALLEST_EIGENVECTORS,
    Request,
    make_spectrum_array,
)
from pipeline.stages.worker import Stopwatch, stored_record

KIND = "smallest"

TOLERANCE = 1e-8
"""Residual ‖K v − λ v‖ relative to λ_max."""

FLOORS = 2.0
"""σ in noise floors: a factorisation needs one for its own rounding, the matrix brings another."""


@dataclass(frozen=True, slots=True)
class SmallestWork:
    """A tile of the factor, or the iteration with the whole of it; picklable."""

    cholesky: CholeskyWork
    factor: Factor
    count: int
    largest: float

    def __call__(self, task: Task) -> list[Record] | Callable[[], list[Record]]:
        return self.cholesky(task) if task.kind == FACTOR_KIND else self.pairs(task)

    def pairs(self, task: Task) -> list[Record]:
        """Values ascending and vectors, with their gates."""
        watch, store, grid = Stopwatch(), self.cholesky.store, self.cholesky.grid
        blocks = self.cholesky.blocks

        def solve(rhs: np.ndarray) -> np.ndarray:
            return substitution.solve(lambda i, j: store.view(self.factor.array, (i, j)), blocks, rhs)

        found = smallest_pairs(
            solve,
            grid.n,
            self.count,
            block_width(self.count, grid.n),
            tolerance=TOLERANCE,
            most=INVERSE_STEPS,
        )
        if not found.converged:
            raise GateError(
                f"spectrum.smallest: the {self.count} smallest pairs did not converge in {found.solves} solves",
                hint="ask for fewer or more: a cluster must not be cut in two",
            )
        gram = gram_array(self.cholesky.kernel)
        tiles = ((key, store.view(gram, key)) for key in grid.upper())
        products = symmetric_product(tiles, blocks, found.vectors)
        values = np.einsum("nk,nk->k", found.vectors, products)
        order = np.argsort(values)
        values, vectors, products = values[order], found.vectors[:, order], products[:, order]
        pairs = tolerance_gate(products, values, vectors, lambda_max=self.largest, tolerance=TOLERANCE)
        note = {
            "solves": found.solves,
            "gates": {
                "smallest pairs": pairs.to_dict(),
                "smallest orthogonality": orthogonality_gate(vectors, dtype=np.float64).to_dict(),
            },
        }
        (name, key), (vectors_name, vectors_key) = task.writes
        vectors = np.ascontiguousarray(vectors)
        return [
            stored_record(store, vectors_name, vectors_key, vectors, watch, task.key),
            stored_record(store, name, key, values, watch, task.key, note),
        ]


def figures(session: Session, request: Request, largest: float) -> dict[str, Any]:
    """Store the smallest eigenpairs of a kernel; returns how many solves they took, the smallest, and the gates.

    Raises:
        GateError: the matrix has an eigenvalue below minus its noise floor, or the pairs do not converge.
        TasksFailed, Stopped: see there; a rerun resumes at the tiles of the factor that are missing.
    """
    count = min(session.config.spectrum.smallest, session.grid.n)
    if not count:
        return {}
    name = make_spectrum_array(session, request, SMALLEST_EIGENVALUES, (count,))
    vectors = make_spectrum_array(session, request, SMALLEST_EIGENVECTORS, (session.grid.n, count))
    writes = (name, (0,)), (vectors, (0, 0))
    if any(session.journal.latest(*chunk) is None for chunk in writes):
        _find(session, request, count, largest, writes)
    note = session.journal.records(name)[(0,)].note
    values = session.store.read_all(name)
    session.require_gates("spectrum", {request.kernel: note["gates"]})
    return {"smallest": {"count": count, "solves": note["solves"], "least": float(values[0])} | note["gates"]}


def _find(
    session: Session, request: Request, count: int, largest: float, writes: tuple[Chunk, Chunk]
) -> None:
    grid, kernel = session.grid, request.kernel
    factor = Factor(0, "float64", f"spectrum/{kernel}")
    session.create(
        factor.array,
        (grid.n, grid.n),
        (grid.tile, grid.tile),
        fingerprint=request.print_of(SMALLEST_EIGENVALUES),
    )
    shift = FLOORS * noise_floor(largest, grid.n, session.spec.precision)
    cholesky = CholeskyWork(str(session.directory), session.fingerprint("spectrum"), kernel, grid, (shift,))
    tasks = list(
        cholesky_tasks(
            grid.blocks, factor.array, session.journal.done([factor.array]), f"spectrum/{kernel}/factor"
        )
    )
    awaited = {dep for task in tasks for dep in task.deps}
    last = tuple(task.key for task in tasks if task.key not in awaited)
    tasks.append(Task(f"spectrum/{kernel}/smallest", KIND, (), last, writes))
    try:
        session.run(tasks, SmallestWork(cholesky, factor, count, largest), "spectrum")
    except Indefinite as error:
        raise GateError(
            f"spectrum.smallest: {kernel} + {shift:.3g} is not positive definite ({error.message.partition(':')[2]})",
            hint="use spectrum.method band or eigh, which find negative eigenvalues too",
        ) from None
    session.remove(factor.array)
