"""Solving (K + λI) A = Y by a blocked Cholesky factorisation on the stored tiles, for every ridge.

For each ridge: factor tiles → one substitution → leave-one-out diagonal → gates. A factor is
removed once everything that needs it is recorded, so that only the factors at work take disk space; the one of the
chosen ridge is not kept either: it is recomputed in the time it took, and predictions need only A.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntk.linalg import substitution, tile_cholesky
from ntk.linalg.gates import factor_gate, solve_gate
from ntk.linalg.operator import symmetric_product
from ntk.linalg.smallest import smallest_eigenvalue, sufficient_ridge
from pipeline.errors import GateError
from pipeline.plan.cholesky import (
    FACTOR_KIND,
    INVERSE_KIND,
    cholesky_tasks,
    factor_reads,
    inverse_diagonal_tasks,
)
from pipeline.plan.gram import gram_array
from pipeline.plan.tasks import Record, Task
from pipeline.plan.tiles import TileGrid
from pipeline.stages import scores
from pipeline.stages.regression import ALPHA, Regression, Solved
from pipeline.stages.session import Session
from pipeline.stages.worker import Stopwatch, opened, stored_record, targets

SUBSTITUTE_KIND = "substitute"
FEW_ROWS = 10_000
"""Up to this many rows λ_min is estimated from up to 200 products after a failure; beyond, from 40."""


def factor_array(index: int) -> str:
    """Name of the factor for the ridge of that index."""
    return f"solution/factor-{index}"


def inverse_array(index: int) -> str:
    """Name of the diagonal of (K + λI)⁻¹ for the ridge of that index."""
    return f"solution/inverse-diagonal-{index}"


class Indefinite(GateError):
    """A pivot was not positive; `message` is the ridge's index, the pivot and its value as text, for the stage."""


@dataclass(frozen=True, slots=True)
class SolveWork:
    """One step of the factorisation or what follows from the factor; `shifts` holds λ for each ridge."""

    directory: str
    token: str
    kernel: str
    grid: TileGrid
    shifts: tuple[float, ...]

    def __call__(self, task: Task) -> list[Record]:
        watch = Stopwatch()
        step = {FACTOR_KIND: self.factor, SUBSTITUTE_KIND: self.substitute, INVERSE_KIND: self.inverse}[
            task.kind
        ]
        block, note = step(task)
        ((name, key),) = task.writes
        return [stored_record(opened(self.directory, self.token), name, key, block, watch, task.key, note)]

    def factor(self, task: Task) -> tuple[np.ndarray, dict[str, Any]]:
        """Tile (i, j) of U: the shifted Gram tile less the products of the tiles above, then a solve or a root."""
        array, i, j = task.args
        store = opened(self.directory, self.token)
        # A copy in float64: the steps work in place, and a float32 matrix is factored in float64.
        s = np.array(store.read(gram_array(self.kernel), (i, j)), dtype=np.float64, order="C")
        if i == j:
            s[np.diag_indices_from(s)] += self.shifts[_index(array)]
        above = factor_reads(i, j)
        if i == j:
            for tile in above:
                tile_cholesky.update(s, store.read(array, tile))
            try:
                u = tile_cholesky.factor(s)
            except tile_cholesky.NotPositiveDefinite as failure:
                at = failure.within(self.grid.rows(i))
                raise Indefinite(f"ridge {_index(array)}: pivot {at.pivot} is {at.value!r}") from None
            return u, {}
        for k in range(i):
            tile_cholesky.update(s, store.read(array, (k, i)), store.read(array, (k, j)))
        return tile_cholesky.solve_row(store.read(array, (i, i)), s), {}

    def substitute(self, task: Task) -> tuple[np.ndarray, dict[str, Any]]:
        """A = U⁻¹ U⁻ᵀ Y for all right-hand sides, and the gates on the factor and on the solution."""
        index, frobenius = task.args
        store, blocks, shift = opened(self.directory, self.token), self.blocks, self.shifts[index]
        y = targets(self.directory, self.token, self.grid)

        logs: dict[int, float] = {}

        def factor_tile(i: int, j: int) -> np.ndarray:
            tile = store.read(factor_array(index), (i, j))
            if i == j:
                logs[i] = tile_cholesky.log_determinant(tile)
            return tile

        def product(vectors: np.ndarray) -> np.ndarray:
            tiles = ((key, store.read(gram_array(self.kernel), key)) for key in self.grid.upper())
            return symmetric_product(tiles, blocks, vectors) + shift * vectors

        alpha = substitution.solve(factor_tile, blocks, y)
        factor = factor_gate(
            product, lambda x: substitution.factor_product(factor_tile, blocks, x),
            n=self.grid.n, frobenius=frobenius, dtype=np.float64,
        )  # fmt: skip
        solution = solve_gate(y - product(alpha), alpha, y, norm=frobenius, dtype=np.float64)
        log_determinant = math.fsum(logs[block] for block in range(self.grid.blocks))
        return alpha[None], {
            "log_determinant": log_determinant,
            "gates": {"factor": factor.to_dict(), "solution": solution.to_dict()},
        }

    def inverse(self, task: Task) -> tuple[np.ndarray, dict[str, Any]]:
        """The diagonal of (K + λI)⁻¹ on one block."""
        name, j = task.args
        store, array = opened(self.directory, self.token), factor_array(_index(name))
        return substitution.inverse_diagonal_block(lambda i, k: store.read(array, (i, k)), self.blocks, j), {}

    @property
    def blocks(self) -> list[slice]:
        return [self.grid.rows(block) for block in range(self.grid.blocks)]


