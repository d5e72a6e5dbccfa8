"""Inputs and targets of a run: reading, checking, splitting, encoding, normalising, and their fingerprint.

Order of the steps: read → check (finite, shapes) → hold out → encode labels → normalise with statistics of the
training rows only.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.model import Data, Source, Split
from pipeline.data_files import numeric, read_array, some, split_location
from pipeline.data_targets import encode, readable
from pipeline.data_teacher import teacher
from pipeline.errors import InputError
from pipeline.store.digest import digest


class DataWarning(UserWarning):
    """Something about the data that a person should look at, and that does not stop the run."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """Prepared inputs and targets.

    Attributes:
        x_train, x_test: float64 (rows, ...); `x_test` has no rows when nothing is held out.
        y_train, y_test: float64 (rows, outputs), or None without targets.
        classes: names of the classes in the order of the outputs; empty for regression.
        fingerprints: digest of each prepared array by name; what a stage depends on.
    """

    x_train: np.ndarray
    y_train: np.ndarray | None
    x_test: np.ndarray
    y_test: np.ndarray | None
    classes: tuple[str, ...]
    fingerprints: dict[str, str]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch axis."""
        return self.x_train.shape[1:]

    @property
    def outputs(self) -> int:
        """Columns of the targets."""
        return 0 if self.y_train is None else self.y_train.shape[1]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays there are, by name."""
        named = {
            "x_train": self.x_train,
            "y_train": self.y_train,
            "x_test": self.x_test,
            "y_test": self.y_test,
        }
        return {name: array for name, array in named.items() if array is not None and len(array)}


def load(config: Data) -> Inputs:
    """Everything `data` in a run.yaml describes.

    Raises:
        InputError: missing files or keys, pickled or non-numeric arrays, shapes that do not match, NaN or Inf (with the
            row numbers), fewer than two rows, labels that cannot be encoded.
    Warns:
        DataWarning: duplicate rows; zero rows under `normalize: sphere`.
    """
    x, y = _source(config.train, "data.train", config.task)
    _check_rows(x)
    # Before rows are held out, so that messages number them as the file does.
    y = readable(y, "data.train.y", config.task)
    numbers = np.arange(len(x))
    if config.split is not None:
        numbers, held = _hold_out(len(x), y, config.split, config.task)
        x_test, y_test = x[held], None if y is None else y[held]
        x, y = x[numbers], None if y is None else y[numbers]
    elif config.test is not None:
        x_test, y_test = _source(config.test, "data.test", config.task)
        if not len(x_test):
            raise InputError("data.test.x: has no rows", hint="leave data.test out when nothing is held out")
        if x_test.shape[1:] != x.shape[1:]:
            raise InputError(
                f"data.test.x: inputs of shape {x_test.shape[1:]}, but data.train.x has {x.shape[1:]}",
                hint="both need the same features in the same order",
            )
        y_test = readable(y_test, "data.test.y", config.task)
    else:
        x_test, y_test = x[:0], None
    x, x_test = _reshape(x, config, "data.train.x"), _reshape(x_test, config, "data.test.x")
    _check_rows(x)
    y, y_test, classes = encode(y, y_test, config.task)
    x, x_test = _normalize(x, x_test, config.normalize)
    _warn_duplicates(x, numbers)
    named = {"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test}
    prints = {name: digest(array) for name, array in named.items() if array is not None}
    return Inputs(x, y, x_test, y_test, classes, prints)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of prepared data: rows to train on and held out, shape of one input, columns of the targets."""

    rows: int
    test_rows: int
    input_shape: tuple[int, ...]
    outputs: int

    @classmethod
    def of(cls, inputs: Inputs) -> Sizes:
        return cls(len(inputs.x_train), len(inputs.x_test), inputs.input_shape, inputs.outputs)


def sizes(config: Data) -> Sizes | None:
    """What the sizes of the data will be, as far as the configuration says; None when they must be read.

    Raises:
        InputError: train and test, or the shape asked for, do not fit together.
    """
    train, test = config.train, config.test
    if train.rows is None or train.features is None or (test is not None and test.rows is None):
        return None
    rows, test_rows = train.rows, 0
    if config.split is not None:
        test_rows = math.ceil(rows * config.split.test)
        rows -= test_rows
    if test is not None and test.rows is not None:
        test_rows = test.rows
        if test.features != train.features:
            raise InputError(f"data.test has {test.features} features, but data.train has {train.features}")
    shape = config.shape or (train.features,)
    if math.prod(shape) != train.features:
        raise InputError(
            f"data.shape {shape} has {math.prod(shape)} entries, but inputs have {train.features}"
        )
    return Sizes(rows, test_rows, shape, 0 if config.task == "none" else train.classes)


def sample(config: Data, rows: int) -> np.ndarray:
    """A few prepared inputs of data whose `sizes` are in the configuration, made without the rest; of data that are not
    there, Gaussian ones."""
    source, found = config.train, sizes(config)
    assert found is not None
    if source.source == "teacher":
        x, _ = teacher(source, rows)
    else:
        x = np.random.default_rng(0).standard_normal((min(rows, found.rows), math.prod(found.input_shape)))
    x = x.reshape(-1, *found.input_shape)
    return _normalize(x, x[:0], config.normalize)[0]


