"""Tasks of the reduction to a band: every chunk is written once, read while it is there, dropped when it is spent."""

from __future__ import annotations

import pytest

from pipeline.plan.band import PANEL_KIND, BandPlan, band_tasks
from pipeline.plan.tasks import Chunk, Task
from pipeline.plan.tiles import TileGrid

PLANS = [
    BandPlan(TileGrid(70, 16), 8, 2, "r"),
    BandPlan(TileGrid(64, 16), 16, 1, "r"),
    BandPlan(TileGrid(50, 7), 20, 3, "r"),
    BandPlan(TileGrid(9, 16), 16, 2, "r"),
]


def reads(plan: BandPlan, task: Task) -> set[Chunk]:
    """What a task reads of the reduction's own arrays, from the recurrence."""
    panel = task.args[0]
    previous = {(plan.reflectors, (panel - 1, 0, 0))} if panel > 0 else set()
    if task.kind == PANEL_KIND:
        rows, t = plan.rows(panel), plan.grid.tile
        tiles = {
            (plan.matrix, (panel - 1, min(i, j), max(i, j)))
            for i in range(rows.start // t, -(-rows.stop // t))
            for j in range(rows.start // t, plan.grid.blocks)
            if panel > 1
        }
        shares = {(plan.products, (panel - 1, share, 0, 0)) for share in range(plan.shares) if panel > 0}
        return tiles | shares | previous
    old = {(plan.matrix, (panel - 1, *tile)) for tile in plan.share(panel, task.args[1]) if panel > 1}
    update = {(plan.updates, (panel, 0, 0))} if panel > 0 else set()
    return old | update | previous | {(plan.reflectors, (panel, 0, 0)), (plan.triangles, (panel, 0, 0))}


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("interval", [1, 3, 1000])
def test_reads_find_what_they_need_and_spent_chunks_are_never_read(plan: BandPlan, interval: int) -> None:
    """Run in order, restarted every few tasks, with what is spent dropped after each."""
    done: set[Chunk] = set()
    written: set[Chunk] = set()
    while tasks := band_tasks(plan, done, "x"):
        finished: set[str] = set()
        for task in tasks[:interval]:
            assert set(task.deps) <= finished
            assert reads(plan, task) <= done, task
            assert not written & set(task.writes)
            done |= set(task.writes)
            written |= set(task.writes)
            finished.add(task.key)
            done -= set(plan.spent(done))
    kept = {plan.band, plan.reflectors, plan.triangles}
    assert {name for name, _ in done} <= kept
    assert {key[0] for name, key in done if name == plan.band} == set(range(plan.panels))


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_shares_cover_the_rest_of_the_matrix(plan: BandPlan) -> None:
    for panel in range(plan.panels - 1):
        dealt = [tile for share in range(plan.shares) for tile in plan.share(panel, share)]
        assert sorted(dealt) == sorted(plan.tiles(panel))
        assert len(dealt) == len(set(dealt))
