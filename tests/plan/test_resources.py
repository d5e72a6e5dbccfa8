"""What a worker may use, as numbers."""

from __future__ import annotations

import pytest

from pipeline.config.cluster import SlurmCluster
from pipeline.errors import InputError
from pipeline.plan import resources

LISTING = "0, GPU-aa, 81920\n1, GPU-bb, 40960\n"
MIB = 2**20


@pytest.mark.parametrize(
    ("visible", "wanted"),
    [
        (None, {"0": 81920 * MIB, "1": 40960 * MIB}),
        ("1,0", {"1": 40960 * MIB, "0": 81920 * MIB}),
        ("GPU-bb", {"GPU-bb": 40960 * MIB}),
        ("1,7,0", {"1": 40960 * MIB}),
    ],
)
def test_visible_gpus(visible: str | None, wanted: dict[str, int]) -> None:
    assert resources.choose_gpus(LISTING, visible) == wanted


@pytest.mark.parametrize(("listing", "visible"), [("", None), (LISTING, ""), (LISTING, "-1")])
def test_no_gpu(listing: str, visible: str | None) -> None:
    with pytest.raises(InputError, match="GPUs is visible"):
        resources.choose_gpus(listing, visible)


def test_a_share_has_the_memory_of_a_worker() -> None:
    cluster = SlurmCluster(kind="slurm", nodes=3, gpus_per_node=4, memory="32 GB", gpu_memory="16 GB", cpus=6)
    whole, share = resources.resolve(cluster), resources.resolve(resources.one_worker(cluster))
    assert (whole.workers, whole.threads, whole.memory) == (12, 6, 16 * 10**9)
    assert (share.kind, share.workers, share.memory) == ("serial", 1, 16 * 10**9)


def test_memory_of_a_slurm_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "100")
    assert resources.machine_memory() == 100 * MIB
