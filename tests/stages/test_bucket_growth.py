"""Shares and growth of a run in a bucket give the tiles of one run on a disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.store.place import ObjectPath
from tests.object_store import bucket, server  # noqa: F401
from tests.object_store import contents as stored
from tests.stages.conftest import Runner


@pytest.mark.slow
def test_shares_and_new_rows_give_the_same_tiles(runner: Runner, bucket: ObjectPath) -> None:  # noqa: F811
    wanted = {"gram": {"tile": 24}}
    for share in ((2, 2), (1, 2)):
        runner.run("gram", share, **wanted, out=str(bucket))
    runner.run("gram", **wanted, out=str(bucket))
    rng = np.random.default_rng(1)
    for name, more in (("x", rng.standard_normal((30, 6))), ("y", rng.standard_normal((30, 2)))):
        np.save(runner.folder / f"{name}.npy", np.concatenate([getattr(runner, name), more]))
    runner.run("gram", extend=True, **wanted, out=str(bucket))
    whole = runner.folder / "whole"
    runner.run("gram", **wanted, out=str(whole))
    assert stored(bucket) == _files(whole / "store.zarr")


def _files(root: Path) -> dict[str, bytes]:
    files = [file for file in root.rglob("*") if file.is_file() and file.name.isdecimal()]
    return {str(file.relative_to(root)): file.read_bytes() for file in files}
