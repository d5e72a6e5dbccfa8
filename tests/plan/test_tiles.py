import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan.tiles import TileGrid

grids = st.builds(TileGrid, n=st.integers(1, 60), tile=st.integers(1, 70))


@given(grids)
def test_tiles_and_their_transposes_cover_every_entry_once(grid):
    covered = np.zeros((grid.n, grid.n), dtype=int)
    for i, j in grid.upper():
        block = covered[grid.rows(i), grid.rows(j)]
        assert block.shape == grid.shape(i, j)
        assert block.size == grid.entries(i, j) > 0
        block += 1
        if i < j:
            covered[grid.rows(j), grid.rows(i)] += 1
    assert (covered == 1).all()


@given(grids)
def test_index_is_the_position_in_the_order(grid):
    assert [grid.index(i, j) for i, j in grid.upper()] == list(range(grid.count))


@given(grids)
def test_a_grown_matrix_keeps_its_whole_tiles(grid):
    grown = TileGrid(grid.n + 1, grid.tile)
    whole = [(i, j) for i, j in grid.upper() if grid.shape(i, j) == (grid.tile, grid.tile)]
    assert all(grown.rows(i) == grid.rows(i) and grown.rows(j) == grid.rows(j) for i, j in whole)


@pytest.mark.parametrize(("n", "tile"), [(0, 1), (1, 0), (-3, 2)])
def test_refuses_what_is_not_positive(n, tile):
    with pytest.raises(ValueError, match=f"n = {n}, tile = {tile}"):
        TileGrid(n, tile)


def test_refuses_tiles_outside():
    grid = TileGrid(10, 4)
    with pytest.raises(IndexError):
        grid.rows(3)
    with pytest.raises(IndexError):
        grid.index(2, 1)
