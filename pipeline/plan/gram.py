"""Tasks of the Gram stage: which tiles each one computes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from pipeline.plan.tasks import Chunk, Task
from pipeline.plan.tiles import TileGrid

KIND = "gram"
CROSS_KIND = "cross"

TASK_SECONDS = 6.0
"""How long one task should last at an assumed rate: long against the few milliseconds that scheduling it costs, short
against a lost worker."""

TASKS_PER_WORKER = 8
"""No fewer tasks than this for each worker, so that the last ones end together."""

MOST_TASKS = 50_000
"""More tasks than this strain the scheduler for nothing."""

MOST_SIDE = 16
"""Tiles along the side of a supertile at most, unless there would be too many tasks."""

Windows = Iterable[tuple[tuple[int, int], ...]]


def gram_array(name: str) -> str:
    """Array that holds the Gram matrix of one kernel, ``ntk`` → ``gram/ntk``."""
    return f"gram/{name}"


def cross_array(name: str) -> str:
    """Array that holds K(test, train) of one kernel, ``ntk`` → ``cross/ntk``."""
    return f"cross/{name}"


def task_count(grid: TileGrid, side: int) -> int:
    """Number of tasks of a fresh Gram matrix: squares of this side on and above the diagonal."""
    across = -(-grid.blocks // side)
    return across * (across + 1) // 2


def supertile(grid: TileGrid, seconds_per_tile: float, workers: int) -> int:
    """Side, in tiles, of the squares of tiles that one task computes.

    As large as lasts ``TASK_SECONDS`` and leaves every worker ``TASKS_PER_WORKER`` tasks; larger than that where there
    would be more than ``MOST_TASKS``. A square of s² tiles needs 2 s blocks of inputs, a row of as many s² + 1.

    Args:
        seconds_per_tile: assumed, of one worker.
        workers: who will share the tasks.
    """
    side = _lasting_side(seconds_per_tile)
    while side > 1 and task_count(grid, side) < TASKS_PER_WORKER * workers:
        side -= 1
    while task_count(grid, side) > MOST_TASKS:
        side += 1
    return side


def blocks_kept(side: int) -> int:
    """Blocks of inputs that a worker keeps, so that within a square of this side it reads each one once: those of the
    columns, the row's, and one that is on its way out."""
    return side + 2


def rows_kept(tile: int, seconds_per_tile: float) -> int:
    """Rows of inputs that a worker keeps at most, to project its memory while the grid is still open."""
    return blocks_kept(_lasting_side(seconds_per_tile)) * tile


def _lasting_side(seconds_per_tile: float) -> int:
    return max(1, min(int((TASK_SECONDS / max(seconds_per_tile, 1e-9)) ** 0.5), MOST_SIDE))


def gram_tasks(
    grid: TileGrid, names: tuple[str, ...], done: Collection[Chunk], side: int = 1
) -> tuple[Task, ...]:
    """The tasks that compute every upper tile of every named kernel that is not done.

    A task covers a square of ``side`` × ``side`` tiles (a triangle on the diagonal, less at the edge). The squares do
    not depend on what is done, so a rerun gives a task the same key; it merely has fewer tiles. Tasks with nothing
    left to do are left out.

    Invariant: with ``done`` empty the ``writes`` of all tasks are each (array, tile) exactly once.

    Args:
        grid: tiles of the training rows.
        names: kernels wanted, as ``("ntk", "nngp")``.
        done: chunks with a record.
        side: tiles along the side of a supertile, ≥ 1.

    Returns:
        Tasks of kind ``gram`` without dependencies, ``args`` = one ``(i, j, names still wanted)`` a tile.

    Raises:
        ValueError: side is not positive.
    """
    return tuple(_tasks(KIND, _upper_squares(grid.blocks, side), names, gram_array, done))


def cross_tasks(
    rows: int, columns: int, names: tuple[str, ...], done: Collection[Chunk], side: int = 1
) -> tuple[Task, ...]:
    """The same for the ``rows`` × ``columns`` tiles of K(test, train), all of which exist.

    Returns:
        Tasks of kind ``cross``, else as ``gram_tasks``.

    Raises:
        ValueError: side is not positive.
    """
    return tuple(_tasks(CROSS_KIND, _rectangles(rows, columns, side), names, cross_array, done))


def _tasks(
    kind: str,
    windows: Windows,
    names: tuple[str, ...],
    array_of: Callable[[str], str],
    done: Collection[Chunk],
) -> Iterator[Task]:
    arrays = tuple((name, array_of(name)) for name in names)
    for window in windows:
        tiles = []
        writes = []
        for i, j in window:
            wanted = tuple((name, array) for name, array in arrays if (array, (i, j)) not in done)
            if wanted:
                tiles.append((i, j, tuple(name for name, _ in wanted)))
                writes.extend((array, (i, j)) for _, array in wanted)
        if tiles:
            (i, j), (k, m) = window[0], window[-1]
            key = f"{kind}/{i}.{j}" if len(window) == 1 else f"{kind}/{i}.{j}-{k}.{m}"
            yield Task(key, kind, args=tuple(tiles), writes=tuple(writes))


def _upper_squares(blocks: int, side: int) -> Windows:
    """The upper tiles in squares, one row of squares after the other; row by row within a square."""
    for top in _steps(blocks, side):
        for left in range(top, blocks, side):
            yield tuple(
                (i, j)
                for i in range(top, min(top + side, blocks))
                for j in range(max(i, left), min(left + side, blocks))
            )


def _rectangles(rows: int, columns: int, side: int) -> Windows:
    for top in _steps(rows, side):
        for left in range(0, columns, side):
            yield tuple(
                (i, j)
                for i in range(top, min(top + side, rows))
                for j in range(left, min(left + side, columns))
            )


def _steps(blocks: int, side: int) -> range:
    if side < 1:
        raise ValueError(f"a supertile needs side ≥ 1, got {side}")
    return range(0, blocks, side)
