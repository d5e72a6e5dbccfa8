"""Tiles that workers keep between the products of an iteration, as far as their memory goes.

Pages of plain files are kept by the system already, for all processes of a machine together: a worker keeps what it
would have to fetch, decode or compute again.
"""

from __future__ import annotations

import math

from pipeline.plan.resources import Resources
from pipeline.plan.tiles import TileGrid

SHARES = 1.5
"""A worker may keep so many equal shares of a matrix: some are faster than others, and some leave."""

ROOM = 0.9
"""Share of the memory beside a product that tiles may take: an allocator does not fill every gap."""


def kept_tiles(grid: TileGrid, itemsize: int, need: int, resources: Resources) -> int:
    """Tiles that a worker may keep beside what a product needs (`need` bytes).

    A worker that is also the process that iterates keeps none: the iteration has a use for its memory.
    """
    if resources.kind == "serial":
        return 0
    room = ROOM * (resources.memory - need) / (grid.tile**2 * itemsize)
    return max(0, min(int(room), grid.count, math.ceil(SHARES * grid.count / resources.workers)))
