"""A tile that does not fit the memory: computed in pieces by the same worker, stored as it would be otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline import open_run
from pipeline.config.model import KernelConfig
from pipeline.errors import TasksFailed
from pipeline.stages import kernels
from pipeline.stages.pieces import PatientTile
from tests.stages.conftest import ARCHITECTURE, Runner

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


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_pieces_of_a_kernel_are_the_kernel(precision: str) -> None:
    spec = kernels.specify(
        KernelConfig.model_validate({"architecture": ARCHITECTURE, "get": "both", "precision": precision}),
        (20,),
    )
    whole, cut = PatientTile(spec, 32), PatientTile(spec, 32)
    cut.rows = 8
    x, y = np.random.default_rng(0).standard_normal((2, 30, 20))
    x[3], y[5] = y[4], -x[6]
    for other in (None, y):
        one, many = whole(x, other), cut(x, other)
        for name in spec.get:
            np.testing.assert_allclose(many[name], one[name], rtol=0, atol=4 * np.finfo(precision).eps)
    assert (whole.pieces, cut.pieces) == (1, 16)


@pytest.mark.faults("tile out of memory at any size", "exit 3 with cause and remedy")
def test_what_never_fits(runner: Runner) -> None:
    (runner.folder / "hopeless.py").write_text(KERNEL.format(rows=1))
    with pytest.raises(TasksFailed, match="out of memory even with 8 rows") as caught:
        runner.run("gram", kernel={"function": "hopeless:does_not"})
    assert "gram.tile" in str(caught.value.hint)
