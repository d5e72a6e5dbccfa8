"""Gradient flow on the mean squared error in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ntk.arrays import real, within
from ntk.linalg.matrix_functions import relaxation
from ntk.predict.axes import Targets, floating, library, matrix, one_kernel, returned, wide
from ntk.predict.resolved import resolved
from ntk.predict.training import TrainingKernel
from ntk.tracing import concrete


def gradient_descent_mse(
    k_train_train: Any,
    y_train: Any,
    learning_rate: float = 1.0,
    diag_reg: float = 0.0,
    diag_reg_absolute_scale: bool = False,
    trace_axes: int | Sequence[int] = (-1,),
) -> Callable[..., Any]:
    """Outputs of a network, linear in its weights, that starts from given outputs and follows gradient flow.

    With Θ = k_train_train + λI and τ = η t / y.size (Lee et al. 2019, eq. 9–11):

        f_t(X) = f_0(X) + (e^{−Θτ} − I) (f_0(X) − y)
        f_t(x) = f_0(x) + Θ(x, X) Θ⁻¹ (e^{−Θτ} − I) (f_0(X) − y)

    Args:
        k_train_train: Θ, axes in pairs, without `trace_axes`.
        y_train: targets (n, \\*outputs).
        learning_rate: η; only η t matters.
        diag_reg, diag_reg_absolute_scale, trace_axes: see `ntk.predict`.

    Returns:
        ``predict_fn(t=None, fx_train_0=0., fx_test_0=None, k_test_train=None)``: outputs on the training rows, then on
        the test rows if `fx_test_0` is given, with the axes of t first; `fx_train_0=None` leaves the training rows out
        (they start from zero then). Starting outputs are broadcast. t: an array of times, or None for infinite time,
        which gives the targets themselves on the training rows and needs Θ⁻¹ for test rows. For regularised training
        outputs pass the training rows as test rows.

    Raises:
        ValueError: kernels or targets of wrong shapes, not finite or not symmetric; no times, or some below zero;
            nothing asked; complex numbers, masked entries and what else is no array of real numbers.
        numpy.linalg.LinAlgError: Θ is indefinite, or singular for infinite time, or times are so long that its rounding
            errors decide outputs on test rows.
    """
    y, k_train_train = finite(y_train, "y_train"), one_kernel(k_train_train, "k_train_train")
    targets = Targets.of(y, trace_axes)
    train = TrainingKernel(k_train_train, targets, diag_reg, diag_reg_absolute_scale, "kernel")

    def predict_fn(
        t: Any = None, fx_train_0: Any = 0.0, fx_test_0: Any = None, k_test_train: Any = None
    ) -> Any:
        check_asked(fx_train_0, fx_test_0, k_test_train)
        start = 0.0 if fx_train_0 is None else starting(fx_train_0, "fx_train_0", targets.shape)
        missing = targets.columns(library(start).broadcast_to(y - start, y.shape))
        moved = _Moved(
            targets, train, missing, None if t is None else flow_times(t, learning_rate, targets.size)
        )
        found = []
        if fx_train_0 is not None:
            found.append(moved.train(y, start))
        if fx_test_0 is not None:
            found.append(moved.test(wide(one_kernel(k_test_train, "k_test_train")), fx_test_0))
        out = [returned(f, floating(k_train_train)) for f in found]
        return tuple(out) if len(out) > 1 else out[0]

    return predict_fn


class _Moved:
    """How far outputs have moved: `missing` is y − f_0(X) in columns, `times` τ, None for infinity."""

    def __init__(self, targets: Targets, train: TrainingKernel, missing: Any, times: Any) -> None:
        self.targets, self.train_kernel, self.missing, self.times = targets, train, missing, times
        if times is not None:
            check_reachable(train, times)

    def train(self, y: Any, start: Any) -> Any:
        if self.times is None:
            return y
        values, vectors = self.train_kernel.eigenpairs
        xp = library(self.times, self.missing)
        gone = -xp.expm1(-values * self.times.reshape(-1, 1))
        return start + self._outputs(vectors, gone, self.train_kernel.rows, bounded=True)

    def test(self, k_test_train: Any, start: Any) -> Any:
        rows, cross = k_test_train.shape[::2], matrix(k_test_train)
        check_cross(cross, self.train_kernel)
        start = starting(start, "fx_test_0", self.targets.output_shape(rows))
        if self.times is None:
            return start + self.targets.outputs(cross @ self.train_kernel.solve(self.missing), rows)
        values, vectors = self.train_kernel.eigenpairs
        weights = relaxation(values, self.times.reshape(-1, 1))
        return start + self._outputs(cross @ vectors, weights, rows)

    def _outputs(self, left: Any, weights: Any, rows: tuple[int, ...], *, bounded: bool = False) -> Any:
        """left · diag(weights[t]) · Vᵀ · missing for every time; `bounded`: weights are at most one."""
        xp = library(left, weights, self.missing)
        modes = self.train_kernel.eigenpairs.vectors.T @ self.missing
        size = xp.max(xp.abs(self.missing), axis=0)
        columns = []
        for w in weights:
            alpha = w[:, None] * modes
            found = left @ alpha
            columns.append(found if bounded else resolved(found, left * w, alpha, self.train_kernel, size))
        columns = xp.stack(columns)
        outputs = self.targets.outputs(columns, rows)
        return outputs.reshape(*self.times.shape, *outputs.shape[1:])


def flow_times(t: Any, learning_rate: float, size: int) -> Any:
    """τ = η t / y.size. Raises ValueError as `asked_times` and `check_learning_rate` do."""
    check_learning_rate(learning_rate)
    return asked_times(t) * (learning_rate / size)


def asked_times(t: Any) -> Any:
    """t as an array. Raises ValueError for none at all, and for times that are NaN or below zero."""
    times = wide(t, "t")
    if not times.size:
        raise ValueError(f"t must be a time or several, got an empty array of shape {times.shape}")
    if library(times) is np and not (times >= 0).all():
        raise ValueError(f"times must be at least 0, got {t}")
    return times


def check_learning_rate(learning_rate: Any) -> None:
    """Raise ValueError unless it is a positive finite number."""
    if not within(0, learning_rate, np.inf) or learning_rate == 0:
        raise ValueError(f"learning_rate must be positive and finite, got {learning_rate!r}")


def starting(start: Any, name: str, shape: tuple[int, ...]) -> Any:
    """Starting outputs as an array. Raises ValueError unless they can be broadcast to `shape`."""
    start = wide(start, name)
    try:
        fits = np.broadcast_shapes(start.shape, shape) == tuple(shape)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name} must be a number or of shape {tuple(shape)}, got {start.shape}")
    return start


def check_reachable(train: TrainingKernel, times: Any) -> None:
    """Infinite times among finite ones need a positive definite kernel."""
    if library(times) is np and np.isinf(times).any():
        train.check_invertible()


def check_cross(cross: Any, train: TrainingKernel) -> None:
    """Raise ValueError for a test-train kernel that does not fit the training rows or is not finite."""
    if cross.shape[1] != len(train.matrix):
        raise ValueError(
            f"k_test_train has {cross.shape[1]} columns, the training rows are {len(train.matrix)}"
        )
    if library(cross) is np and not np.isfinite(cross).all():
        raise ValueError("k_test_train is not finite")


def check_asked(fx_train_0: Any, fx_test_0: Any, k_test_train: Any) -> None:
    """Raise ValueError when nothing is asked, or test outputs without a test kernel."""
    if fx_train_0 is None and fx_test_0 is None:
        raise ValueError("fx_train_0 and fx_test_0 are both None: nothing to predict")
    if fx_test_0 is not None and k_test_train is None:
        raise ValueError("outputs on test rows (fx_test_0) need k_test_train")


def finite(y: Any, name: str) -> np.ndarray:
    """Targets as float64; raises ValueError when they are not finite."""
    array = np.asarray(real(concrete(y, name), name), np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} is not finite")
    return array
