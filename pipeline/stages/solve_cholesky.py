"""Solving (K + λI) A = Y directly, by a blocked Cholesky factorisation on the stored tiles, for every ridge.

For each ridge: factor tiles, with the forward substitution beside them → backward substitution → gates and
leave-one-out diagonal. A factor is removed once everything that needs it is recorded, so that only the factors at work
take disk space; with `solve.keep_factor` they stay, for `kept_solve`. Predictions need only A. Where the matrix fits a
worker (`plan.direct`), all of this is one task, and the factor is stored only if it is to stay.

A float32 factor that cannot be used (a pivot that is not positive, a refinement that stalls, an inverse's diagonal that
is too coarse) is given up for a float64 one, and the metrics say why. The reason is kept with the new factor, so that a
run that was killed goes on with it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntk.linalg.operator import symmetric_product
from pipeline.errors import GateError
from pipeline.plan.cholesky import cholesky_tasks, forward_tasks, inverse_diagonal_tasks
from pipeline.plan.direct import is_in_memory, threads_of
from pipeline.plan.gram import gram_array
from pipeline.plan.tasks import Chunk, Task
from pipeline.stages import scores
from pipeline.stages.advice import advice, ridge_of
from pipeline.stages.cholesky_work import GATES_KIND, RESIDUAL, SUBSTITUTE_KIND, CholeskyWork, Factor, Unfit
from pipeline.stages.dense_work import DENSE_KIND, DenseWork
from pipeline.stages.regression import ALPHA, Regression, Solved
from pipeline.stages.session import Session

COARSE = 1e-3
"""Largest relative error of the inverse's diagonal, as seen on some rows, with which a float32 factor is kept."""

WELL_CONDITIONED = 0.1
"""`solve.factor: auto` takes float32 where ‖K + λI‖_F / λ, a bound of the condition number, times its unit is below."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The factor for one ridge, and why it is not the one that was asked for."""

    factor: Factor
    because: str = ""

    @property
    def note(self) -> dict[str, Any]:
        return {"fallback": self.because} if self.because else {}


