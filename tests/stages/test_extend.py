"""A data set that grows: old tiles are kept, new ones computed, the result is that of one run over all rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import open_run
from pipeline.errors import InputError
from pipeline.stages import extend as extending
from pipeline.store import grow as growing
from tests.stages.conftest import ARCHITECTURE, Runner


def more_rows(runner: Runner, count: int = 20) -> None:
    rng = np.random.default_rng(7)
    runner.x = np.concatenate([runner.x, rng.standard_normal((count, runner.x.shape[1]))])
    runner.y = np.concatenate([runner.y, np.sin(runner.x[-count:, :2])])
    np.save(runner.folder / "x.npy", runner.x)
    np.save(runner.folder / "y.npy", runner.y)


def grown(runner: Runner, only: str | None = "gram", **fields: Any) -> dict[str, Any]:
    return runner.run(only, extend=True, **fields)


@pytest.mark.parametrize("first", [70, pytest.param(64, marks=pytest.mark.slow)])
def test_only_new_tiles_are_computed(
    runner: Runner, contents: Callable[[Path], dict[str, bytes]], first: int
) -> None:
    runner.x, runner.y = runner.x[:first], runner.y[:first]
    more_rows(runner, 1)
    runner.x, runner.y = runner.x[:first], runner.y[:first]
    np.save(runner.folder / "x.npy", runner.x)
    np.save(runner.folder / "y.npy", runner.y)
    both = {"kernel": {"architecture": ARCHITECTURE, "get": "both"}, "gram": {"tile": 16, "cross": True}}
    runner.run(**both)
    tiles = {
        file: file.stat().st_mtime_ns
        for file in (runner.folder / "run/store.zarr/gram").rglob("c/*/*")
        if max(int(file.name), int(file.parent.name)) < first // 16
    }
    more_rows(runner)
    with pytest.raises(InputError, match="--extend"):
        runner.run("gram", **both)
    grown(runner, None, **both)
    assert tiles
    assert all(file.stat().st_mtime_ns == time for file, time in tiles.items())
    runner.run(out=str(runner.folder / "fresh"), **both)
    assert contents(runner.folder / "run") == contents(runner.folder / "fresh")
    grown(runner, None, **both)  # nothing left to extend
    assert open_run(runner.folder / "run").gram().shape == (first + 20, first + 20)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_killed_while_growing(
    runner: Runner,
    contents: Callable[[Path], dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
) -> None:
    runner.run("gram")
    tile = (runner.folder / "run/store.zarr/gram/ntk/c/0/1").stat().st_mtime_ns
    more_rows(runner)
    calls = 0

    def dies(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > steps:
            raise KeyboardInterrupt
        growing.grow(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(extending, "grow", dies)
        with pytest.raises(KeyboardInterrupt):
            grown(runner)
    runner.run("gram")  # however it is called again
    assert (runner.folder / "run/store.zarr/gram/ntk/c/0/1").stat().st_mtime_ns == tile
    runner.run("gram", out=str(runner.folder / "fresh"))
    assert contents(runner.folder / "run") == contents(runner.folder / "fresh")


def test_what_is_no_extension(runner: Runner, contents: Callable[[Path], dict[str, bytes]]) -> None:
    runner.run("gram")
    before = contents(runner.folder / "run")
    more_rows(runner)
    with pytest.raises(InputError, match=r"more than its rows changed\n  kernel\.precision"):
        grown(runner, kernel={"architecture": ARCHITECTURE, "precision": "float32"})
    runner.x[5] += 1
    np.save(runner.folder / "x.npy", runner.x)
    with pytest.raises(InputError, match="its 70 rows are not the first of the 90"):
        grown(runner)
    assert contents(runner.folder / "run") == before
