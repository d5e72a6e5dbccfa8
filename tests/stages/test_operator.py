"""The Gram operator equals the dense matrix, whoever computes it, stored or computed."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import GateError
from pipeline.opened import open_run
from pipeline.plan.products import Patches
from pipeline.plan.resources import Resources
from pipeline.plan.tiles import TileGrid
from pipeline.stages import operator
from pipeline.stages.opening import open_prepared
from pipeline.store.faults import TileError


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(10, 200), st.integers(1, 12))
def test_patches_cover_every_upper_tile_once(n, tile, width):
    grid = TileGrid(n, tile)
    patches = Patches(grid, min(width, grid.blocks))
    tiles = [tile for patch in patches.upper() for tile in patches.tiles(*patch)]
    assert sorted(tiles) == list(grid.upper())
    rows = [patches.rows(side) for side in range(patches.sides)]
    assert rows[0].start == 0
    assert rows[-1].stop == n
    assert all(a.stop == b.start for a, b in itertools.pairwise(rows))
    assert all(part.stop - part.start <= patches.rows_per_side for part in rows)


def test_the_number_of_patches_grows_with_the_matrix_and_is_bounded():
    sides = [Patches.of(TileGrid(n, 2048), 4).sides for n in (1_000, 50_000, 200_000, 1_000_000)]
    assert sides == sorted(sides)
    assert sides[0] == 1
    assert sides[-1] <= 48


@pytest.fixture(params=["float64", "float32"])
def session(request, runner, monkeypatch):
    """A run of 70 rows in 5 tiles a side whose Gram matrix is stored, in 3 patches a side."""
    monkeypatch.setattr(
        "pipeline.plan.products.PATCH_BYTES", 2 * 70**2 * np.dtype(request.param).itemsize / 9
    )
    kernel = {"architecture": runner.document()["kernel"]["architecture"], "precision": request.param}
    runner.run("gram", kernel=kernel)
    ready = runner.prepare(kernel=kernel)
    opened = open_prepared(ready)
    with opened as session:
        yield session


@pytest.fixture(params=[operator.stored_operator, operator.computed_operator])
def gram(request, session):
    return request.param(session, "ntk", "solve")


@pytest.fixture
def matrix(session):
    return open_run(session.directory).gram("ntk").to_numpy().astype(np.float64)


def tolerance(session):
    return 1e-13 if session.spec.precision == "float64" else 2e-6


def test_it_is_the_dense_matrix(session, gram, matrix):
    vectors = np.random.default_rng(0).standard_normal((70, 3))
    near = {"rtol": 0, "atol": tolerance(session) * np.abs(matrix).max() * 70}
    np.testing.assert_allclose(gram.matvec(vectors), matrix @ vectors, **near)
    np.testing.assert_allclose(gram.matvec(vectors[:, 0]), matrix @ vectors[:, 0], **near)
    np.testing.assert_array_equal(gram.matvec(vectors), gram.matvec(vectors))
    np.testing.assert_allclose(gram.diagonal(), np.diag(matrix), **near)
    np.testing.assert_allclose(gram.block(3, 1), matrix[48:64, 16:32], **near)
    chosen = [69, 3, 3, 40, 17]
    np.testing.assert_allclose(gram.rows(chosen), matrix[chosen], **near)
    assert gram.rows([]).shape == (0, 70)
    assert gram.matvec(np.zeros((70, 0))).shape == (70, 0)


def test_what_is_wrong_is_refused(gram):
    with pytest.raises(ValueError, match="70 rows"):
        gram.matvec(np.zeros(69))
    with pytest.raises(IndexError, match="0…69"):
        gram.rows([70])
    with pytest.raises(GateError, match="not finite"):
        gram.matvec(np.full(70, np.nan))


def test_a_damaged_tile_is_found_and_scratch_leaves_nothing(session):
    gram = operator.stored_operator(session, "ntk", "solve")
    gram.matvec(np.ones(70))
    assert (session.directory / "store.zarr" / "work").exists()
    assert not any(name.startswith("work/") for name in session.store.names())
    file = session.directory / "store.zarr" / "gram" / "ntk" / "c" / "1" / "2"
    content = bytearray(file.read_bytes())
    content[17] ^= 1
    file.write_bytes(content)
    with pytest.raises(TileError, match=r"digests differ"):
        gram.matvec(np.ones(70))
    session.store.sweep()
    assert not (session.directory / "store.zarr" / "work").exists()


def test_two_workers_give_the_same_bits(session, runner):
    vectors = np.random.default_rng(0).standard_normal((70, 2))
    alone = operator.stored_operator(session, "ntk", "solve").matvec(vectors)
    session.resources = dataclasses.replace(session.resources, kind="local", workers=2, threads=1)
    assert isinstance(session.resources, Resources)
    session._stack.close()
    session._executor = session._writer = None
    together = operator.stored_operator(session, "ntk", "solve").matvec(vectors)
    np.testing.assert_array_equal(together, alone)
