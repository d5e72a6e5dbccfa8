"""A tile that does not fit the memory: computed in pieces by the same worker, stored as it would be otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from pipeline import open_run
from pipeline.config.model import KernelConfig
from pipeline.errors import TasksFailed
from pipeline.stages import kernels
from pipeline.stages.kernels import KernelSpec
from pipeline.stages.pieces import PatientTile, fewer
from tests.stages.conftest import Runner

KERNEL = """
import numpy as np
def fits(x1, x2):
    return (x1[:, None] * x2[None]).sum(axis=2)
def does_not(x1, x2):
    if len(x1) > {rows}:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1099511627776 bytes.")
    return fits(x1, x2)
"""


@pytest.mark.faults("out-of-memory tile", "computed in pieces by the same worker, identical")
def test_stored_as_if_it_had_fitted(runner: Runner, contents: Callable[[Path], dict[str, bytes]]) -> None:
    (runner.folder / "piecewise.py").write_text(KERNEL.format(rows=8))
    runner.run("gram", kernel={"function": "piecewise:fits"}, out=str(runner.folder / "whole"))
    document = runner.run("gram", kernel={"function": "piecewise:does_not"})
    assert contents(runner.folder / "run") == contents(runner.folder / "whole")
    assert document["gram"]["tiles_in_pieces"] == 14  # the last one has six rows
    run = open_run(runner.folder / "run")
    records = run.journal.records("gram/ntk")
    assert (records[0, 1].note["pieces"], records[0, 0].note["pieces"]) == (4, 3)


def dense(activation: str) -> list[Any]:
    return [{"Dense": {"out_dim": 64, "W_std": 1.5, "b_std": 0.05}}, activation] * 2 + [
        {"Dense": {"out_dim": 1}}
    ]


def conv(*window: int) -> list[Any]:
    return [{"Conv": {"out_chan": 8, "filter_shape": list(window), "padding": "SAME", "b_std": 0.1}}, "Relu"]


HALVED = {"AvgPool": {"window_shape": [2, 2], "strides": [2, 2]}}
ATTENTION = {"GlobalSelfAttention": {"n_chan_out": 4, "n_chan_key": 4, "n_chan_val": 4, "n_heads": 2}}
CASES: dict[str, tuple[list[Any], tuple[int, ...], tuple[int, ...]]] = {
    "relu": (dense("Relu"), (700,), (1030, 1500, 2048)),
    "erf": (dense("Erf"), (33,), (1500,)),
    "gelu": (dense("Gelu"), (10,), (2048,)),
    "flatten": ([*conv(3, 3), *conv(3, 3), "Flatten", {"Dense": {"out_dim": 1}}], (6, 5, 3), (48, 100)),
    "pooling": ([*conv(3, 3), HALVED, *conv(3, 3), "GlobalAvgPool"], (4, 4, 3), (100, 128)),
    "many channels": ([*conv(3), "GlobalAvgPool"], (9, 20), (70,)),
    "attention": ([*conv(3), ATTENTION, "GlobalAvgPool"], (5, 3), (100, 200)),
}
"""Architecture, shape of an input, rows of whole tiles."""


def trying(rows: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of which some are equal, opposite, nearly parallel (in one block many of them), or far larger."""
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((n, *shape)) for n in (rows, rows * 3 // 4))
    x[1::7], y[::5], x[1::9] = x[2], -x[3], y[4]
    x[1::7] += 1e-4 * rng.standard_normal(x[1::7].shape)
    x[: rows // 8] = x[5] + 1e-3 * x[: rows // 8]
    y[-1] *= 1e25
    return x, y


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_pieces_of_every_size_are_the_tile_bit_for_bit(case: str, precision: str) -> None:
    architecture, shape, tiles = CASES[case]
    document = {"architecture": architecture, "get": "both", "precision": precision}
    spec = kernels.specify(KernelConfig.model_validate(document), shape)
    for tile in tiles:
        assert_pieces_are_the_tile(spec, tile, *(a.astype(precision) for a in trying(tile - 3, shape)))


def assert_pieces_are_the_tile(spec: KernelSpec, tile: int, x: np.ndarray, y: np.ndarray) -> None:
    whole, grain, rows = PatientTile(spec, tile), spec.build(tile).grain, tile
    expected = [whole(x, other) for other in (None, y)]
    assert whole.pieces == 1 and all(
        np.isfinite(values[name]).all() for values in expected for name in spec.get
    )
    tried = 0
    while (rows := fewer(rows, grain, divisible=False)) is not None:
        cut = PatientTile(spec, tile)
        cut.rows = rows
        for other, values in zip((None, y), expected, strict=True):
            got = cut(x, other)
            assert all(got[name].tobytes() == values[name].tobytes() for name in spec.get)
            assert cut.pieces > 1
        tried += 1
    assert tried


FUNCTION = """
def product(x1, x2):
    return x1 @ x2.T
"""


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_pieces_of_a_function_are_the_tile_bit_for_bit(
    tmp_path: Path, precision: Literal["float64", "float32"]
) -> None:
    (tmp_path / f"multiplies_in_{precision}.py").write_text(FUNCTION)
    spec = KernelSpec("", f"multiplies_in_{precision}:product", str(tmp_path), (700,), ("ntk",), precision)
    x, y = np.random.default_rng(0).standard_normal((2, 700, 700)).astype(precision)
    assert_pieces_are_the_tile(spec, 700, x, y[:600])


def test_less_is_tried_by_halves_and_whole_blocks() -> None:
    def sizes(rows: int, grain: int, *, divisible: bool) -> list[int]:
        found = [rows]
        while (less := fewer(found[-1], grain, divisible=divisible)) is not None:
            found.append(less)
        return found

    assert sizes(2000, 32, divisible=False) == [2000, 992, 480, 224, 96, 32]
    assert sizes(1500, 768, divisible=False) == [1500, 768]
    assert sizes(40, 64, divisible=False) == [40]
    assert sizes(700, 256, divisible=True) == [700, 256, 128, 64, 32, 16, 8]


@pytest.mark.faults("tile out of memory at any size", "exit 3 with cause and remedy")
def test_what_never_fits(runner: Runner) -> None:
    (runner.folder / "hopeless.py").write_text(KERNEL.format(rows=1))
    with pytest.raises(TasksFailed, match="out of memory even with 8 rows") as caught:
        runner.run("gram", kernel={"function": "hopeless:does_not"})
    assert "gram.tile" in str(caught.value.hint)
