"""Inputs on a scratch disk of the node: read from the store once for all its workers, and no bit of a result moves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pipeline.config.cluster import LocalCluster
from pipeline.config.load import validate
from pipeline.config.model import RunConfig
from pipeline.stages.opening import open_prepared
from pipeline.stages.order import run_stages
from pipeline.stages.prepare import prepare
from pipeline.store.place import ObjectPath
from tests.object_store import Proxy, bucket, contents, proxy, server  # noqa: F401


def inputs_read(proxy: Proxy) -> Counter[str]:  # noqa: F811
    """How often each block of inputs was fetched."""
    paths = [path for method, path in proxy.requests if method == "GET" and "/inputs/x_" in path]
    return Counter(path.split("store.zarr/")[1] for path in paths if "/c/" in path)


def test_two_workers_read_the_inputs_once(runner, bucket: ObjectPath, proxy: Proxy, tmp_path: Path) -> None:  # noqa: F811
    fields = {"gram": {"tile": 16, "cross": True}}
    runner.run("gram", **fields)  # in this process, on a disk
    config = validate(RunConfig, runner.document(out=str(bucket), **fields), "test")
    ready = prepare(config, LocalCluster(workers=2, threads=1, scratch=str(tmp_path / "scratch")))
    opened = open_prepared(ready)
    with opened as session:
        run_stages(session, ready.plan, only="gram")
        records = [
            *session.journal.records("gram/ntk").values(),
            *session.journal.records("cross/ntk").values(),
        ]
    assert len({record.worker for record in records}) == 2
    blocks = [f"inputs/x_train/c/{block}/0" for block in range(5)]
    blocks += [f"inputs/x_test/c/{block}/0" for block in range(2)]
    assert inputs_read(proxy) == dict.fromkeys(blocks, 1)
    root = tmp_path / "run/store.zarr"
    files = [file for file in root.rglob("*") if file.name.isdecimal() and file.is_file()]
    assert contents(bucket) == {str(file.relative_to(root)): file.read_bytes() for file in files}
    (home,) = (tmp_path / "scratch").iterdir()
    assert list(home.iterdir()) == [], "the last worker removes the copies"
