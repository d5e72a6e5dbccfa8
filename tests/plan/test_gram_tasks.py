import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan.gram import (
    MOST_TASKS,
    TASK_SECONDS,
    TASKS_PER_WORKER,
    Cut,
    blocks_kept,
    cross_tasks,
    gram_tasks,
    supertile,
    task_count,
)
from pipeline.plan.tiles import TileGrid

grids = st.builds(TileGrid, n=st.integers(1, 40), tile=st.integers(1, 45))
names = st.sampled_from([("ntk",), ("nngp",), ("ntk", "nngp")])


@st.composite
def grids_and_cuts(draw):
    grid = draw(grids)
    side = draw(st.integers(1, 12))
    rows = draw(st.integers(0, grid.blocks // side)) * side
    return grid, Cut(side, grid.blocks - rows if rows else 0)


@given(grids_and_cuts(), names)
def test_every_entry_of_every_kernel_is_written_once(both, names):
    grid, cut = both
    size = cut.side
    assert task_count(grid, cut) == len(gram_tasks(grid, names, set(), cut))
    covered = {f"gram/{name}": np.zeros((grid.n, grid.n), dtype=int) for name in names}
    for task in gram_tasks(grid, names, set(), cut):
        assert 1 <= len(task.args) <= size * size
        assert task.writes == tuple((f"gram/{name}", (i, j)) for i, j, wanted in task.args for name in wanted)
        for array, (i, j) in task.writes:
            covered[array][grid.rows(i), grid.rows(j)] += 1
            if i < j:
                covered[array][grid.rows(j), grid.rows(i)] += 1
    assert all((counts == 1).all() for counts in covered.values())


@given(grids_and_cuts(), names, st.data())
def test_a_resumed_plan_is_the_rest_under_the_same_keys(both, names, data):
    grid, cut = both
    fresh = gram_tasks(grid, names, set(), cut)
    chunks = [chunk for task in fresh for chunk in task.writes]
    done = data.draw(st.sets(st.sampled_from(chunks)))
    resumed = gram_tasks(grid, names, done, cut)
    assert [chunk for task in resumed for chunk in task.writes] == [c for c in chunks if c not in done]
    wrote = {task.key: set(task.writes) for task in fresh}
    assert len(wrote) == len(fresh)
    assert all(set(task.writes) <= wrote[task.key] for task in resumed)


def test_a_supertile_is_a_square():
    tasks = gram_tasks(TileGrid(8, 1), ("ntk",), set(), Cut(3))
    assert [(i, j) for i, j, _ in tasks[1].args] == [(i, j) for i in range(3) for j in range(3, 6)]
    assert [task.key for task in tasks[:2]] == ["gram/0.0-2.2", "gram/0.3-2.5"]


def test_refuses_an_empty_supertile():
    with pytest.raises(ValueError, match="side ≥ 1"):
        gram_tasks(TileGrid(8, 1), ("ntk",), set(), Cut(0))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.data())
def test_every_tile_of_a_rectangle_is_written_once(rows, columns, side, data):
    tiles = {("cross/ntk", (i, j)) for i in range(rows) for j in range(columns)}
    done = data.draw(st.sets(st.sampled_from(sorted(tiles))))
    writes = [chunk for task in cross_tasks(rows, columns, ("ntk",), done, side) for chunk in task.writes]
    assert len(writes) == len(set(writes))
    assert set(writes) == tiles - done


@given(grids, st.floats(1e-6, 100), st.integers(1, 2000))
def test_tasks_are_long_but_enough_for_all(grid, seconds, workers):
    cut = supertile(grid, seconds, workers)
    assert task_count(grid, cut) == len(gram_tasks(grid, ("ntk",), set(), cut))
    assert cut.side == 1 or cut.side**2 * seconds <= TASK_SECONDS
    assert cut.side == 1 or task_count(grid, cut) >= TASKS_PER_WORKER * workers
    assert cut.tail * (cut.tail + 1) / 2 <= grid.count / 4


@pytest.mark.parametrize("seconds", [1e-4, 1.0, 1e4])
def test_a_million_rows_are_few_tasks(seconds):
    for tile in (128, 512, 2048):
        grid = TileGrid(1_000_000, tile)
        assert task_count(grid, supertile(grid, seconds, 64)) <= MOST_TASKS


@given(st.integers(1, 30), st.integers(1, 6))
def test_a_worker_that_keeps_enough_reads_each_block_once_a_square(blocks, side):
    for task in gram_tasks(TileGrid(blocks, 1), ("ntk",), set(), Cut(side)):
        kept: list[int] = []
        reads = 0
        for i, j, _ in task.args:
            for block in (i, j):
                if block in kept:
                    kept.remove(block)
                else:
                    reads += 1
                kept = [*kept, block][-blocks_kept(side) :]
        assert reads == len({block for i, j, _ in task.args for block in (i, j)})
