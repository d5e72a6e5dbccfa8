"""Means and covariances at infinite time: Gaussian process posteriors, and the converged ensemble."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ntk.arrays import real
from ntk.predict.axes import Targets, matrix, returned, wide, zipped
from ntk.predict.mse import check_cross, finite
from ntk.predict.training import TrainingKernel

MODES = ("nngp", "ntk", "ntkgp")
"""What `gp_inference` can be asked for."""


class Gaussian(NamedTuple):
    """mean: of the shape of the outputs. covariance: of the shape of the kernel on the rows predicted."""

    mean: Any
    covariance: Any


def gp_inference(
    k_train_train: Any,
    y_train: Any,
    diag_reg: float = 0.0,
    diag_reg_absolute_scale: bool = False,
    trace_axes: int | Sequence[int] = (-1,),
) -> Callable[..., Any]:
    """What Bayesian networks, trained ensembles and processes with the NTK as covariance predict.

    With 𝒦 the NNGP, Θ the NTK, both regularised where they are inverted, and A = Θ(x, X) Θ⁻¹:

        nngp   𝒦(x, X) 𝒦⁻¹ y                         𝒦(x, x') − 𝒦(x, X) 𝒦⁻¹ 𝒦(X, x')
        ntk    A y                                   𝒦(x, x') + A 𝒦 Aᵀ − (A 𝒦(X, x') + transpose)
        ntkgp  A y                                   Θ(x, x') − A Θ(X, x')

    nngp is the posterior of a Bayesian network (Lee et al. 2018), ntk the ensemble trained to convergence (Lee et al.
    2019, eq. 16), ntkgp the process of He et al. 2020.

    Args:
        k_train_train: an array, which serves every mode, or kernels by name (attributes `nngp`, `ntk`).
        y_train: targets (n, \\*outputs).
        diag_reg, diag_reg_absolute_scale, trace_axes: see `ntk.predict`.

    Returns:
        ``predict_fn(get=None, k_test_train=None, k_test_test=None)``: for `get` one of "nngp", "ntk", "ntkgp" the mean,
        or `Gaussian` when `k_test_test` is given; for a tuple of names, or None for ("nngp", "ntk"), a named tuple of
        these. Without `k_test_train` the training rows: the targets, with covariance zero.

    Raises:
        ValueError: an unknown mode, a kernel that is missing, of a wrong shape, not finite or not symmetric.
        numpy.linalg.LinAlgError: the kernel to be inverted is indefinite or singular.
    """
    y = finite(y_train, "y_train")
    targets = Targets.of(y, trace_axes)

    @cache
    def train(name: str) -> TrainingKernel:
        return TrainingKernel(
            named(k_train_train, name, "k_train_train"), targets, diag_reg, diag_reg_absolute_scale, name
        )

    @cache
    def coefficients(name: str) -> np.ndarray:
        return train(name).solve(targets.columns(y))

    def predict(mode: str, k_test_train: Any, k_test_test: Any) -> Any:
        name = "nngp" if mode == "nngp" else "ntk"
        kernel = train(name)
        if k_test_train is None:
            mean = returned(y, kernel.dtype)
            return (
                mean
                if k_test_test is None
                else Gaussian(mean, returned(np.zeros(kernel.shape), kernel.dtype))
            )
        raw = named(k_test_train, name, "k_test_train")
        rows, cross = raw.shape[::2], matrix(wide(raw))
        check_cross(cross, kernel)
        mean = returned(targets.outputs(cross @ coefficients(name), rows), kernel.dtype)
        if k_test_test is None:
            return mean
        if mode == "ntk":
            own, other = _initial(k_train_train, k_test_train)
            weights = kernel.solve(cross.T).T
            prior = _prior(k_test_test, "nngp", len(cross))
            moved = weights @ matrix(wide(own))
            covariance = ensemble_covariance(weights, matrix(wide(other)), prior, moved)
        else:
            half = kernel.half_solve(cross.T)
            covariance = _prior(k_test_test, name, len(cross)) - half.T @ half
        return Gaussian(mean, returned(zipped(covariance, rows), kernel.dtype))

    def predict_fn(get: Any = None, k_test_train: Any = None, k_test_test: Any = None) -> Any:
        modes = asked_modes(get, MODES)
        found = [predict(mode, k_test_train, k_test_test) for mode in modes]
        return found[0] if isinstance(get, str) else gaussians(modes, *found)

    return predict_fn


def ensemble_covariance(weights: Any, cross: Any, prior: Any, moved: Any) -> Any:
    """𝒦(x, x') + A 𝒦 Aᵀ − (A 𝒦(X, x') + transpose): the covariance of f_0(x) − A f_0(X) (Lee et al. 2019, eq. 16).

    Args:
        weights: A, (m, n), at any time.
        cross: 𝒦(x, X), (m, n).
        prior: 𝒦(x, x'), (m, m).
        moved: A 𝒦, (m, n), of the 𝒦 on the training rows.
    """
    mixed = weights @ cross.T
    return prior + moved @ weights.T - (mixed + mixed.T)


def named(kernels: Any, name: str, argument: str) -> Any:
    """One kernel of `kernels`, which an array is whatever the name. Raises ValueError when it is not there."""
    if isinstance(kernels, list) or hasattr(kernels, "ndim"):
        return real(kernels, argument)
    value = getattr(kernels, name, None)
    if value is None:
        raise ValueError(f"{argument} has no {name} kernel, which is needed here")
    return real(value, f"{argument}.{name}")


def _prior(kernels: Any, name: str, rows: int) -> Any:
    """The test-test kernel as a matrix. Raises ValueError unless it is of the rows of the test-train kernel."""
    prior = matrix(wide(named(kernels, name, "k_test_test")))
    if prior.shape != (rows, rows):
        raise ValueError(f"k_test_test must be of {rows} rows as k_test_train, got {prior.shape}")
    return prior


def _initial(k_train_train: Any, k_test_train: Any) -> tuple[Any, Any]:
    """The NNGP of the training rows and of test with training rows: arrays are NTKs and will not do."""
    for argument, kernels in (("k_train_train", k_train_train), ("k_test_train", k_test_train)):
        if hasattr(kernels, "ndim"):
            raise ValueError(
                f"the covariance of the trained ensemble needs nngp beside ntk, but {argument} is one array\n"
                'hint: pass kernel_fn(x1, x2, ("nngp", "ntk")), or get="ntkgp" for the process of the NTK alone'
            )
    return named(k_train_train, "nngp", "k_train_train"), named(k_test_train, "nngp", "k_test_train")


def asked_modes(get: Any, known: Sequence[str]) -> tuple[str, ...]:
    """The modes that `get` names; ("nngp", "ntk") for None. Raises ValueError for others, none, or one twice."""
    modes = ("nngp", "ntk") if get is None else tuple(get) if isinstance(get, tuple | list) else (get,)
    named = bool(modes) and all(isinstance(mode, str) and mode in known for mode in modes)
    if not named or len(set(modes)) < len(modes):
        raise ValueError(f"get must be one of {', '.join(known)}, a tuple of these or None, got {get!r}")
    return modes


def gaussians(modes: tuple[str, ...], *values: Any) -> Any:
    """A named tuple of results by mode."""
    return _form(modes)(*values)


@cache
def _form(modes: tuple[str, ...]) -> Any:
    base = namedtuple("Gaussians", modes)
    # The class is made when asked for, so a pickle names the function that makes it.
    return type(
        "Gaussians", (base,), {"__slots__": (), "__reduce__": lambda self: (gaussians, (modes, *self))}
    )
