"""Arrays that somebody removed from the store of a finished run: said, and computed again the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import zarr

from pipeline.data import DataWarning
from pipeline.stages.opening import open_prepared
from pipeline.stages.status import status
from pipeline.stages.verify import check, repair
from tests.stages.conftest import Runner


@pytest.mark.parametrize(
    ("gone", "stages"),
    [
        (".", {"gram", "solve", "predict", "spectrum"}),
        ("gram/ntk", {"gram"}),
        ("solution/alpha", {"solve"}),
        ("spectrum/ntk/eigenvalues", {"spectrum"}),
    ],
)
@pytest.mark.faults(
    "arrays, or the whole store, of a finished run removed", "named; a rerun computes them, identical"
)
def test_what_was_removed_is_computed_again(
    runner: Runner, contents: Callable[[Path], dict[str, bytes]], gone: str, stages: set[str]
) -> None:
    runner.run()
    directory = runner.folder / "run"
    before = contents(directory)
    shutil.rmtree(directory / "store.zarr" / gone)
    lost = {stage["stage"] for stage in status(directory)["stages"] if stage["state"] == "lost"}
    assert lost == stages
    assert not status(directory)["complete"]
    with pytest.warns(DataWarning, match=r"not in the store any more .*computed again"):
        runner.run()
    assert status(directory)["complete"]
    assert contents(directory) == before
    assert check(directory)[1] == []


@pytest.mark.parametrize("group", ["", "gram", "spectrum/ntk"])
@pytest.mark.parametrize("text", [None, "garbage", '{"zarr_format": 2}'])
def test_metadata_of_a_group_are_found_and_mended(runner: Runner, group: str, text: str | None) -> None:
    runner.run()
    store = runner.folder / "run" / "store.zarr"
    file = store / group / "zarr.json"
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    _, faults = check(store.parent)
    assert [fault.array for fault in faults] == [f"{group}/zarr.json".lstrip("/")]
    ready = runner.prepare()
    opened = open_prepared(ready)
    with opened as session:
        repair(session, ready.plan, faults)
    assert check(store.parent)[1] == []
    assert "ntk" in zarr.open_group(store, mode="r")["gram"]  # type: ignore[operator]
