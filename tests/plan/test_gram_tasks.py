import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan.gram import gram_tasks
from pipeline.plan.tiles import TileGrid

grids = st.builds(TileGrid, n=st.integers(1, 40), tile=st.integers(1, 45))
names = st.sampled_from([("ntk",), ("nngp",), ("ntk", "nngp")])


@given(grids, names, st.integers(1, 12))
def test_every_entry_of_every_kernel_is_written_once(grid, names, size):
    covered = {f"gram/{name}": np.zeros((grid.n, grid.n), dtype=int) for name in names}
    for task in gram_tasks(grid, names, set(), size):
        assert 1 <= len(task.args) <= size
        assert task.writes == tuple((f"gram/{name}", (i, j)) for i, j, wanted in task.args for name in wanted)
        for array, (i, j) in task.writes:
            covered[array][grid.rows(i), grid.rows(j)] += 1
            if i < j:
                covered[array][grid.rows(j), grid.rows(i)] += 1
    assert all((counts == 1).all() for counts in covered.values())


@given(grids, names, st.integers(1, 12), st.data())
def test_a_resumed_plan_is_the_rest_under_the_same_keys(grid, names, size, data):
    fresh = gram_tasks(grid, names, set(), size)
    chunks = [chunk for task in fresh for chunk in task.writes]
    done = data.draw(st.sets(st.sampled_from(chunks)))
    resumed = gram_tasks(grid, names, done, size)
    assert [chunk for task in resumed for chunk in task.writes] == [c for c in chunks if c not in done]
    wrote = {task.key: set(task.writes) for task in fresh}
    assert len(wrote) == len(fresh)
    assert all(set(task.writes) <= wrote[task.key] for task in resumed)


def test_a_supertile_shares_its_row():
    tasks = gram_tasks(TileGrid(8, 1), ("ntk",), set(), 4)
    assert [(i, j) for i, j, _ in tasks[0].args] == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert tasks[0].key == "gram/0.0-0.3"


def test_refuses_an_empty_supertile():
    with pytest.raises(ValueError, match="tiles_per_task"):
        gram_tasks(TileGrid(8, 1), ("ntk",), set(), 0)
