"""Tasks of the Gram stage: which tiles each one computes."""

from __future__ import annotations

from collections.abc import Collection
from itertools import batched

from pipeline.plan.tasks import Chunk, Task
from pipeline.plan.tiles import TileGrid

KIND = "gram"


def gram_array(name: str) -> str:
    """Array that holds the Gram matrix of one kernel, ``ntk`` → ``gram/ntk``."""
    return f"gram/{name}"


def gram_tasks(
    grid: TileGrid, names: tuple[str, ...], done: Collection[Chunk], tiles_per_task: int = 1
) -> tuple[Task, ...]:
    """The tasks that compute every upper tile of every named kernel that is not done.

    A task covers ``tiles_per_task`` neighbours in the order of ``grid.upper()``: one row block, so that its
    inputs are loaded once, except where a row ends. The windows do not depend on what is done, so a rerun
    gives a task the same key; it merely has fewer tiles. Tasks with nothing left to do are left out.

    Invariant: with ``done`` empty the ``writes`` of all tasks are each (array, tile) exactly once.

    Args:
        grid: tiles of the training rows.
        names: kernels wanted, as ``("ntk", "nngp")``.
        done: chunks with a record.
        tiles_per_task: size of a supertile, ≥ 1.

    Returns:
        Tasks of kind ``gram`` without dependencies, ``args`` = one ``(i, j, names still wanted)`` a tile.

    Raises:
        ValueError: tiles_per_task is not positive.
    """
    if tiles_per_task < 1:
        raise ValueError(f"tiles_per_task must be ≥ 1, got {tiles_per_task}")
    arrays = tuple((name, gram_array(name)) for name in names)
    tasks = []
    for window in batched(grid.upper(), tiles_per_task):
        tiles = []
        writes = []
        for i, j in window:
            wanted = tuple((name, array) for name, array in arrays if (array, (i, j)) not in done)
            if wanted:
                tiles.append((i, j, tuple(name for name, _ in wanted)))
                writes.extend((array, (i, j)) for _, array in wanted)
        if tiles:
            (i, j), (k, m) = window[0], window[-1]
            key = f"gram/{i}.{j}" if len(window) == 1 else f"gram/{i}.{j}-{k}.{m}"
            tasks.append(Task(key, KIND, args=tuple(tiles), writes=tuple(writes)))
    return tuple(tasks)