def solve(session: Session, problem: Regression) -> list[Solved]:
    """Factor and solve for every ridge.

    Raises:
        GateError: a float64 factorisation met a pivot that is not positive (the message names it, an estimate of λ_min
            and a sufficient ridge).
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    ridges, outputs = len(problem.ridges), session.inputs.outputs
    session.create(RESIDUAL, (ridges, outputs), (1, outputs), fingerprint=session.fingerprint("solve"))
    choices = [_choice(session, problem, index) for index in range(len(problem.ridges))]
    work = CholeskyWork(
        str(session.directory), session.fingerprint("solve"), problem.kernel, problem.grid, problem.shifts
    )
    make, does = _tasks, work
    if is_in_memory(session.config.solve, session.grid.n, outputs, session.resources):
        make, does = _dense_tasks, DenseWork(work, threads_of(ridges, session.resources))
    while True:
        waiting = [choice for choice in choices if not _complete(session, choice.factor)]
        for choice in waiting:
            _create(session, choice)
        tasks = [task for choice in waiting for task in make(session, problem, choice)]
        try:
            session.run(tasks, does, "solve", after=lambda: _drop_factors(session, choices))
        except Unfit as failure:
            array, _, reason = failure.message.partition(":")
            factor = Factor.of(array)
            if factor.dtype == "float64":
                raise _explain(session, factor, reason, problem) from None
            choices[factor.index] = _in_float64(session, factor, reason)
            continue
        _drop_factors(session, choices)
        coarse = [
            choice.factor for choice in choices if (error := _inverse_error(session, choice.factor)) > COARSE
        ]
        if not coarse:
            return [_solved(session, problem, choice) for choice in choices]
        for factor in coarse:
            error = _inverse_error(session, factor)
            session.discard(ALPHA, [(factor.index, 0, 0)])
            reason = f"the diagonal of the inverse is wrong by {error:.1e}"
            choices[factor.index] = _in_float64(session, factor, reason)


def kept_solve(session: Session, problem: Regression, index: int, rhs: np.ndarray) -> np.ndarray | None:
    """(K + λI)⁻¹ B for B of shape (n, r) by the float64 factor that was kept for a ridge, two passes over it; None
    where there is none.

    Raises:
        TileError: a tile of the factor is not as recorded.
    """
    factor = Factor(index, "float64")
    mark = session.fingerprint("solve")
    if len(session.journal.records(factor.array)) != problem.grid.count:
        return None
    if session.store.array(factor.array).attrs["fingerprint"] != mark:
        return None
    work = CholeskyWork(str(session.directory), mark, problem.kernel, problem.grid, problem.shifts)
    return work.triangle(factor.array).solve(rhs)


def _choice(session: Session, problem: Regression, index: int) -> Choice:
    """As an earlier, killed run left it, else as configured."""
    exact, coarse = Factor(index, "float64"), Factor(index, "float32")
    record = session.journal.latest(ALPHA, (index, 0, 0))
    if record is not None:
        return Choice(
            exact if record.note["factor"] == "float64" else coarse, record.note.get("fallback", "")
        )
    wanted = session.config.solve.factor
    if session.store.exists(exact.array):
        return Choice(exact, str(session.store.array(exact.array).attrs.get("fallback", "")))
    if wanted == "auto":
        shift = problem.shifts[index]
        bound = problem.norms.shifted(shift).frobenius / shift if shift > 0 else math.inf
        wanted = "float32" if bound * float(np.finfo(np.float32).eps) < WELL_CONDITIONED else "float64"
    return Choice(coarse if wanted == "float32" else exact)


def _in_float64(session: Session, coarse: Factor, reason: str) -> Choice:
    """Give a float32 factor up."""
    choice = Choice(Factor(coarse.index, "float64"), f"float32 would not do: {reason}")
    _create(session, choice)
    for array in (coarse.array, coarse.inverse):
        if session.store.exists(array):
            session.remove(array)
    return choice


def _create(session: Session, choice: Choice) -> None:
    grid, factor, stage = session.grid, choice.factor, session.fingerprint("solve")
    session.create(
        factor.array, (grid.n, grid.n), (grid.tile, grid.tile), dtype=factor.dtype, fingerprint=stage,
        attributes=choice.note,
    )  # fmt: skip
    session.create(factor.inverse, (grid.n,), (grid.tile,), fingerprint=stage)
    if factor.dtype == "float64":
        outputs = session.inputs.outputs
        session.create(factor.forward, (grid.n, outputs), (grid.tile, outputs), fingerprint=stage)


def _tasks(session: Session, problem: Regression, choice: Choice) -> list[Task]:
    """What is left to do for one ridge, in the order of its priorities after all ridges before it."""
    factor, grid = choice.factor, session.grid
    index = factor.index
    session.adopt((factor.array,))
    done = session.journal.done((factor.array, factor.forward, factor.inverse, ALPHA, RESIDUAL))
    prefix = f"cholesky/{factor.name}"
    tiles = cholesky_tasks(grid.blocks, factor.array, done, prefix)
    made = _last(tiles)
    frobenius = problem.norms.shifted(problem.shifts[index]).frobenius
    solution = (ALPHA, (index, 0, 0))
    follow = made
    after: list[Task] = []
    if solution not in done:
        if factor.dtype == "float64":
            named = f"forward/{factor.name}"
            after += forward_tasks(grid.blocks, factor.array, factor.forward, done, named, prefix)
        arguments, waits = (factor.array, frobenius, choice.note), (*made, *_last(after))
        after.append(Task(f"substitute/{factor.name}", SUBSTITUTE_KIND, arguments, waits, (solution,), -1))
        # The coefficients first: what follows keeps the workers busy for longer.
        follow = (after[-1].key,)
    if factor.dtype == "float64" and (RESIDUAL, (index, 0)) not in done:
        arguments, writes = (factor.array, frobenius, solution), ((RESIDUAL, (index, 0)),)
        after.append(Task(f"gates/{factor.name}", GATES_KIND, arguments, follow, writes, -1))
    for task in inverse_diagonal_tasks(grid.blocks, factor.inverse, done, f"inverse/{factor.name}"):
        after.append(dataclasses.replace(task, deps=follow))
    # Priorities of a factorisation lie within ±(blocks + 1)²; one ridge comes after the other.
    offset = 4 * index * (grid.blocks + 1) ** 2
    return [dataclasses.replace(task, priority=task.priority + offset) for task in (*tiles, *after)]


def _dense_tasks(session: Session, problem: Regression, choice: Choice) -> list[Task]:
    """The one task of a ridge, all of it again if anything is missing: its parts are made of the same matrix."""
    factor, grid = choice.factor, session.grid
    index = factor.index
    writes: list[Chunk] = [(ALPHA, (index, 0, 0))]
    if factor.dtype == "float64":
        writes.append((RESIDUAL, (index, 0)))
    if session.config.solve.keep_factor:
        writes += ((factor.array, key) for key in grid.upper())
    writes += ((factor.inverse, (block,)) for block in range(grid.blocks))
    frobenius = problem.norms.shifted(problem.shifts[index]).frobenius
    arguments = (factor.array, frobenius, choice.note)
    return [Task(f"dense-solve/{factor.name}", DENSE_KIND, arguments, (), tuple(writes), index)]


def _last(tasks: Sequence[Task]) -> tuple[str, ...]:
    """Keys of the tasks for which none of the others waits: when they are done, all are."""
    awaited = {dep for task in tasks for dep in task.deps}
    return tuple(task.key for task in tasks if task.key not in awaited)


def _complete(session: Session, factor: Factor) -> bool:
    """Whether everything that needs the factor of a ridge is recorded."""
    solved = session.journal.latest(ALPHA, (factor.index, 0, 0)) is not None
    if factor.dtype == "float64":
        solved = solved and session.journal.latest(RESIDUAL, (factor.index, 0)) is not None
    if session.config.solve.keep_factor:
        solved = solved and len(session.journal.records(factor.array)) == session.grid.count
    return solved and len(session.journal.records(factor.inverse)) == session.grid.blocks


def _drop_factors(session: Session, choices: list[Choice]) -> None:
    for choice in choices:
        if session.store.exists(choice.factor.array) and _complete(session, choice.factor):
            factor = choice.factor
            kept = session.config.solve.keep_factor
            for array in (factor.forward,) if kept else (factor.array, factor.forward):
                if session.store.exists(array):
                    session.remove(array)


def _inverse_diagonal(session: Session, factor: Factor) -> np.ndarray:
    blocks = range(session.grid.blocks)
    return np.concatenate([session.store.read(factor.inverse, (block,)) for block in blocks])


def _inverse_error(session: Session, factor: Factor) -> float:
    """Largest relative error of the inverse's diagonal on the rows where it is known better; 0 if on none."""
    known = session.journal.records(ALPHA)[factor.index, 0, 0].note.get("inverse_diagonal")
    if known is None:
        return 0.0
    values = np.array(known["values"])
    return float(np.max(np.abs(_inverse_diagonal(session, factor)[known["rows"]] - values) / values))


