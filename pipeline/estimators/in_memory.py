"""Fitting in memory: everything a few thousand rows need, in this process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.linalg import LinAlgError

from ntk.predict.axes import Targets
from ntk.predict.posterior import ensemble_covariance
from ntk.predict.training import TrainingKernel
from pipeline.config.cluster import SerialCluster
from pipeline.config.sizes import human_bytes
from pipeline.errors import GateError, InputError
from pipeline.estimators.problem import SMALLER, Problem
from pipeline.plan.memory_solve import dense_regression
from pipeline.plan.resources import resolve


@dataclass(frozen=True, eq=False)
class MemoryFit:
    """A solved problem.

    Attributes:
        alpha: (K + λI)⁻¹ Y, (n, outputs).
        train: K + λI, with its factor. initial: the NNGP of the training rows for the ensemble, else None.
    """

    problem: Problem
    alpha: np.ndarray
    train: TrainingKernel
    initial: np.ndarray | None

    def predict(self, x: np.ndarray) -> np.ndarray:
        """K(x, X) A, (m, outputs)."""
        kernel = self.problem.kernel
        return self.problem.kernels_of(x, self.problem.x, (kernel,))[kernel] @ self.alpha

    def covariance(self, x: np.ndarray) -> np.ndarray:
        """Of the outputs at x, (m, m); see `ntk.predict.gp_inference`."""
        problem = self.problem
        cross = problem.kernels_of(x, problem.x, problem.get)
        if self.initial is None:
            prior = problem.kernels_of(x, None, (problem.kernel,))[problem.kernel]
            half = self.train.half_solve(cross[problem.kernel].T)
            return prior - half.T @ half
        weights = self.train.solve(cross["ntk"].T).T
        prior = problem.kernels_of(x, None, ("nngp",))["nngp"]
        return ensemble_covariance(weights, cross["nngp"], prior, weights @ self.initial)

    def log_determinant(self) -> float:
        """log det(K + λI)."""
        return 2 * float(np.log(np.diag(self.train.factor)).sum())


def fit_in_memory(problem: Problem) -> MemoryFit:
    """Solve a problem here and now.

    Raises:
        InputError: it needs more memory than there is, or the network cannot take the inputs.
        GateError: the kernel overflows, or K + λI is not positive definite.
    """
    need, limit = (
        dense_regression(len(problem.x), len(problem.get)),
        resolve(SerialCluster(kind="serial")).memory,
    )
    if need.total > limit:
        raise InputError(
            f"{len(problem.x):,} rows need {human_bytes(need.total)} of memory ({need}), "
            f"{human_bytes(limit)} may be used",
            hint="give run_dir: the matrices are then kept on disk, in tiles",
        )
    found = problem.kernels_of(problem.x, None, problem.get)
    for name, matrix in found.items():
        if not np.isfinite(matrix).all():
            row, column = np.argwhere(~np.isfinite(matrix))[0]
            raise GateError(
                f"the {name} of the training rows overflows: K[{row}, {column}] = {matrix[row, column]}",
                hint=SMALLER,
            )
    targets = Targets.of(problem.targets, -1)
    train = TrainingKernel(found[problem.kernel], targets, problem.ridge, False, problem.kernel, "ridge")
    try:
        alpha = train.solve(problem.targets)
    except LinAlgError as error:
        message, _, hint = str(error).partition("\nhint: ")
        raise GateError(message, hint=hint) from None
    return MemoryFit(problem, alpha, train, found["nngp"] if problem.mode == "ensemble" else None)
