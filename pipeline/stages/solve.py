"""The solve stage: kernel regression (K + λI) A = Y for every ridge, by the method that was asked for.

A method (`solve_cholesky`, `solve_cg`) stores A and hands back its residuals; here they are held against their gates,
the ridges are scored by leave-one-out error or by what the method knows instead, and one is chosen.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ntk.linalg.operator import Norms
from pipeline.errors import GateError
from pipeline.plan.iterative import choose
from pipeline.stages import scores, solve_askotch, solve_cg, solve_cholesky
from pipeline.stages.inputs import store_inputs
from pipeline.stages.operator import computed_operator
from pipeline.stages.regression import ALPHA, Regression, Solved
from pipeline.stages.session import Session


def run(session: Session) -> dict[str, Any]:
    """Solve for every ridge and choose one; returns the metrics.

    Raises:
        GateError: the matrix is zero, the method could not solve (see there), or a residual is too large.
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    finished = session.finished("solve")
    if finished is not None:
        return finished
    store_inputs(session)
    problem = problem_of(session)
    outputs = session.inputs.outputs
    session.create(
        ALPHA, (len(problem.ridges), problem.grid.n, outputs), (1, problem.grid.n, outputs),
        fingerprint=session.fingerprint("solve"),
    )  # fmt: skip
    choice = choose(
        session.config.solve,
        session.grid.n,
        outputs,
        np.dtype(session.spec.precision).itemsize,
        session.resources,
    )
    solve = {
        "cholesky": solve_cholesky.solve, "cg": solve_cg.solve, "askotch": solve_askotch.solve
    }[choice.method]  # fmt: skip
    return session.finish("solve", _close(session, problem, choice.method, solve(session, problem)))


def problem_of(session: Session) -> Regression:
    """What is solved in a run whose Gram stage is done.

    Raises:
        GateError: the mean of the diagonal is not positive.
    """
    kernel, grid = session.config.solve_kernel, session.grid
    if session.config.stores_gram:
        gram = session.require("gram")[kernel]
    else:
        trace = math.fsum(computed_operator(session, kernel, "solve").diagonal())
        gram = {"mean_diagonal": trace / grid.n, "trace": trace, "frobenius_norm": math.nan}
    if not gram["mean_diagonal"] > 0:
        raise GateError(
            f"solve: the mean of the diagonal of the {kernel} matrix is {gram['mean_diagonal']:.3g}: that of a kernel "
            "is positive, and of zeros there is nothing to regress with",
            hint="look at the inputs and at the weight variances of the architecture",
        )
    norms = Norms(grid.n, gram["trace"], gram["frobenius_norm"], gram["frobenius_norm"])
    return Regression(kernel, grid, session.config.solve.ridge, norms)


def _close(session: Session, problem: Regression, method: str, solved: list[Solved]) -> dict[str, Any]:
    task, y = session.config.data.task, session.targets
    ridges: list[dict[str, Any]] = []
    for ridge, shift, found in zip(problem.ridges, problem.shifts, solved, strict=True):
        entry = {"ridge": ridge, "lambda": shift} | found.figures | {"gates": found.gates}
        if found.left_out is not None:
            figures = scores.score(y, found.left_out, task)
            entry |= {f"loo_{name}": value for name, value in figures.items()}
        ridges.append(entry)
    session.require_gates("solve", {f"ridge {entry['ridge']:g}": entry["gates"] for entry in ridges})
    return {"kernel": problem.kernel, "method": method, "ridges": ridges, "chosen": _chosen(ridges)}


def _chosen(ridges: list[dict[str, Any]]) -> dict[str, Any]:
    """The ridge of the smallest error: leave-one-out where it is known, else generalised cross-validation."""
    for by in ("loo", "gcv"):
        name = f"{by}_rmse"
        if all(name in entry for entry in ridges):
            best = min(ridges, key=lambda entry: (entry[name], -entry["ridge"]))
            return {"ridge": best["ridge"], "by": by}
    return {"ridge": ridges[0]["ridge"], "by": "only"}
