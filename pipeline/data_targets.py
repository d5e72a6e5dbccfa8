"""Targets as numbers: what is read, checked, and classes encoded."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.data_files import numeric
from pipeline.errors import InputError


def readable(y: np.ndarray | None, field: str, task: str) -> np.ndarray | None:
    """Targets as numbers (rows, outputs), or labels (rows,), as the task wants them."""
    if y is None or task == "none":
        return y
    return regression_targets(y, field) if task == "regression" else _labels(y, field)


def encode(y: np.ndarray | None, y_test: np.ndarray | None, task: str) -> tuple[Any, Any, tuple[str, ...]]:
    """`readable` targets as float64 (rows, outputs): centred one-hot for classes, (1 − 1/C on the class, −1/C
    elsewhere)."""
    if task == "none" or y is None:
        return None, None, ()
    if task == "regression":
        return y, y_test, ()
    classes = np.unique(y)
    if len(classes) < 2:
        raise InputError(
            f"data.train.y: classification needs at least 2 classes, got {len(classes)}: {classes[:1].tolist()}"
        )
    if len(classes) > max(2, len(y) // 2):
        raise InputError(
            f"data.train.y: {len(classes)} classes in {len(y)} rows",
            hint="use `task: regression` for continuous targets",
        )
    encoded = centred_one_hot(y, classes)
    if y_test is None:
        return encoded, None, tuple(str(name) for name in classes)
    if (y_test.dtype.kind in "iu") != (classes.dtype.kind in "iu"):
        raise InputError(f"data.test.y: labels of dtype {y_test.dtype}, but data.train.y has {classes.dtype}")
    unknown = np.setdiff1d(y_test, classes)
    if len(unknown):
        raise InputError(f"data.test.y: labels that data.train.y never shows: {unknown[:10].tolist()}")
    return encoded, centred_one_hot(y_test, classes), tuple(str(name) for name in classes)


_LARGEST_TARGET = 1e100
"""Squares of targets, and of residuals 1e-16 of them, are normal numbers up to here and down to its inverse."""


def regression_targets(y: np.ndarray, field: str) -> np.ndarray:
    """Targets as float64 (rows, outputs).

    Raises:
        InputError: they are not finite numbers, or their squares leave the range.
    """
    y = numeric(y, field)
    if y.ndim > 2:
        raise InputError(f"{field}: expected (rows,) or (rows, outputs), got shape {y.shape}")
    y = y[:, None] if y.ndim == 1 else y
    sizes = np.abs(y).max(axis=0, initial=0.0)
    extreme = np.flatnonzero((sizes > _LARGEST_TARGET) | ((sizes > 0) & (sizes < 1 / _LARGEST_TARGET)))
    if len(extreme):
        raise InputError(
            f"{field}: the largest value of column {extreme[0]} is {sizes[extreme[0]]:.3g}, whose squares leave the "
            f"range of float64; from {1 / _LARGEST_TARGET:g} to {_LARGEST_TARGET:g} would do",
            hint="scale the targets",
        )
    return y


def _labels(y: np.ndarray, field: str) -> np.ndarray:
    """Class labels (rows,), integers or strings."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise InputError(
            f"{field}: expected one label a row, got shape {y.shape}",
            hint="`task: regression` takes several columns",
        )
    if y.dtype.kind == "f":
        whole = numeric(y, field)
        if not np.array_equal(whole, np.round(whole)):
            raise InputError(
                f"{field}: class labels must be whole numbers or text, got fractions",
                hint="use `task: regression`",
            )
        if np.abs(whole).max(initial=0) >= 2**53:
            raise InputError(
                f"{field}: class labels beyond 2^53 cannot be told apart", hint="number the classes from 0"
            )
        return whole.astype(np.int64)
    if y.dtype.kind in "iub":
        return y if y.dtype == np.uint64 else y.astype(np.int64)
    if y.dtype.kind in "UST":
        return y.astype(str)
    raise InputError(f"{field}: class labels must be whole numbers or text, got dtype {y.dtype}")


def centred_one_hot(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Labels as targets, (rows, classes): 1 − 1/C for the class, −1/C elsewhere."""
    return (labels[:, None] == classes).astype(np.float64) - 1.0 / len(classes)
