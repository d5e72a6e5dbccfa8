"""Tasks of the Gram stage: which tiles each one computes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

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

TAIL_TASKS = 3
"""So many squares of every worker, the last ones, are cut into single tiles."""

MESSAGE_SECONDS = 0.003
"""What a task costs the coordinator: all workers together are not served faster."""

Windows = Iterable[tuple[tuple[int, int], ...]]


def gram_array(name: str) -> str:
    """Array that holds the Gram matrix of one kernel, ``ntk`` → ``gram/ntk``."""
    return f"gram/{name}"


def cross_array(name: str) -> str:
    """Array that holds K(test, train) of one kernel, ``ntk`` → ``cross/ntk``."""
    return f"cross/{name}"


@dataclass(frozen=True, slots=True)
class Cut:
    """How a Gram matrix is cut into tasks.

    Attributes:
        side: tiles along the side of the square that a task computes.
        tail: the last so many rows of tiles are cut into single tiles: they are computed last, and short tasks let all
            workers end together.
    """

    side: int = 1
    tail: int = 0


def task_count(grid: TileGrid, cut: Cut) -> int:
    """Number of tasks of a fresh Gram matrix."""
    squares = (grid.blocks - cut.tail) // cut.side if cut.tail else -(-grid.blocks // cut.side)
    across = -(-grid.blocks // cut.side)
    return squares * across - squares * (squares - 1) // 2 + cut.tail * (cut.tail + 1) // 2


def supertile(grid: TileGrid, seconds_per_tile: float, workers: int) -> Cut:
    """The cut for so many workers.

    Squares as large as last ``TASK_SECONDS`` and leave every worker ``TASKS_PER_WORKER`` tasks; larger than that where
    there would be more than ``MOST_TASKS``. A square of s² tiles needs 2 s blocks of inputs, a row of as many s² + 1.

    Args:
        seconds_per_tile: assumed, of one worker.
        workers: who will share the tasks.
    """
    side = _lasting_side(seconds_per_tile)
    while side > 1 and task_count(grid, Cut(side)) < TASKS_PER_WORKER * workers:
        side -= 1
    while task_count(grid, cut := _tapered(grid, side, workers, seconds_per_tile)) > MOST_TASKS:
        side += 1
    return cut


def _tapered(grid: TileGrid, side: int, workers: int, seconds_per_tile: float) -> Cut:
    """Single tiles for the last ``TAIL_TASKS`` squares of every worker, as long as they are a small part and do not
    come faster than the coordinator can serve them."""
    if side == 1 or seconds_per_tile < workers * MESSAGE_SECONDS:
        return Cut(side)
    tiles = min(TAIL_TASKS * workers * side * side, grid.count // 4, MOST_TASKS // 2)
    tail = int(((1 + 8 * tiles) ** 0.5 - 1) / 2)
    whole = (
        -(-(grid.blocks - tail) // side) * side
    )  # rows of whole squares end where those of single tiles begin
    return Cut(side, max(grid.blocks - whole, 0))


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
    grid: TileGrid, names: tuple[str, ...], done: Collection[Chunk], cut: Cut = Cut()
) -> tuple[Task, ...]:
    """The tasks that compute every upper tile of every named kernel that is not done.

    A task covers a square of tiles (a triangle on the diagonal, less at the edge), at the end one tile. The cut does
    not depend on what is done, so a rerun gives a task the same key; it merely has fewer tiles. Tasks with nothing
    left to do are left out.

    Invariant: with ``done`` empty the ``writes`` of all tasks are each (array, tile) exactly once.

    Args:
        grid: tiles of the training rows.
        names: kernels wanted, as ``("ntk", "nngp")``.
        done: chunks with a record.
        cut: as ``supertile`` gives it.

    Returns:
        Tasks of kind ``gram`` without dependencies, ``args`` = one ``(i, j, names still wanted)`` a tile.

    Raises:
        ValueError: side is not positive.
    """
    return tuple(each_gram_task(grid, names, done, cut))


def each_gram_task(
    grid: TileGrid, names: tuple[str, ...], done: Collection[Chunk], cut: Cut = Cut()
) -> Iterator[Task]:
    """As ``gram_tasks``, one after the other."""
    return _tasks(KIND, _upper_squares(grid.blocks, cut), names, gram_array, done)


def cross_tasks(
    rows: int, columns: int, names: tuple[str, ...], done: Collection[Chunk], side: int = 1
) -> tuple[Task, ...]:
    """The same for the ``rows`` × ``columns`` tiles of K(test, train), all of which exist.

    Returns:
        Tasks of kind ``cross``, else as ``gram_tasks``.

    Raises:
        ValueError: side is not positive.
    """
    return tuple(each_cross_task(rows, columns, names, done, side))


def each_cross_task(
    rows: int, columns: int, names: tuple[str, ...], done: Collection[Chunk], side: int = 1
) -> Iterator[Task]:
    """As ``cross_tasks``, one after the other."""
    return _tasks(CROSS_KIND, _rectangles(rows, columns, side), names, cross_array, done)


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


def _upper_squares(blocks: int, cut: Cut) -> Windows:
    """The upper tiles in squares, one row of squares after the other, row by row within a square; then the single ones
    of the tail."""
    side, end = cut.side, blocks - cut.tail
    for top in _steps(end, side):
        for left in range(top, blocks, side):
            yield tuple(
                (i, j)
                for i in range(top, min(top + side, end))
                for j in range(max(i, left), min(left + side, blocks))
            )
    for i in range(end, blocks):
        for j in range(i, blocks):
            yield ((i, j),)


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