def _solved(session: Session, problem: Regression, choice: Choice) -> Solved:
    """The figures of one ridge. With A⁻¹ = (K + λI)⁻¹ and c outputs, log p(Y) = −½ (Σ Yᵀα + c log det A + c n log 2π)
    (Rasmussen & Williams 2006, eq. 2.30) and the effective degrees of freedom are n − λ tr A⁻¹."""
    factor, y = choice.factor, session.targets
    n, outputs = y.shape
    alpha = session.store.read(ALPHA, (factor.index, 0, 0))[0]
    inverse = _inverse_diagonal(session, factor)
    note = session.journal.records(ALPHA)[factor.index, 0, 0].note
    trace = math.fsum(inverse)
    shift, total = problem.shifts[factor.index], n * problem.norms.mean_diagonal
    # Where λ is large, n − λ tr A⁻¹ is rounding; by Jensen's inequality and 1 / (κ + λ) ≤ 1 / λ it lies between these.
    least = total / (problem.norms.frobenius**2 / total + shift)
    most = min(n, total / shift) if shift > 0 else n
    figures: dict[str, Any] = {
        "factor": note["factor"],
        "log_determinant": note["log_determinant"],
        "log_marginal_likelihood": -0.5
        * (float(np.vdot(y, alpha)) + outputs * (note["log_determinant"] + n * math.log(2 * math.pi))),
        "degrees_of_freedom": min(max(n - shift * trace, least), most),
        # ‖Y − KA‖² / (n c) over (tr(I − H) / n)²; λ cancels, so that it holds for λ = 0 too (Golub, Heath, Wahba 1979).
        "gcv_rmse": float(np.linalg.norm(alpha)) / math.sqrt(n * outputs) / (trace / n),
    }
    figures |= {
        name: note[name] for name in ("refinement", "fallback", "log_determinant_error") if name in note
    }
    if factor.dtype == "float32":
        figures["inverse_diagonal_error"] = _inverse_error(session, factor)
    gates = note.get("gates") or session.journal.records(RESIDUAL)[factor.index, 0].note["gates"]
    return Solved(gates, figures, scores.leave_one_out(y, alpha, inverse))


def _explain(session: Session, factor: Factor, reason: str, problem: Regression) -> GateError:
    """The failure of a factorisation in full: which pivot, how indefinite, which ridge would do."""
    pivot, value = re.fullmatch(r"pivot (\d+) is (\S+)", reason).groups()  # type: ignore[union-attr]
    shift, ridge = problem.shifts[factor.index], problem.ridges[factor.index]
    kernel, grid = problem.kernel, problem.grid
    blocks = [grid.rows(block) for block in range(grid.blocks)]

    def product(vector: np.ndarray) -> np.ndarray:
        tiles = ((key, session.store.view(gram_array(kernel), key)) for key in grid.upper())
        return symmetric_product(tiles, blocks, vector)

    known = advice(problem, product, session.spec.precision)
    return GateError(
        f"solve: K + λI with ridge {ridge:g} (λ = {shift:.3g}) is not positive definite: pivot {pivot} of {grid.n} is "
        f"{float(value):.3g}; {known.smallest}",
        hint=f"a ridge of {ridge_of(problem, known.sufficient)} or more would do; look for repeated rows",
    )
