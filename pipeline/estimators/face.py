"""The estimators: parameters, checks and encodings of scikit-learn around a fit in memory or in a run directory."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from pipeline.data_targets import centred_one_hot
from pipeline.errors import InputError
from pipeline.estimators.in_directory import fit_in_directory
from pipeline.estimators.in_memory import fit_in_memory
from pipeline.estimators.problem import SMALLER, Problem, check, input_shape


def _finite(values: np.ndarray, what: str) -> np.ndarray:
    """These values of the rows of X, unless some overflowed."""
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise InputError(
            f"X: the {what} are not finite for {len(bad)} of {len(values)} rows, the first of them row {bad[0]}: "
            "their kernels overflow",
            hint=SMALLER,
        )
    return values


class _KernelEstimator(BaseEstimator, ABC):
    """What all three share; `_mode` names the kernels, see `pipeline.estimators.problem.NEEDS`."""

    architecture: Any
    ridge: float
    shape: tuple[int, ...] | None
    precision: str
    run_dir: Any
    cluster: str
    _variances = False

    @property
    @abstractmethod
    def _mode(self) -> str: ...

    def _solve(self, x: np.ndarray, y: np.ndarray, targets: np.ndarray, task: str) -> Any:
        check(self.ridge, self._mode, self.precision)
        problem = Problem(
            self._shaped(x),
            y,
            targets,
            task,
            self.architecture,
            self._mode,
            float(self.ridge),
            self.precision,
            self._variances,
        )
        self.fit_ = (
            fit_in_memory(problem)
            if self.run_dir is None
            else fit_in_directory(problem, self.run_dir, self.cluster)
        )
        self.dual_coef_ = self.fit_.alpha
        return self

    def _new_rows(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        rows: Any = validate_data(self, X, dtype=np.float64, reset=False)
        return self._shaped(rows)

    def _shaped(self, x: np.ndarray) -> np.ndarray:
        return x if self.shape is None else x.reshape(len(x), *input_shape(self.shape, x.shape[1]))

    def _outputs(self, rows: np.ndarray) -> np.ndarray:
        return _finite(self.fit_.predict(rows), "outputs")


class _RidgeEstimator(_KernelEstimator):
    """The parameters of regressor and classifier, and the kernel that they name."""

    def __init__(
        self,
        architecture: Any = None,
        *,
        kernel: str = "ntk",
        ridge: float = 1e-3,
        shape: tuple[int, ...] | None = None,
        precision: str = "float64",
        run_dir: Any = None,
        cluster: str = "local",
    ) -> None:
        self.architecture = architecture
        self.kernel = kernel
        self.ridge = ridge
        self.shape = shape
        self.precision = precision
        self.run_dir = run_dir
        self.cluster = cluster

    @property
    def _mode(self) -> str:
        if self.kernel not in ("ntk", "nngp"):
            raise InputError(f"kernel must be ntk or nngp, got {self.kernel!r}")
        return self.kernel


class NTKRegressor(RegressorMixin, _RidgeEstimator):
    """Kernel ridge regression with the kernel of an infinitely wide network: f(x) = K(x, X) (K + λI)⁻¹ y.

    Nothing is centred or scaled; put a StandardScaler before it where features differ in size.

    Args:
        architecture: a `ntk.stax` layer, or its specification as in run.yaml; None for one hidden layer of rectifiers.
        kernel: `ntk` (a network trained to convergence) or `nngp` (its last layer alone).
        ridge: λ relative to the mean diagonal of K.
        shape: shape of one input for the network, (8, 8, 1) for images; X stays flat, (rows, features).
        precision: `float64` or `float32`, of the kernel.
        run_dir: None computes in memory. A folder: by the stages of a run, tiles on disk, below it in a folder named by
            the inputs; fitting again with another ridge or after an interruption reuses what is there.
        cluster: workers of a fit in `run_dir`, a name in cluster.yaml.

    Attributes:
        dual_coef_: (K + λI)⁻¹ y, (rows, outputs).
    """

    def fit(self, X: Any, y: Any) -> NTKRegressor:
        """X: (rows, features). y: (rows,) or (rows, outputs)."""
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True, multi_output=True, copy=True)
        y = np.array(y, np.float64)
        self._flat = y.ndim == 1
        targets = y.reshape(len(y), -1)
        return self._solve(X, targets, targets, "regression")

    def predict(self, X: Any) -> np.ndarray:
        """Outputs in the shape of y: (rows,) or (rows, outputs). Raises InputError for rows whose kernels overflow."""
        rows = self._new_rows(X)
        return self._as_given(self._outputs(rows))

    def _as_given(self, outputs: np.ndarray) -> np.ndarray:
        return outputs[:, 0] if self._flat else outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class NTKClassifier(ClassifierMixin, _RidgeEstimator):
    """Classification by kernel ridge regression on centred one-hot targets; parameters as in `NTKRegressor`.

    Attributes:
        classes_: labels, sorted.
        dual_coef_: (K + λI)⁻¹ Y, (rows, classes).
    """

    def fit(self, X: Any, y: Any) -> NTKClassifier:
        """X: (rows, features). y: labels (rows,)."""
        X, y = validate_data(self, X, y, dtype=np.float64, copy=True)
        check_classification_targets(y)
        self.classes_, codes = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        return self._solve(X, codes, centred_one_hot(codes, np.arange(len(self.classes_))), "classification")

    def decision_function(self, X: Any) -> np.ndarray:
        """The outputs of the classes (rows, classes); with two classes, by how much the second leads (rows,)."""
        rows = self._new_rows(X)
        outputs = self._outputs(rows)
        return outputs[:, 1] - outputs[:, 0] if len(self.classes_) == 2 else outputs

    def predict(self, X: Any) -> np.ndarray:
        """The class of the largest output, (rows,)."""
        rows = self._new_rows(X)
        return self.classes_[self._outputs(rows).argmax(axis=1)]


class NTKGaussianProcess(NTKRegressor):
    """A Gaussian distribution of functions: mean and standard deviation of what wide networks predict.

    Args:
        posterior: `nngp`, the posterior of a Bayesian network; `ensemble`, networks trained to convergence from random
            starts (Lee et al. 2019, eq. 16); `ntkgp`, the posterior of a process with the NTK as covariance.
        ridge: the variance of observation noise, relative to the mean diagonal of the kernel.
        architecture, shape, precision, run_dir, cluster: as in `NTKRegressor`.
    """

    _variances = True

    def __init__(
        self,
        architecture: Any = None,
        *,
        posterior: str = "nngp",
        ridge: float = 1e-3,
        shape: tuple[int, ...] | None = None,
        precision: str = "float64",
        run_dir: Any = None,
        cluster: str = "local",
    ) -> None:
        self.architecture = architecture
        self.posterior = posterior
        self.ridge = ridge
        self.shape = shape
        self.precision = precision
        self.run_dir = run_dir
        self.cluster = cluster

    @property
    def _mode(self) -> str:
        if self.posterior not in ("nngp", "ensemble", "ntkgp"):
            raise InputError(f"posterior must be nngp, ensemble or ntkgp, got {self.posterior!r}")
        return self.posterior

    def predict(self, X: Any, return_std: bool = False, return_cov: bool = False) -> Any:
        """The mean, in the shape of y; with `return_std` also standard deviations, one for each row (rows,), the same
        for every output; with `return_cov` the covariance (rows, rows). Of the function, without observation noise.

        Raises:
            InputError: both are asked for, or rows so large that their kernels overflow.
            GateError: a run directory whose covariance does not converge (see `DirectoryFit.covariance`).
        """
        if return_std and return_cov:
            raise InputError("ask for return_std or return_cov, not both")
        rows = self._new_rows(X)
        mean = self._as_given(self._outputs(rows))
        if not (return_std or return_cov):
            return mean
        covariance = _finite(self.fit_.covariance(rows), "variances")
        # A variance of zero may come out below it by rounding.
        return mean, covariance if return_cov else np.sqrt(np.maximum(np.diag(covariance), 0.0))

    def log_marginal_likelihood(self) -> float:
        """log p(y), summed over outputs, of the process that `nngp` and `ntkgp` are posteriors of (Rasmussen & Williams
        2006, eq. 2.30)."""
        check_is_fitted(self)
        targets = self.fit_.problem.targets
        n, outputs = targets.shape
        explained = float(np.vdot(targets, self.dual_coef_))
        return -0.5 * (explained + outputs * (self.fit_.log_determinant() + n * math.log(2 * math.pi)))