def _index(array: str) -> int:
    return int(array.rsplit("-", 1)[1])


def solve(session: Session, problem: Regression) -> list[Solved]:
    """Factor and solve for every ridge.

    Raises:
        GateError: a factorisation met a pivot that is not positive (the message names it, an estimate of λ_min and
            a sufficient ridge).
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    count = len(problem.ridges)
    tasks = [
        task
        for index, shift in enumerate(problem.shifts)
        for task in _tasks(session, index, problem.norms.shifted(shift).frobenius)
    ]
    work = SolveWork(
        str(session.directory), session.fingerprint("solve"), problem.kernel, problem.grid, problem.shifts
    )
    try:
        session.run(tasks, work, "solve", after=lambda: _drop_factors(session, count))
    except Indefinite as failure:
        raise _explain(session, failure, problem) from None
    _drop_factors(session, count)
    return [_solved(session, index) for index in range(count)]


def _tasks(session: Session, index: int, frobenius: float) -> list[Task]:
    """What is left to do for one ridge, in the order of its priorities after all ridges before it."""
    if _complete(session, index):
        return []
    grid, array, inverse = session.grid, factor_array(index), inverse_array(index)
    session.create(array, (grid.n, grid.n), (grid.tile, grid.tile), fingerprint=session.fingerprint("solve"))
    session.create(inverse, (grid.n,), (grid.tile,), fingerprint=session.fingerprint("solve"))
    session.adopt((array,))
    done = session.journal.done((array, inverse, ALPHA))
    factor = cholesky_tasks(grid.blocks, array, done, f"cholesky/{index}")
    last = (factor[-1].key,) if factor else ()
    after = list(inverse_diagonal_tasks(grid.blocks, inverse, done, f"inverse/{index}"))
    if (ALPHA, (index, 0, 0)) not in done:
        writes = ((ALPHA, (index, 0, 0)),)
        after.append(Task(f"substitute/{index}", SUBSTITUTE_KIND, (index, frobenius), writes=writes))
    # Priorities of a factorisation lie within ±(blocks + 1)²; one ridge comes after the other.
    offset = 4 * index * (grid.blocks + 1) ** 2
    return [dataclasses.replace(task, priority=task.priority + offset) for task in factor] + [
        dataclasses.replace(task, priority=task.priority + offset, deps=last) for task in after
    ]


def _complete(session: Session, index: int) -> bool:
    """Whether everything that needs the factor of a ridge is recorded."""
    solved = session.journal.latest(ALPHA, (index, 0, 0)) is not None
    return solved and len(session.journal.records(inverse_array(index))) == session.grid.blocks


def _drop_factors(session: Session, count: int) -> None:
    for index in range(count):
        if session.store.exists(factor_array(index)) and _complete(session, index):
            session.remove(factor_array(index))


def _explain(session: Session, failure: Indefinite, problem: Regression) -> GateError:
    """The failure of a factorisation in full: which pivot, how indefinite, which ridge would do."""
    index, pivot, value = re.fullmatch(r"ridge (\d+): pivot (\d+) is (\S+)", failure.message).groups()  # type: ignore[union-attr]
    shift, ridge = problem.shifts[int(index)], problem.ridges[int(index)]
    kernel, grid, norms = problem.kernel, problem.grid, problem.norms
    blocks = [grid.rows(block) for block in range(grid.blocks)]

    def product(vector: np.ndarray) -> np.ndarray:
        tiles = ((key, session.store.read(gram_array(kernel), key)) for key in grid.upper())
        return symmetric_product(tiles, blocks, vector)

    smallest = smallest_eigenvalue(
        product, grid.n, norm=norms.frobenius, max_products=200 if grid.n <= FEW_ROWS else 40
    )
    wanted = sufficient_ridge(smallest.lower, grid.n, norms.frobenius, float(np.finfo(np.float64).eps))
    return GateError(
        f"solve: K + λI with ridge {ridge:g} (λ = {shift:.3g}) is not positive definite: pivot {pivot} of {grid.n} is "
        f"{float(value):.3g}; the smallest eigenvalue of K is about {smallest.value:.3g} (± {smallest.residual:.1g})",
        hint=f"a ridge of {_round_up(wanted / norms.mean_diagonal):.1e} or more would do; look for repeated rows",
    )


def _round_up(value: float) -> float:
    """To two digits, upwards."""
    if value <= 0:
        return float(np.finfo(np.float64).eps)
    unit = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(np.ceil(value / unit) * unit)


def _solved(session: Session, index: int) -> Solved:
    store, grid = session.store, session.grid
    alpha = store.read(ALPHA, (index, 0, 0))[0]
    inverse = np.concatenate([store.read(inverse_array(index), (block,)) for block in range(grid.blocks)])
    note = session.journal.records(ALPHA)[index, 0, 0].note
    left_out = scores.leave_one_out(session.targets, alpha, inverse)
    return Solved(note["gates"], {"log_determinant": note["log_determinant"]}, left_out)
