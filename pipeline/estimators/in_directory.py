"""Fitting in a run directory, by the stages of a run: tiles on disk, workers, and resuming."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ntk.linalg.matrix_functions import gradient_flow
from pipeline.config.load import load_cluster, validate
from pipeline.config.model import RunConfig
from pipeline.errors import GateError, InputError
from pipeline.estimators.problem import Problem
from pipeline.stages.depends import fingerprint
from pipeline.stages.inputs import store_inputs
from pipeline.stages.opening import open_prepared
from pipeline.stages.operator import stored_operator
from pipeline.stages.order import run_stages
from pipeline.stages.predict import stream
from pipeline.stages.prepare import prepare
from pipeline.stages.regression import ALPHA
from pipeline.stages.session import Session
from pipeline.stages.solve import problem_of
from pipeline.stages.solve_cholesky import kept_solve
from pipeline.store.digest import digest
from pipeline.store.files import replace_file
from pipeline.store.place import place

RUN, INPUTS = "run", "inputs"
OWN_ALPHA, OWN_PREDICTIONS = "solution/estimator", "predictions/estimator"
"""Arrays of one call of `predict`: (1, n, outputs) and (1, m, outputs). A call that is repeated goes on from them."""
COVARIANCE_TOLERANCE = 1e-6
"""Relative, of the weights a covariance is computed from."""
COVARIANCE_PRODUCTS = 1000


@dataclass(frozen=True, eq=False)
class DirectoryFit:
    """A solved problem in `folder`: inputs as .npy files, and the run that solved it.

    Attributes:
        alpha: (K + λI)⁻¹ Y, (n, outputs).
        figures: what the solve stage found for this ridge, and by which method.
    """

    problem: Problem
    folder: Path
    cluster: str
    alpha: np.ndarray
    figures: dict[str, Any]

    def predict(self, x: np.ndarray) -> np.ndarray:
        """K(x, X) A, (m, outputs), by the tasks of the predict stage on this A, whatever else was solved in the folder
        since."""
        with _session(self.problem, self.folder, self.cluster, x_test=x) as (session, _):
            kernel, prints = self.problem.kernel, session.inputs.fingerprints
            mark = fingerprint({"kernel": kernel, "x": prints["x_test"], "alpha": digest(self.alpha)})
            store_inputs(session)
            session.create(OWN_ALPHA, (1, *self.alpha.shape), (1, *self.alpha.shape), fingerprint=mark)
            if not session.journal.records(OWN_ALPHA):
                session.put(OWN_ALPHA, (0, 0, 0), self.alpha[None])
            stream(session, ((OWN_ALPHA, 1),), OWN_PREDICTIONS, mark)
            predictions = session.store.read_all(OWN_PREDICTIONS)[0]
            for array in (OWN_ALPHA, OWN_PREDICTIONS):
                session.remove(array)
            return predictions

    def covariance(self, x: np.ndarray) -> np.ndarray:
        """Of the outputs at x, (m, m); see `ntk.predict.gp_inference`. By the Cholesky factor where there is one, in
        two passes over it; else the stored tiles are read once per Krylov step. Where the folder has solved for others
        since, it solves again.

        Raises:
            GateError: the steps allowed do not reach the accuracy promised.
        """
        problem = self.problem
        cross = problem.kernels_of(x, problem.x, problem.get)
        prior_name = "nngp" if problem.mode == "ensemble" else problem.kernel
        prior = problem.kernels_of(x, None, (prior_name,))[prior_name]
        with _session(problem, self.folder, self.cluster) as (session, run):
            shift = problem.ridge * run("gram")["gram"][problem.kernel]["mean_diagonal"]
            run("solve")
            weights = kept_solve(session, problem_of(session), 0, cross[problem.kernel].T)
            if weights is None:
                weights = _by_krylov(session, problem.kernel, shift, cross[problem.kernel].T)
            if problem.mode == "ensemble":
                own = weights.T @ stored_operator(session, "nngp", "gram").matvec(weights)
                mixed = weights.T @ cross["nngp"].T
                return prior + (own + own.T) / 2 - (mixed + mixed.T)
            explained = cross[problem.kernel] @ weights
            return prior - (explained + explained.T) / 2

    def log_determinant(self) -> float:
        """log det(K + λI).

        Raises:
            InputError: it was solved by a method that does not know it.
        """
        if "log_determinant" not in self.figures:
            raise InputError(
                f"{self.folder / RUN}: solved by {self.figures['method']}, which gives no determinant of the matrix",
                hint="a cluster with more memory solves by cholesky, and so does a fit without run_dir",
            )
        return self.figures["log_determinant"]


def _by_krylov(session: Session, kernel: str, shift: float, rhs: np.ndarray) -> np.ndarray:
    """(K + λI)⁻¹ B from products with the stored matrix, for B of shape (n, m)."""
    operator = stored_operator(session, kernel, "gram")
    n, columns = rhs.shape
    weights = np.empty((n, columns))
    # The Krylov bases of a few rows at a time, in a quarter of what one worker may use.
    row_bytes = 8 * n * min(COVARIANCE_PRODUCTS, n)
    batch = max(1, session.resources.memory // 4 // row_bytes)
    for start in range(0, columns, batch):
        here = slice(start, start + batch)
        flow = gradient_flow(
            lambda v: operator.matvec(v) + shift * v,
            rhs[:, here],
            [np.inf],
            lower=shift,
            tolerance=COVARIANCE_TOLERANCE,
            max_products=COVARIANCE_PRODUCTS,
        )
        if not flow.converged:
            raise GateError(
                f"covariance: after {flow.products} products with the matrix the error is still up to "
                f"{float(flow.bounds.max()):.2g}",
                hint="a larger ridge needs fewer; in memory the covariance is computed directly",
            )
        weights[:, here] = flow.coefficients[0]
    return weights


def fit_in_directory(problem: Problem, run_dir: Path | str, cluster: str) -> DirectoryFit:
    """Solve a problem by the gram and solve stages, in a folder of its own below `run_dir`.

    The folder is named by inputs, network and precision: fitting again with another ridge or other targets reuses the
    tiles, and so does fitting after an interruption.

    Raises:
        InputError, GateError, TasksFailed, Stopped: see the stages.
    """
    where = place(run_dir)
    if not isinstance(where, Path):
        raise InputError(
            f"run_dir: {where}: an estimator keeps its inputs beside its run, which takes a directory",
            hint="give a directory, or use `ntk run` with `out: s3://…`",
        )
    folder = where.resolve() / problem.identity
    with _session(problem, folder, cluster) as (session, run):
        run("gram")
        solved = run("solve")["solve"]
        alpha = session.store.read_all(ALPHA)[0]
    return DirectoryFit(problem, folder, cluster, alpha, {"method": solved["method"]} | solved["ridges"][0])


def _kept(folder: Path, name: str, values: np.ndarray) -> Path:
    """The file of these values, named by them, for who opens the run; what runs here takes them from memory."""
    path = folder / INPUTS / f"{name}-{digest(values)[:16]}.npy"
    if not path.exists():
        content = io.BytesIO()
        np.save(content, values)
        replace_file(path, content.getbuffer())
    return path


@contextlib.contextmanager
def _session(
    problem: Problem, folder: Path, cluster: str, *, x_test: np.ndarray | None = None
) -> Iterator[tuple[Session, Callable[[str], dict[str, Any]]]]:
    """The run opened for work, and a function that runs one of its stages and returns all metrics."""
    x, y = _kept(folder, "x", problem.x), _kept(folder, "y", problem.y)
    document: dict[str, Any] = {
        "data": {
            "train": {"x": str(x), "y": str(y)},
            "task": problem.task,
            "normalize": "none",
        },
        "kernel": problem.document | {"architecture": json.loads(problem.spec.architecture)},
        "solve": {"ridge": problem.ridge, "kernel": problem.kernel, "keep_factor": problem.variances},
        "spectrum": {"method": "none"},
        "cluster": cluster,
        "out": str(folder / RUN),
    }
    config = validate(RunConfig, document, "estimator")
    ready = prepare(config, load_cluster(cluster, folder), inputs=problem.inputs(x_test), folder=folder)
    with open_prepared(ready, folder=folder) as session:
        yield session, lambda stage: run_stages(session, ready.plan, only=stage)
