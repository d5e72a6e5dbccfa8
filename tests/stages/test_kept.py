"""Products whose tiles stay with the workers: the same bits, fewer readings, no more memory than was said."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.cluster import LocalCluster
from pipeline.config.load import validate
from pipeline.config.model import RunConfig
from pipeline.plan import show
from pipeline.plan.tiles import TileGrid
from pipeline.stages import operator
from pipeline.stages.kept import KeptTiles
from pipeline.stages.opening import open_prepared
from pipeline.stages.order import run_stages
from pipeline.stages.prepare import prepare
from pipeline.stages.session import Session
from tests.object_store import Proxy, bucket, proxy, server  # noqa: F401


class Source:
    """Tiles that are their keys, and which of them were read."""

    grid = TileGrid(60, 10)

    def __init__(self) -> None:
        self.read: list[tuple[int, int]] = []

    def tile(self, i: int, j: int) -> np.ndarray:
        self.read.append((i, j))
        return np.array([i, j])

    def stream(self, keys: Any) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        return ((key, self.tile(*key)) for key in keys)

    def entries(self, rows: np.ndarray, x: np.ndarray | None, block: int) -> np.ndarray:
        raise NotImplementedError


PATCHES = [[(i, j) for i in range(3) for j in range(i, 3)], [(i, j) for i in range(3) for j in range(3, 6)]]


def go_through(
    kept: KeptTiles, source: Source, patches: list[list[tuple[int, int]]], product: int, most: int
):
    for patch in patches:
        for key, tile in kept.stream(source, patch, product, most):
            assert tuple(tile) == key
            assert len(kept) <= most


@given(st.integers(0, 20), st.integers(2, 5))
def test_each_tile_that_fits_is_read_once_and_the_others_once_a_product(most, products):
    kept, source = KeptTiles(), Source()
    for product in range(products):
        go_through(kept, source, PATCHES, product, most)
    counts = Counter(source.read)
    assert sum(count == 1 for count in counts.values()) == min(most, 15)
    assert all(count in (1, products) for count in counts.values())


def test_tiles_of_patches_that_went_elsewhere_make_room():
    kept, source = KeptTiles(), Source()
    go_through(kept, source, PATCHES[:1], 1, 6)
    go_through(
        kept, source, PATCHES[1:], 2, 6
    )  # what was used in the product before may be wanted in this one still
    assert sorted(kept._tiles) == PATCHES[0]
    go_through(kept, source, PATCHES[1:], 3, 6)
    assert sorted(kept._tiles) == PATCHES[1][:6]
    go_through(kept, source, [], 4, 2)
    go_through(kept, source, PATCHES[1:], 5, 2)
    assert len(kept) == 2


@pytest.fixture
def opened(runner, monkeypatch) -> Callable[..., Session]:
    """`opened(workers, memory)`: a run of 70 rows in tiles of 16, compressed, in three patches a side."""
    monkeypatch.setattr("pipeline.plan.products.PATCH_BYTES", 2 * 70**2 * 8 / 9)
    gram = {"tile": 16, "compression": "lz4"}
    runner.run("gram", gram=gram)
    ready = runner.prepare(gram=gram)
    sessions = []

    def open_with(workers: int, room: float) -> Any:
        kind = "local" if workers else "serial"
        memory = int(10**12 * room) or 1
        resources = dataclasses.replace(
            ready.plan.resources, kind=kind, workers=workers, threads=1, memory=memory
        )
        opened = open_prepared(ready, resources)
        sessions.append(opened)
        return opened

    return open_with


def products(session: Session, count: int = 4) -> tuple[list[np.ndarray], operator.GramOperator]:
    gram = operator.stored_operator(session, "ntk", "solve")
    vectors = np.random.default_rng(0).standard_normal((70, 2))
    found = []
    for _ in range(count):
        vectors = gram.matvec(vectors)
        vectors /= np.abs(vectors).max()
        found.append(vectors)
    return found, gram


def equal(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_same_bits_with_and_without_keeping_and_whoever_works(opened):
    with opened(0, 0) as session:
        alone, gram = products(session)
        assert gram.read == 4 * 15
    with opened(1, 1) as session:
        kept, gram = products(session)
        assert equal(kept, alone)
        assert gram.read == 15
    with opened(2, 0) as session:
        streamed, gram = products(session)
        assert equal(streamed, alone)
        assert gram.read == 4 * 15
    with opened(2, 1) as session:
        shared, gram = products(session, 8)
        assert equal(shared[:4], alone)
        # Patches may change hands now and then.
        assert 15 <= gram.read <= 30


def test_a_worker_that_dies_and_one_that_comes_change_nothing(opened):
    with opened(0, 0) as session:
        alone, _ = products(session, 6)
    with opened(2, 1) as session:
        gram = operator.stored_operator(session, "ntk", "solve")
        vectors = np.random.default_rng(0).standard_normal((70, 2))
        for step in range(6):
            if step in (1, 3):
                # One dies with what it has; another is started in its place and comes when it likes.
                os.kill(int(session.executor.workers()[0]["pid"]), signal.SIGKILL)
            vectors = gram.matvec(vectors)
            vectors /= np.abs(vectors).max()
            np.testing.assert_array_equal(vectors, alone[step])


def test_a_matrix_in_a_bucket_is_fetched_once(runner, bucket, proxy: Proxy, monkeypatch) -> None:  # noqa: F811
    monkeypatch.setattr("pipeline.plan.products.PATCH_BYTES", 2 * 70**2 * 8 / 9)
    runner.run("gram", out=str(bucket))
    ready = runner.prepare(out=str(bucket))
    resources = dataclasses.replace(ready.plan.resources, kind="local", workers=1, threads=1, memory=10**12)
    opened = open_prepared(ready, resources)
    with opened as session:
        proxy.requests.clear()
        products(session)
        # Their keys end with their numbers; Zarr's metadata is read besides.
        asked = [path for method, path in proxy.requests if method == "GET" and "/gram/ntk/c/" in path]
    assert len(asked) == len(set(asked)) == 15


def test_memory_stays_below_what_the_plan_says(tmp_path: Path, monkeypatch) -> None:
    """With room for a few tiles, and for most of them."""
    monkeypatch.setattr("pipeline.plan.products.PATCH_BYTES", 30e6)
    n, tile = 6144, 512
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((n, 2)))
    np.save(tmp_path / "y.npy", rng.standard_normal((n, 1)))
    document = {
        "data": {"train": {"x": str(tmp_path / "x.npy"), "y": str(tmp_path / "y.npy")}, "task": "regression"},
        "kernel": {"architecture": [{"Dense": {"out_dim": 1}}]},
        "gram": {"tile": tile, "compression": "lz4"},
        "solve": {"method": "cg", "ridge": [1e-2], "preconditioner": "none"},
        "spectrum": {"method": "none"},
        "out": str(tmp_path / "run"),
    }
    config, found = validate(RunConfig, document, "test"), []
    for memory in ("440 MB", "600 MB"):
        ready = prepare(config, LocalCluster(workers=2, threads=1, memory=memory))
        stage = ready.plan.stage("solve")
        assert stage is not None and stage.kept
        assert f"workers keep {stage.kept} of 78 tiles in memory" in show.text(ready.plan)
        opened = open_prepared(ready)
        if not found:
            with opened as session:
                run_stages(session, ready.plan, only="gram")
            opened = open_prepared(ready)
        with opened as session:
            gram = operator.stored_operator(session, "ntk", "solve")
            for _ in range(6):
                gram.matvec(rng.standard_normal((n, 1)))
            assert session.peak_memory <= stage.peak <= ready.plan.resources.memory
            found.append((session.peak_memory, stage.peak, gram.read))
    (less, low, some), (more, high, all_of_it) = found
    # What a worker keeps is all that the second needs besides; it has half of the tiles, and may have three quarters.
    assert some > all_of_it
    # Nearly all patches went back to where they had been, once both workers had begun.
    assert 78 <= all_of_it <= 2 * 78
    assert 0.2 * (high - low) < more - less <= high - low
