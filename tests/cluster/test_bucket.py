"""A run in the bucket of a real S3 server, killed in the middle: $NTK_TEST_S3 is its port on this machine,
$NTK_TEST_S3_KEY and $NTK_TEST_S3_SECRET its credentials (docs/stores.md). Without them the server is an imitation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.stages.verify import check
from pipeline.store.place import ObjectPath
from tests.object_store import bucket, contents, server, until  # noqa: F401

pytestmark = pytest.mark.cluster

RUN = """
data:
  train: {x: x.npy, y: y.npy}
  split: {test: 0.2}
kernel:
  architecture: [{Dense: {out_dim: 8, W_std: 1.5, b_std: 0.05}}, Relu, {Dense: {out_dim: 1}}]
gram: {tile: 64}
solve: {ridge: [1.0e-4]}
"""


def start(folder: Path, out: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipeline", "run", str(folder / "run.yaml"), "--out", str(out)]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def test_killed_and_resumed_it_equals_a_run_on_a_disk(tmp_path: Path, bucket: ObjectPath) -> None:  # noqa: F811
    rng = np.random.default_rng(0)
    labels = np.arange(900) % 3
    np.save(tmp_path / "x.npy", rng.standard_normal((3, 12))[labels] + rng.standard_normal((900, 12)))
    np.save(tmp_path / "y.npy", labels)
    (tmp_path / "run.yaml").write_text(RUN)

    def tiles() -> int:
        return len((bucket / "store.zarr/gram/ntk/c").sizes())

    process = start(tmp_path, bucket)
    until(lambda: tiles() >= 5 or process.poll() is not None, 120)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = tiles()
    for out in (bucket, tmp_path / "out"):
        assert start(tmp_path, out).wait(timeout=240) == 0, (tmp_path / "log.txt").read_text()[-3000:]
    assert kept >= 5
    root = tmp_path / "out" / "store.zarr"
    files = [file for file in root.rglob("*") if file.is_file() and file.name.isdecimal()]
    assert contents(bucket) == {str(file.relative_to(root)): file.read_bytes() for file in files}
    assert check(bucket)[1] == []
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    assert not any(
        secret in (bucket / name).read_bytes() for name in bucket.sizes() if "store.zarr" not in name
    )
    assert secret not in (tmp_path / "log.txt").read_bytes()
