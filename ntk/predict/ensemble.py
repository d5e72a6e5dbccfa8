"""The distribution over initialisations of infinitely wide networks trained by gradient flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import numpy as np

from ntk.analytic.results import NAMES
from ntk.arrays import function
from ntk.linalg.matrix_functions import relaxation
from ntk.predict.axes import Targets, floating, library, matrix, returned, wide, zipped
from ntk.predict.mse import check_cross, check_reachable, finite, flow_times
from ntk.predict.posterior import Gaussian, asked_modes, ensemble_covariance, gaussians, gp_inference, named
from ntk.predict.resolved import resolved
from ntk.predict.training import TrainingKernel
from ntk.tracing import concrete


def gradient_descent_mse_ensemble(
    kernel_fn: Callable[..., Any],
    x_train: Any,
    y_train: Any,
    learning_rate: float = 1.0,
    diag_reg: float = 0.0,
    diag_reg_absolute_scale: bool = False,
    trace_axes: int | Sequence[int] = (-1,),
    **kernel_fn_train_train_kwargs: Any,
) -> Callable[..., Any]:
    """Mean and covariance at time t of an infinite ensemble of infinitely wide networks.

    With 𝒦 the NNGP, Θ the NTK, both regularised where they are inverted or exponentiated, τ = η t / y.size and
    A_t = Θ(x, X) Θ⁻¹ (I − e^{−Θτ}) (Lee et al. 2019, eq. 14–16):

        ntk    A_t y                                  𝒦(x, x') + A_t 𝒦 A_tᵀ − (A_t 𝒦(X, x') + transpose)
        nngp   𝒦(x, X) 𝒦⁻¹ (I − e^{−𝒦τ}) y            𝒦(x, x') − 𝒦(x, X) 𝒦⁻¹ (I − e^{−2𝒦τ}) 𝒦(X, x')

    ntk trains every weight; nngp the last layer alone, whose limit is the posterior of a Bayesian network. Between A_t
    and A_tᵀ stands 𝒦 as it is, the covariance of the outputs at the start.

    Args:
        kernel_fn: kernel_fn(x1, x2, get, \\*\\*kwargs), x2 None for x1 with itself, giving arrays or kernels by name.
        x_train, y_train: inputs (n, …) and targets (n, \\*outputs).
        learning_rate: η; only η t matters.
        diag_reg, diag_reg_absolute_scale, trace_axes: see `ntk.predict`.
        kernel_fn_train_train_kwargs: for every call of `kernel_fn`; a `predict_fn` may replace those that are arrays
            for its test rows (a tuple of two arrays is one for each side of a kernel).

    Returns:
        ``predict_fn(t=None, x_test=None, get=None, compute_cov=False, **kwargs)``: for `get` "nngp" or "ntk" the mean,
        or `Gaussian` with `compute_cov`; for a tuple, or None for both, a named tuple of these. The axes of t come
        first; t None is infinite time. x_test None predicts the training rows, at infinite time without regularisation;
        before, A_t = I − e^{−Θτ} and the covariance of nngp is 𝒦 e^{−2𝒦τ}, both regularised.

    Raises:
        ValueError: an unknown kernel in `get`, times below zero, kernels or targets that do not fit or are not finite.
        numpy.linalg.LinAlgError: Θ or 𝒦 is indefinite, or singular for infinite time, or times are so long that its
            rounding errors decide outputs on test rows.
    """
    function(kernel_fn, "kernel_fn", "that of a layer is layer.kernel_fn")
    y = finite(y_train, "y_train")
    targets = Targets.of(y, trace_axes)
    kwargs = kernel_fn_train_train_kwargs
    concrete((x_train, kwargs), "x_train and what else the kernel of the training rows depends on")

    @cache
    def raw(name: str) -> Any:
        # Kept from call to call, so known at once wherever the first of them is.
        with jax.ensure_compile_time_eval():
            return kernel_fn(x_train, None, name, **kwargs)

    @cache
    def train(name: str) -> TrainingKernel:
        return TrainingKernel(raw(name), targets, diag_reg, diag_reg_absolute_scale, name)

    @cache
    def modes(name: str) -> np.ndarray:
        return train(name).eigenpairs.vectors.T @ targets.columns(y)

    @cache
    def initial(name: str) -> np.ndarray:
        """The NNGP of the training rows in the eigenbasis of a kernel."""
        vectors = train(name).eigenpairs.vectors
        return vectors.T @ train("nngp").kernel @ vectors

    def on_training_rows(
        name: str, times: Any, compute_cov: bool
    ) -> tuple[list[Any], list[Any], tuple[int, ...]]:
        values, vectors = train(name).eigenpairs
        xp = library(times)
        left = xp.exp(-values * times.reshape(-1, 1))
        means = [vectors @ (-xp.expm1(-values * tau)[:, None] * modes(name)) for tau in times.ravel()]
        if not compute_cov:
            covariances = []
        elif name == "nngp":
            covariances = [(vectors * (values * decay**2)) @ vectors.T for decay in left]
        else:
            covariances = [vectors @ (decay[:, None] * initial(name) * decay) @ vectors.T for decay in left]
        return means, covariances, train(name).rows

    def on_test_rows(
        name: str, times: Any, kernels: dict[str, Any], prior: Any
    ) -> tuple[list[Any], list[Any], tuple[int, ...]]:
        values, vectors = train(name).eigenpairs
        rows, cross = kernels[name].shape[::2], matrix(wide(kernels[name]))
        check_cross(cross, train(name))
        seen = cross @ vectors
        each = times.reshape(-1, 1)
        size = np.abs(targets.columns(y)).max(axis=0)
        means = []
        for tau in each:
            decay = relaxation(values, tau)
            alpha = decay[:, None] * modes(name)
            means.append(resolved(seen @ alpha, seen * decay, alpha, train(name), size))
        if prior is None:
            return means, [], rows
        prior = matrix(wide(prior))
        variance = library(prior).max(library(prior).diagonal(prior))
        first = None if name == "nngp" else matrix(wide(kernels["nngp"])) @ vectors
        covariances = []
        for tau in each:
            decay = relaxation(values, 2 * tau if first is None else tau)
            weights = seen * decay
            if first is None:
                found, alpha = prior - weights @ seen.T, weights.T
            else:
                moved = weights @ initial(name)
                found = ensemble_covariance(weights, first, prior, moved)
                alpha = 2 * (decay * (moved - first)).T
            covariances.append(resolved(found, weights, alpha, train(name), variance))
        return means, covariances, rows

    def predict_fn(
        t: Any = None, x_test: Any = None, get: Any = None, compute_cov: bool = False, **test_kwargs: Any
    ) -> Any:
        names = asked_modes(get, NAMES)
        needed = tuple(name for name in NAMES if name in names or (name == "nngp" and compute_cov))
        prior, cross = None, {}
        if x_test is not None:
            mixed, own = _kwargs(kwargs, test_kwargs)
            both = kernel_fn(x_test, x_train, needed, **mixed)
            cross = {name: named(both, name, "kernel_fn") for name in needed}
            prior = kernel_fn(x_test, None, "nngp", **own) if compute_cov else None
        if t is None:
            infinite = gp_inference(
                _Kernels({name: raw(name) for name in needed}),
                y,
                diag_reg,
                diag_reg_absolute_scale,
                trace_axes,
            )
            at_train = compute_cov or None
            return infinite(get, *((None, at_train) if x_test is None else (_Kernels(cross), _prior(prior))))
        times = flow_times(t, learning_rate, targets.size)
        found = []
        for name in names:
            check_reachable(train(name), times)
            means, covariances, rows = (
                on_training_rows(name, times, compute_cov)
                if x_test is None
                else on_test_rows(name, times, cross, prior)
            )
            found.append(_gathered(means, covariances, times.shape, targets, rows, floating(raw(name))))
        return found[0] if isinstance(get, str) else gaussians(names, *found)

    return predict_fn


class _Kernels:
    """Kernels by name."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.nngp, self.ntk = values.get("nngp"), values.get("ntk")


