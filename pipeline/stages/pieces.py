"""A tile that does not fit the memory is computed in smaller pieces, by the same worker, with the same result.

The same bit for bit, for pieces are whole blocks of the tile, which is computed block by block in any case. Where not
even a block fits, an architecture on a CPU gives up: its blocks are small already. On an accelerator, whose blocks are
as large as its memory shall hold, and with a user's function smaller ones are tried: the same again where no sum
depends on how many rows it is computed for, else to the last bit or two.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.errors import TasksFailed
from pipeline.stages.kernels import KernelSpec, TileFunction

SMALLEST = 8
"""Rows of the smallest pieces that are tried, where those may be smaller than a block."""


def fewer(rows: int, grain: int, *, divisible: bool) -> int | None:
    """The rows to try next when memory ran out with so many: about half of them, whole blocks as long as they are more
    than one. None where there is nothing left to try."""
    if rows > grain:
        return max(grain, rows // 2 // grain * grain)
    return rows // 2 if divisible and rows // 2 >= SMALLEST else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the host (MemoryError) or on the device (XLA's status code)."""
    # XLA's exception has no type of its own for this.
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


@dataclass(slots=True)
class Loaded:
    """Rows of inputs, and once they were met by a whole tile, the form in which its kernel takes them."""

    x: np.ndarray
    form: Any = None

    def for_whole(self, kernel: TileFunction) -> Any:
        if self.form is None:
            self.form = kernel.load(self.x)
        return self.form


@dataclass(slots=True)
class PatientTile:
    """A tile function that takes half the rows at once whenever memory runs out, and keeps to that from then on.

    Attributes:
        spec: of the kernel.
        tile: rows of a whole tile.
        rows: rows taken at once at present; ``tile`` until memory ran out.
        pieces: into how many the last tile was cut.
    """

    spec: KernelSpec
    tile: int
    rows: int = field(init=False)
    pieces: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        self.rows = self.tile

    def load(self, x: np.ndarray) -> Loaded:
        """Rows for several tiles."""
        return Loaded(x)

    def __call__(
        self, x1: np.ndarray | Loaded, x2: np.ndarray | Loaded | None = None
    ) -> dict[str, np.ndarray]:
        """As the kernel itself.

        Raises:
            TasksFailed: not even the smallest pieces fit.
        """
        first, second = (x if x is None or isinstance(x, Loaded) else Loaded(x) for x in (x1, x2))
        assert first is not None
        while True:
            try:
                return self._compute(first, second)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                cause = str(error).split("\n")[0][:200] or type(error).__name__
            # Outside the handler: what the failed attempt holds is only free once its traceback is.
            kernel = self.spec.build(self.tile)
            rows = fewer(self.rows, kernel.grain, divisible=kernel.divisible)
            if rows is None:
                raise TasksFailed(
                    f"out of memory even with {self.rows} rows at a time: {cause}",
                    hint="set gram.tile lower, or give the workers more memory",
                )
            self.rows = rows

    def _compute(self, first: Loaded, second: Loaded | None) -> dict[str, np.ndarray]:
        kernel = self.spec.build(self.tile)
        if self.rows >= self.tile:
            self.pieces = 1
            return kernel(first.for_whole(kernel), None if second is None else second.for_whole(kernel))
        x1, x2 = first.x, first.x if second is None else second.x
        first.form = None
        if second is not None:
            second.form = None
        kernel = self.spec.build(self.rows, None if self.rows % kernel.grain else self.tile)
        whole = {name: np.empty((len(x1), len(x2)), self.spec.precision) for name in self.spec.get}
        self.pieces = 0
        for top in range(0, len(x1), self.rows):
            for left in range(top if second is None else 0, len(x2), self.rows):
                rows, columns = slice(top, top + self.rows), slice(left, left + self.rows)
                same = second is None and top == left
                for name, block in kernel(x1[rows], None if same else x2[columns]).items():
                    whole[name][rows, columns] = block
                    if second is None and not same:
                        whole[name][columns, rows] = block.T
                self.pieces += 1
        return whole


@functools.lru_cache(maxsize=4)
def patient_tile(spec: KernelSpec, tile: int) -> PatientTile:
    """One per process and size, which remembers what did not fit."""
    return PatientTile(spec, tile)
