"""Peak memory of a worker, projected from the plan before anything runs, and the refusal when it cannot fit.

Every formula counts what is alive at the worst moment of one task of its kind, in bytes, by part, so that a
refusal can name the worst one. Storing a block costs as much again while it is encoded (crc32c is appended to
a copy), and so does reading one (file bytes beside the decoded block).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config.sizes import human_bytes
from pipeline.errors import InputError

MB = 10**6
# Resident memory of a process that holds no data, measured on Linux x86-64: 87 MB with numpy, scipy, zarr and
# distributed imported, 265-330 MB with JAX 0.12 besides and some kernels compiled for the CPU. Rounded up by a
# quarter for a running worker's threads, journal and allocator.
PROCESS = 110 * MB
PROCESS_WITH_JAX = 400 * MB

TILE_MULTIPLE = 64


@dataclass(frozen=True, slots=True)
class Need:
    """Peak bytes of one worker while it does one task of a kind, by part."""

    parts: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        return sum(size for _, size in self.parts)

    @property
    def largest(self) -> str:
        """Name of the greatest part."""
        return max(self.parts, key=lambda part: part[1])[0]

    def __str__(self) -> str:
        parts = sorted(self.parts, key=lambda part: -part[1])
        return ", ".join(f"{name} {human_bytes(size)}" for name, size in parts if size)


def gram_task(
    tile: int,
    *,
    row_size: int,
    rows_kept: int,
    bytes_per_pair: float,
    most_bytes: float = math.inf,
    outputs: int = 1,
    itemsize: int = 8,
    queue: int = 2,
    process: int = PROCESS_WITH_JAX,
) -> Need:
    """One b×b tile of the Gram matrix.

    process + kept·row·item (blocks of inputs, as stored) + 4·b·row·8 (two of them padded, in the kernel's precision and
    in float64) + b²·(temporaries of the kernel)
    + 2·outputs·b²·item (results on the device and on the host) + queue·2·b²·item (blocks waiting to be
    written, each with its encoded copy).

    Args:
        tile: b.
        row_size: numbers in one input.
        rows_kept: rows of inputs that stay in memory for the tiles to come.
        bytes_per_pair: temporaries of the kernel for one entry (``ntk.analytic.cost``).
        most_bytes: of temporaries, where the kernel takes the entries in blocks.
        outputs: kernels wanted of each tile (ntk, nngp).
        itemsize: bytes of a stored entry.
        queue: blocks that wait for the writer at most.
        process: bytes of the process without data.
    """
    block = tile * tile * itemsize
    return Need((
        ("process", process),
        ("inputs", row_size * (rows_kept * itemsize + 4 * tile * 8)),
        ("kernel temporaries", int(min(tile * tile * bytes_per_pair, most_bytes))),
        ("results", 2 * outputs * block),
        ("blocks being written", 2 * queue * block),
    ))  # fmt: skip


def largest_tile(
    limit: int, need: Callable[[int], Need], *, multiple: int = TILE_MULTIPLE, most: int | None = None
) -> int | None:
    """The largest multiple of ``multiple`` at which ``need(tile)`` stays within ``limit``.

    Args:
        limit: bytes allowed for a worker.
        need: peak of a worker as a function of the tile, not decreasing.
        multiple: step, 64 by default: what BLAS, XLA and a GPU block like.
        most: no tile above this, rounded up to the step (N, say); without it the search ends at 65,536.

    Returns:
        The tile, or None when not even the smallest fits.
    """
    steps = max(1, -(-(65_536 if most is None else most) // multiple))
    low, high = 0, steps  # low steps fit, high + 1 do not (or are not wanted)
    while low < high:
        middle = (low + high + 1) // 2
        if need(middle * multiple).total <= limit:
            low = middle
        else:
            high = middle - 1
    return low * multiple or None


def require_fits(
    name: str,
    need: Need,
    limit: int,
    *,
    tile: int | None = None,
    need_of_tile: Callable[[int], Need] | None = None,
) -> None:
    """Refuse what cannot fit, before any work.

    Args:
        name: what needs it, as ``gram task``.
        need: its projected peak.
        limit: bytes allowed for a worker.
        tile: the tile in use, for the message.
        need_of_tile: the peak as a function of the tile, to propose one that fits.

    Raises:
        InputError: need exceeds limit; names the greatest part, all parts and a tile size that would fit.
    """
    if need.total <= limit:
        return
    at = f" with tile {tile}" if tile else ""
    fitting = largest_tile(limit, need_of_tile, most=tile) if need_of_tile else None
    remedy = f"allow at least {human_bytes(need.total)} per worker"
    if fitting:
        remedy = f"set gram.tile to {fitting} (or less), or {remedy}"
    elif need_of_tile is not None:
        remedy = f"no tile fits; {remedy}"
    raise InputError(
        f"{name}{at}: a worker would need {human_bytes(need.total)}, the limit is {human_bytes(limit)}; "
        f"most of it is {need.largest} ({need})",
        hint=remedy,
    )