def _prior(nngp: Any) -> _Kernels | None:
    return None if nngp is None else _Kernels({"nngp": nngp})


def _gathered(
    means: list[Any],
    covariances: list[Any],
    times: tuple[int, ...],
    targets: Targets,
    rows: tuple[int, ...],
    dtype: Any,
) -> Any:
    """One mean or Gaussian with the axes of the times first."""
    xp = library(*means, *covariances)
    mean = targets.outputs(xp.stack(means), rows)
    mean = returned(mean.reshape(*times, *mean.shape[1:]), dtype)
    if not covariances:
        return mean
    covariance = zipped(xp.stack(covariances), rows)
    return Gaussian(mean, returned(covariance.reshape(*times, *covariance.shape[1:]), dtype))


def _kwargs(train: dict[str, Any], test: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keyword arguments of the test-train and of the test-test kernel. Raises ValueError for ones that contradict."""

    def arrays(value: Any) -> bool:
        leaves = jax.tree.leaves(value)
        return bool(leaves) and all(isinstance(leaf, np.ndarray | jax.Array) for leaf in leaves)

    mixed, own = dict(train), {**train, **test}
    for name, value in test.items():
        before = train.get(name)
        if not (arrays(value) and arrays(before)):
            if name not in train or (value is not before and value != before):
                raise ValueError(
                    f"{name}: the training rows have {before!r}, the test rows {value!r}: they must agree"
                )
        elif isinstance(value, tuple) and isinstance(before, tuple) and len(value) == len(before) == 2:
            mixed[name] = (value[0], before[0])
        else:
            mixed[name] = value
    return mixed, own
