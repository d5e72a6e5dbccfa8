"""Inputs and targets: what is read, how it is prepared, and what is refused with rows and remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pipeline import data
from pipeline.config.load import validate
from pipeline.config.model import Data
from pipeline.data import DataWarning
from pipeline.errors import InputError


def load(**fields: Any) -> data.Inputs:
    return data.load(validate(Data, fields, "test"))


@pytest.fixture
def xy(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 5)), np.arange(30) % 3
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    return tmp_path, x, y


def test_every_format_gives_the_same_inputs(xy: Any) -> None:
    folder, x, y = xy
    np.savez(folder / "both.npz", x=x, y=y)
    store = zarr.open_group(folder / "in.zarr", mode="w")
    store.create_array("deep/x", data=x)
    store.create_array("y", data=y)
    header = "a,b,c,d,e,label"
    np.savetxt(
        folder / "t.csv", np.column_stack([x, y]), delimiter=",", header=header, comments="", fmt="%.17g"
    )
    prints = [
        load(train={"x": str(folder / a), "y": str(folder / b)}, task="classification").fingerprints
        for a, b in (
            ("x.npy", "y.npy"),
            ("both.npz#x", "both.npz#y"),
            ("in.zarr/deep/x", "in.zarr/y"),
            ("t.csv", "t.csv#label"),
        )
    ]
    assert all(found == prints[0] for found in prints)


def test_digits_split_is_stratified_and_normalised() -> None:
    inputs = load(source="digits", split={"test": 0.2, "seed": 0})
    assert inputs.x_train.shape == (1437, 64)
    assert inputs.x_test.shape == (360, 64)
    np.testing.assert_allclose(np.linalg.norm(inputs.x_train, axis=1), 1, rtol=1e-12)
    assert inputs.y_train is not None
    assert inputs.y_test is not None
    shares = [np.bincount(y.argmax(axis=1), minlength=10) / len(y) for y in (inputs.y_train, inputs.y_test)]
    assert np.abs(shares[0] - shares[1]).max() < 0.01
    np.testing.assert_allclose(inputs.y_train.sum(axis=1), 0, atol=1e-12)
    assert inputs.classes == tuple("0123456789")


def test_split_is_a_partition_and_depends_on_its_seed(xy: Any) -> None:
    folder, x, _ = xy
    train = {"x": str(folder / "x.npy"), "y": str(folder / "y.npy")}
    first = load(train=train, split={"test": 0.3, "seed": 1}, normalize="none")
    both = np.concatenate([first.x_train, first.x_test])
    assert sorted(map(tuple, both)) == sorted(map(tuple, x))
    assert (
        load(train=train, split={"test": 0.3, "seed": 1}, normalize="none").fingerprints == first.fingerprints
    )
    assert (
        load(train=train, split={"test": 0.3, "seed": 2}, normalize="none").fingerprints != first.fingerprints
    )


def test_standardize_uses_training_statistics_only(xy: Any) -> None:
    folder, x, _ = xy
    np.save(folder / "far.npy", x[:4] + 100)
    train = {"x": str(folder / "x.npy")}
    inputs = load(train=train, test={"x": str(folder / "far.npy")}, task="none", normalize="standardize")
    np.testing.assert_allclose(inputs.x_train.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(inputs.x_train.std(axis=0), 1, rtol=1e-12)
    np.testing.assert_allclose(inputs.x_test, (x[:4] + 100 - x.mean(axis=0)) / x.std(axis=0), rtol=1e-10)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_sphere_survives_extreme_scales(tmp_path: Path, scale: float) -> None:
    x = np.random.default_rng(1).standard_normal((6, 3))
    np.save(tmp_path / "x.npy", x * scale)
    inputs = load(train={"x": str(tmp_path / "x.npy")}, task="none")
    np.testing.assert_allclose(inputs.x_train, x / np.linalg.norm(x, axis=1, keepdims=True), rtol=1e-12)


def test_images_can_be_shaped(xy: Any) -> None:
    folder, _, _ = xy
    assert load(train={"x": str(folder / "x.npy")}, task="none", shape=[5, 1, 1]).input_shape == (5, 1, 1)
    with pytest.raises(InputError, match="5 entries against 4"):
        load(train={"x": str(folder / "x.npy")}, task="none", shape=[4])


@pytest.mark.parametrize("scale", [1e-165, 1e160])
def test_targets_whose_squares_are_no_numbers_are_refused(xy: Any, scale: float) -> None:
    folder, x, _ = xy
    np.save(folder / "t.npy", np.stack([x[:, 0], scale * x[:, 1]], axis=1))
    with pytest.raises(
        InputError, match=r"(?s)data\.train\.y: the largest value of column 1 .* scale the targets"
    ):
        load(train={"x": str(folder / "x.npy"), "y": str(folder / "t.npy")}, task="regression")


def test_regression_targets_keep_their_values(xy: Any) -> None:
    folder, _, _ = xy
    y = np.linspace(0, 1, 30)
    np.save(folder / "t.npy", y)
    inputs = load(train={"x": str(folder / "x.npy"), "y": str(folder / "t.npy")}, task="regression")
    assert inputs.y_train is not None
    np.testing.assert_array_equal(inputs.y_train[:, 0], y)


def test_text_labels(xy: Any) -> None:
    folder, _, y = xy
    names = np.array(["cat", "dog", "eel"])[y]
    np.save(folder / "names.npy", names)
    assert load(train={"x": str(folder / "x.npy"), "y": str(folder / "names.npy")}).classes == (
        "cat",
        "dog",
        "eel",
    )


def test_not_finite_rows_are_named(xy: Any) -> None:
    folder, x, _ = xy
    x[[3, 17], 1] = np.nan, np.inf
    np.save(folder / "bad.npy", x)
    with pytest.raises(InputError, match="2 of 30 rows: 3, 17"):
        load(train={"x": str(folder / "bad.npy")}, task="none")


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "p.npz", x=np.array([{"a": 1}], dtype=object))
    for name in ("p.npy", "p.npz#x"):
        with pytest.raises(InputError, match="never loaded"):
            load(train={"x": str(tmp_path / name)}, task="none")


def test_duplicates_are_announced(xy: Any) -> None:
    folder, x, _ = xy
    x[7] = x[2]
    np.save(folder / "d.npy", x)
    with pytest.warns(DataWarning, match="1 rows repeat an earlier one .rows 7"):
        load(train={"x": str(folder / "d.npy")}, task="none")


def test_repeated_rows_are_numbered_as_in_the_file(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((40, 3))
    x[20:] = x[:20]
    np.save(tmp_path / "x.npy", x)
    with pytest.warns(DataWarning, match="repeat") as caught:
        inputs = load(
            train={"x": str(tmp_path / "x.npy")},
            split={"test": 0.25, "seed": 1},
            task="none",
            normalize="none",
        )
    numbers = str(caught[0].message).split("(rows ")[1].split(")")[0]
    named = [int(number) for number in re.findall(r"\d+", numbers)]
    assert named
    for number in named:
        assert number >= 20
        assert sum(np.array_equal(row, x[number]) for row in inputs.x_train) == 2


def test_zero_rows_are_announced(xy: Any) -> None:
    folder, x, _ = xy
    x[4] = 0
    np.save(folder / "z.npy", x)
    with pytest.warns(DataWarning, match="zero rows"):
        assert not load(train={"x": str(folder / "z.npy")}, task="none").x_train[4].any()


def refused(folder: Path, match: str, **fields: Any) -> None:
    fields = {"train": {"x": str(folder / "x.npy"), "y": str(folder / "y.npy")}} | fields
    with pytest.raises(InputError, match=match):
        load(**fields)


def test_bad_files(xy: Any) -> None:
    folder, x, y = xy

    def at(**names: str) -> dict[str, str]:
        return {axis: str(folder / name) for axis, name in names.items()}

    (folder / "cut.npy").write_bytes((folder / "x.npy").read_bytes()[:200])
    (folder / "empty.npy").write_bytes(b"")
    (folder / "words.csv").write_text("1,2\n3,x\n")
    (folder / "ragged.csv").write_text("1,2\n3\n")
    (folder / "x.parquet").write_bytes(b"PAR1")
    np.savez(folder / "two.npz", a=x, b=y)
    np.save(folder / "c.npy", x + 1j)
    np.save(folder / "one.npy", x[:, 0])
    np.save(folder / "short.npy", y[:-1])
    np.save(folder / "wide.npy", np.ones((3, 6)))
    (folder / "text.npy").write_text("hello")
    y_nan = y.astype(np.float64)
    y_nan[2] = np.nan
    np.save(folder / "y-nan.npy", y_nan)
    zarr.open_group(folder / "g.zarr", mode="w").create_array("x", data=x)
    refused(folder, "no such file", train=at(x="absent.npy", y="y.npy"))
    refused(folder, "is a directory", train=at(x="", y="y.npy"))
    refused(folder, "no file of NumPy's", train=at(x="text.npy", y="y.npy"))
    for task in ("regression", "classification"):  # the row of the file, not of what the split leaves
        bad = at(x="x.npy", y="y-nan.npy")
        refused(folder, "data.train.y: NaN .* 1 of 30 rows: 2", train=bad, task=task, split={"test": 0.2})
    refused(folder, "cannot be read", train=at(x="cut.npy", y="y.npy"))
    refused(folder, "cannot be read", train=at(x="empty.npy", y="y.npy"))
    refused(folder, r"words.csv:2: 'x' is not a number", train=at(x="words.csv", y="y.npy"))
    refused(folder, r"ragged.csv:2: 1 columns", train=at(x="ragged.csv", y="y.npy"))
    refused(folder, "unknown format", train=at(x="x.parquet", y="y.npy"))
    refused(folder, "holds 2 arrays", train=at(x="two.npz", y="y.npy"))
    refused(folder, "no array 'q'", train=at(x="two.npz#q", y="y.npy"))
    refused(folder, "no column 'q'", train=at(x="x.npy", y="words.csv#q"))
    refused(folder, "complex", train=at(x="c.npy", y="y.npy"))
    refused(folder, "got shape", train=at(x="one.npy", y="y.npy"))
    refused(folder, "29 rows", train=at(x="x.npy", y="short.npy"))
    refused(folder, "inputs of shape", train=at(x="x.npy", y="y.npy"), test=at(x="wide.npy"))
    refused(folder, "is a group", train=at(x="g.zarr", y="y.npy"))
    refused(folder, "no array there", train=at(x="g.zarr/nope", y="y.npy"))
    refused(folder, "no such Zarr store", train=at(x="absent.zarr/x", y="y.npy"))


def test_bad_labels(xy: Any) -> None:
    folder, _, y = xy
    np.save(folder / "y.npy", y * 0)
    refused(folder, "at least 2 classes")
    np.save(folder / "y.npy", y + 0.5)
    refused(folder, "whole numbers")
    np.save(folder / "y.npy", np.arange(30))
    refused(folder, "30 classes in 30 rows")
    np.save(folder / "y.npy", np.r_[np.zeros(29, int), 1])
    refused(folder, "cannot be split", split={"test": 0.2})
    np.save(folder / "y.npy", y)
    np.save(folder / "unknown.npy", y + 1)
    refused(folder, "never shows", test={"x": str(folder / "x.npy"), "y": str(folder / "unknown.npy")})


TEACHER = {"source": "teacher", "rows": 300, "features": 12, "classes": 3}


def test_a_teacher_labels_its_inputs() -> None:
    inputs = load(train=TEACHER, test=TEACHER | {"rows": 50, "draw": 1}, normalize="none")
    assert inputs.x_train.shape == (300, 12)
    assert inputs.outputs == 3
    assert len(np.unique(inputs.y_train.argmax(axis=1))) == 3  # type: ignore[union-attr]
    assert not (inputs.x_test == inputs.x_train[:50]).any()
    again = load(train=TEACHER, normalize="none")
    np.testing.assert_array_equal(again.x_train, inputs.x_train)
    fewer = load(train=TEACHER | {"rows": 100}, normalize="none")
    np.testing.assert_array_equal(fewer.x_train, inputs.x_train[:100])
    other = load(train=TEACHER | {"seed": 1}, normalize="none")
    assert not (other.x_train == inputs.x_train).any()
    assert load(train=TEACHER, task="regression").y_train.shape == (300, 3)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "fields",
    [
        {"train": TEACHER, "split": {"test": 0.21}},
        {"train": TEACHER, "test": TEACHER | {"rows": 7}, "shape": [2, 2, 3]},
        {"train": TEACHER, "task": "none"},
    ],
)
def test_sizes_are_known_before_the_data(fields: dict[str, Any]) -> None:
    config = validate(Data, fields, "test")
    assert data.sizes(config) == data.Sizes.of(data.load(config))


def test_sizes_alone_are_no_data() -> None:
    config = validate(Data, {"train": {"rows": 10**6, "features": 3072}, "shape": [32, 32, 3]}, "test")
    assert data.sizes(config) == data.Sizes(10**6, 0, (32, 32, 3), 10)
    with pytest.raises(InputError, match="only sizes are given"):
        data.load(config)
    for bad in ({"rows": 5}, {"features": 5}, {"source": "digits", "rows": 5}, {"x": "x", "rows": 5}):
        with pytest.raises(InputError):
            validate(Data, {"train": bad, "task": "none"}, "test")
    with pytest.raises(InputError, match=r"data.shape \(4, 4, 3\) has 48 entries"):
        data.sizes(config.model_copy(update={"shape": (4, 4, 3)}))
