"""An object store that fails for a while, or for good: the arrays of a run on a disk that nothing happened to, bit for
bit, or a clean end with cause and remedy, from which the run goes on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.cli.verify import verify_command
from pipeline.stages.status import status
from pipeline.stages.verify import check
from pipeline.store import bucket as bucket_module
from pipeline.store.faults import StoreRefused, StoreUnreachable
from pipeline.store.place import ObjectPath
from pipeline.store.register import Holder
from tests.object_store import Proxy, Trouble, bucket, contents, proxy, server  # noqa: F401
from tests.stages.conftest import Runner

pytestmark = pytest.mark.faults

STAGES = ("gram", "solve", "predict", "spectrum")

WANTED = {"gram": {"tile": 24}, "solve": {"ridge": [1e-3]}, "spectrum": {"method": "eigh", "count": 5}}
"""Few tiles: every request passes through Python twice here."""


def run(runner: Runner, out: object, stages: tuple[str, ...] = STAGES) -> None:
    for stage in stages:
        runner.run(stage, **WANTED, out=str(out))


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="session")
def on_a_disk(runner: Runner) -> dict[str, bytes]:
    """What a run on a disk stores that nothing happens to."""
    out = runner.folder / "on-a-disk"
    run(runner, out)
    root = out / "store.zarr"
    files = [file for file in root.rglob("*") if file.is_file() and file.name.isdecimal()]
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


@pytest.mark.faults("S3: tiles damaged and removed in the bucket", "named; repaired, then identical")
def test_a_run_in_a_bucket_is_that_on_a_disk(
    runner: Runner,
    bucket: ObjectPath,  # noqa: F811
    on_a_disk: dict[str, bytes],
) -> None:
    run(runner, bucket)
    assert contents(bucket) == on_a_disk
    before = sorted(bucket.sizes())
    run(runner, bucket)
    assert [name for name in sorted(bucket.sizes()) if not name.startswith("leases/")] == [
        name for name in before if not name.startswith("leases/")
    ], "a finished run is left alone"
    assert {stage["stage"]: stage["state"] for stage in status(bucket)["stages"]} == {
        **dict.fromkeys(STAGES, "done"), "report": "pending",
    }  # fmt: skip

    store = bucket / "store.zarr/gram/ntk/c"
    (store / "0/1").write_bytes(b"something else")
    (store / "1/1").unlink()
    assert [fault.key for fault in check(bucket)[1]] == [(0, 1), (1, 1)]
    document, _ = verify_command(bucket, repair=True, cluster="serial", allow_code=False)
    assert document["sound"] and len(document["repaired"]) == 2
    assert contents(bucket) == on_a_disk


EVERY_SO_OFTEN = {
    "S3: 503 Slow Down, 20 requests in five bursts": [
        Trouble("busy", "PUT GET HEAD POST", skip=skip, times=4) for skip in (5, 20, 35, 50, 65)
    ],
    "S3: connection cut within a PUT, four tiles": [Trouble("cut request", "PUT", "/c/", skip=3, times=4)],
    "S3: PUT done and its answer lost, tiles and journal": [
        Trouble("lost answer", "PUT", "/c/", skip=2, times=3),
        Trouble("lost answer", "PUT", "/journal/", times=2),
    ],
    "S3: connection cut within a GET, four tiles": [Trouble("cut answer", "GET", "/c/", skip=3, times=4)],
}


@pytest.mark.parametrize(
    "troubles",
    [
        pytest.param(
            list(troubles),
            marks=[
                pytest.mark.faults(name, "tried again, identical"),
                *([] if "lost" in name else [pytest.mark.slow]),
            ],
            id=name,
        )
        for name, troubles in EVERY_SO_OFTEN.items()
    ],
)
def test_what_passes_is_tried_again(
    runner: Runner,
    bucket: ObjectPath,  # noqa: F811
    proxy: Proxy,  # noqa: F811
    on_a_disk: dict[str, bytes],
    troubles: list[Trouble],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bucket_module, "FIRST_PAUSE", 0.01)
    proxy.troubles = troubles
    run(runner, bucket, ("gram",))
    assert sum(proxy.happened.values()) == sum(trouble.times for trouble in troubles)
    stored = contents(bucket)
    assert stored == {key: on_a_disk[key] for key in stored}
    assert {key for key in on_a_disk if key.startswith(("gram/", "inputs/"))} <= stored.keys()
    assert check(bucket)[1] == []


@pytest.mark.faults(
    "S3: gone during the tiles, back later", "exit 3 in less than 30 s, named; resumes, identical"
)
def test_a_store_that_is_gone_ends_the_run_and_loses_nothing(
    runner: Runner,
    bucket: ObjectPath,  # noqa: F811
    proxy: Proxy,  # noqa: F811
    on_a_disk: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With shorter patience than in earnest, in the same proportion: 20 s there are 1 s here."""
    monkeypatch.setattr(bucket_module, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(bucket_module, "QUICK_SECONDS", 0.2)
    proxy.troubles = [Trouble("gone", "PUT", "gram/ntk/c/", skip=2)]
    began = time.monotonic()
    with pytest.raises(StoreUnreachable, match=f"s3://{bucket.bucket}/runs/a/") as caught:
        run(runner, bucket, ("gram",))
    assert time.monotonic() - began < 15
    assert caught.value.exit_code == 3 and "resumes" in str(caught.value.hint)
    proxy.gone = False
    monkeypatch.setattr(Holder, "is_gone", lambda holder: True)  # as that process would be
    finished = {key for key in contents(bucket) if key.startswith("gram/")}
    assert 0 < len(finished) < sum(key.startswith("gram/") for key in on_a_disk)
    proxy.requests.clear()
    run(runner, bucket, ("gram",))
    stored = contents(bucket)
    assert stored == {key: on_a_disk[key] for key in stored}
    again = {
        path.split("store.zarr/")[1] for method, path in proxy.requests if method == "PUT" and "/c/" in path
    }
    assert not finished & again, "no finished tile is computed again"


@pytest.mark.faults("S3: a bucket that is not there", "exit 2 at once, named")
def test_what_will_not_pass_is_said_at_once(
    runner: Runner,
    bucket: ObjectPath,  # noqa: F811
) -> None:
    with pytest.raises(StoreRefused, match="NoSuchBucket") as caught:
        run(runner, ObjectPath("there-is-no-such-bucket", "runs/a"))
    assert caught.value.exit_code == 2
    assert not Path("s3:").exists()
