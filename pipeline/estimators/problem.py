"""What an estimator fits, as a value that both ways of fitting read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np

from ntk import stax
from ntk.stax.layer import Layer
from pipeline.config.model import KernelConfig
from pipeline.data import Inputs
from pipeline.data_targets import regression_targets
from pipeline.errors import InputError
from pipeline.stages import kernels
from pipeline.stages.kernels import KernelSpec
from pipeline.store.digest import digest

ARCHITECTURE: tuple[Any, ...] = (
    {"Dense": {"out_dim": 512, "W_std": 1.4142135623730951, "b_std": 0.1}},
    "Relu",
    {"Dense": {"out_dim": 1, "W_std": 1.0, "b_std": 0.1}},
)
"""The network of an estimator that names none: one hidden layer of rectifiers, at the edge of chaos."""

NEEDS = {"nngp": ("nngp",), "ntk": ("ntk",), "ensemble": ("ntk", "nngp"), "ntkgp": ("ntk",)}
"""The kernels stored for each mode: regression with one kernel, the trained ensemble, the process of the NTK."""


@dataclass(frozen=True, eq=False)
class Problem:
    """(K + λI) A = Y with λ = ridge · mean(diag K), and the kernels that the mode needs.

    Attributes:
        x: (n, \\*input_shape) float64. y: what the stages take: (n, outputs), or class numbers (n,).
        targets: (n, outputs) float64, encoded.
        task: `regression` or `classification`.
        architecture: as given.
        mode: a key of `NEEDS`.
        variances: whether covariances will be asked for: the factor is kept for them.
    """

    x: np.ndarray
    y: np.ndarray
    targets: np.ndarray
    task: str
    architecture: Any
    mode: str
    ridge: float
    precision: str
    variances: bool = False

    @property
    def get(self) -> tuple[str, ...]:
        return NEEDS[self.mode]

    @property
    def kernel(self) -> str:
        """The kernel that is inverted."""
        return self.get[0]

    @cached_property
    def document(self) -> dict[str, Any]:
        """The `kernel` section of a run.yaml."""
        given = ARCHITECTURE if self.architecture is None else self.architecture
        plain = (
            given.to_spec()
            if isinstance(given, Layer)
            else list(given)
            if isinstance(given, tuple)
            else given
        )
        return {"architecture": plain, "get": list(self.get), "precision": self.precision}

    @cached_property
    def spec(self) -> KernelSpec:
        """The kernel, checked against the inputs. Raises InputError."""
        config = KernelConfig(**self.document)
        return kernels.specify(config, self.x.shape[1:])

    def inputs(self, x_test: np.ndarray | None = None) -> Inputs:
        """The data of a run, with rows to predict if any.

        Raises:
            InputError: squares of the targets leave the range.
        """
        arrays = {
            "x_train": self.x,
            "y_train": regression_targets(self.targets, "y"),
            "x_test": self.x[:0] if x_test is None else x_test,
        }
        names = np.unique(self.y).astype(str).tolist() if self.task == "classification" else []
        prints = {name: digest(array) for name, array in arrays.items()}
        return Inputs(**arrays, y_test=None, classes=tuple(names), fingerprints=prints)

    @property
    def identity(self) -> str:
        """A short name for what decides the Gram matrices: inputs, network and precision, not ridge or targets."""
        # Asking for a second kernel adds it beside the first, so `get` is no part of it.
        text = json.dumps([self.spec.architecture, self.precision, digest(self.x)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def kernels_of(
        self, x1: np.ndarray, x2: np.ndarray | None, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        """Kernels of x1 with x2 (None: with itself) in float64, computed in the precision of the problem."""
        kernel_fn = stax.from_spec(json.loads(self.spec.architecture)).kernel_fn
        dtype = np.dtype(self.precision)
        found = kernel_fn(x1.astype(dtype), None if x2 is None else x2.astype(dtype), names)
        return {name: np.asarray(getattr(found, name), np.float64) for name in names}


SMALLER = (
    "scale the features, as by a StandardScaler before the estimator, or choose smaller weight variances"
)
"""The remedy for numbers that overflow."""


def input_shape(shape: Any, features: int) -> tuple[int, ...]:
    """The parameter `shape` as integers. Raises InputError where it is none for rows of so many features."""
    sizes = tuple(shape) if isinstance(shape, Iterable) else ()
    whole = all(
        isinstance(size, int | np.integer) and not isinstance(size, bool) and size > 0 for size in sizes
    )
    if not (sizes and whole):
        raise InputError(
            f"shape must be a tuple of positive whole numbers, as (8, 8, 1), or None, got {shape!r}"
        )
    sizes = tuple(int(size) for size in sizes)
    if math.prod(sizes) != features:
        raise InputError(f"shape {sizes} has {math.prod(sizes)} entries, X has {features} features")
    return sizes


def check(ridge: float, mode: str, precision: str) -> None:
    """Raise InputError for parameters that no fit can use."""
    try:
        # NumPy's booleans are not Real.
        value = float(ridge) if isinstance(ridge, Real) and not isinstance(ridge, bool) else math.nan
    except OverflowError:
        value = math.inf
    if not 0 <= value < math.inf:
        raise InputError(f"ridge must be a finite number and not negative, got {ridge!r}")
    if mode not in NEEDS:
        raise InputError(f"unknown kernel or posterior {mode!r}", hint=f"known are {', '.join(NEEDS)}")
    if precision not in ("float64", "float32"):
        raise InputError(f"precision must be float64 or float32, got {precision!r}")