def _source(source: Source, field: str, task: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Inputs as float64 and raw targets."""
    if source.source == "teacher":
        x, outputs = teacher(source)
        return x, outputs if task == "regression" else outputs.argmax(axis=1)
    if source.source is not None:
        from sklearn.datasets import load_digits

        digits: Any = load_digits()
        return digits.data.astype(np.float64), digits.target
    if source.x is None:
        raise InputError(
            f"{field}: only sizes are given, no data",
            hint="sizes are enough for `ntk plan`; a run needs `x` (a file) or `source` (a built-in data set)",
        )
    x = numeric(read_array(source.x, f"{field}.x", drop=_own_column(source)), f"{field}.x")
    if x.ndim < 2:
        raise InputError(
            f"{field}.x: expected (rows, features...), got shape {x.shape}",
            hint="a single feature is (rows, 1)",
        )
    if 0 in x.shape[1:]:
        raise InputError(f"{field}.x: inputs of shape {x.shape[1:]} have no features")
    if source.y is None:
        return x, None
    y = read_array(source.y, f"{field}.y")
    if y.ndim == 0 or len(y) != len(x):
        rows = "no rows" if y.ndim == 0 else f"{len(y)} rows"
        raise InputError(
            f"{field}.y: {rows}, but {field}.x has {len(x)}", hint="one label or target per input"
        )
    return x, y


def _reshape(x: np.ndarray, config: Data, field: str) -> np.ndarray:
    if config.shape is None:
        return x
    if math.prod(config.shape) != math.prod(x.shape[1:]):
        raise InputError(
            f"{field}: inputs of shape {x.shape[1:]} cannot be given data.shape {config.shape}: "
            f"{math.prod(x.shape[1:])} entries against {math.prod(config.shape)}"
        )
    return x.reshape(len(x), *config.shape)


def _own_column(source: Source) -> str | None:
    """The column of x's own CSV file that holds the targets, and so is no feature."""
    if source.y is None or source.x is None:
        return None
    file, column = split_location(source.y)
    return column if column and Path(file) == Path(source.x) else None


def _warn_duplicates(x: np.ndarray, numbers: np.ndarray) -> None:
    # By digest: sorting the rows themselves would copy them.
    keys = np.array([digest(row) for row in x], "S32")
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[inverse] != np.arange(len(x)))
    if len(again):
        warnings.warn(
            f"data.train.x: {len(again)} rows repeat an earlier one (rows {some(numbers[again])}): "
            "the Gram matrix is singular without a ridge",
            DataWarning,
            stacklevel=3,
        )


def _hold_out(rows: int, y: np.ndarray | None, split: Split, task: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the rows that are kept and of those that are held out, ascending."""
    from sklearn.model_selection import train_test_split

    stratify = y if task == "classification" else None
    try:
        kept, held = train_test_split(
            np.arange(rows),
            test_size=split.test,
            random_state=split.seed,
            stratify=stratify,
        )
    except ValueError as error:
        raise InputError(
            f"data.split: {rows} rows cannot be split: {error}",
            hint="change data.split.test or give data.test",
        ) from None
    return np.sort(kept), np.sort(held)


def _check_rows(x: np.ndarray) -> None:
    if len(x) < 2:
        raise InputError(f"data.train.x: needs at least 2 rows, got {len(x)}")


def _normalize(x: np.ndarray, x_test: np.ndarray, how: str) -> tuple[np.ndarray, np.ndarray]:
    if how == "sphere":
        return _to_sphere(x, "data.train.x"), _to_sphere(x_test, "data.test.x")
    if how == "standardize":
        # In units of each feature's largest entry, so that squares of entries near 1e±200 neither overflow nor vanish.
        unit = np.abs(x).max(axis=0)
        unit = np.where(unit > 0, unit, 1.0)
        mean, deviation = (x / unit).mean(axis=0), (x / unit).std(axis=0)
        # A constant feature carries nothing: it is centred, and not divided by its rounding errors.
        scale = np.where(deviation > 16 * np.finfo(float).eps, deviation, 1.0)
        return (x / unit - mean) / scale, (x_test / unit - mean) / scale
    return x, x_test


def _to_sphere(x: np.ndarray, field: str) -> np.ndarray:
    flat = x.reshape(len(x), math.prod(x.shape[1:]))
    # Largest entry first, so that squares of entries near 1e±200 neither overflow nor vanish.
    largest = np.maximum(flat.max(axis=1, initial=0.0), -flat.min(axis=1, initial=0.0))
    zero = largest == 0
    if zero.any():
        rows = some(np.flatnonzero(zero))
        warnings.warn(
            f"{field}: zero rows stay zero under normalize: sphere: {rows}", DataWarning, stacklevel=4
        )
    scaled = flat / np.where(zero, 1.0, largest)[:, None]
    norm = np.linalg.norm(scaled, axis=1)
    scaled /= np.where(zero, 1.0, norm)[:, None]
    return scaled.reshape(x.shape)
