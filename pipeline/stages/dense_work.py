"""The direct method for one ridge with the whole matrix in the memory of a worker: factor, coefficients, gates and the
inverse's diagonal in one task, which stores what the tasks on tiles store, and nothing between.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from ntk.linalg.dense_cholesky import factor_in_place, invert_in_place, squared_lines
from ntk.linalg.tile_cholesky import NotPositiveDefinite
from pipeline.plan.gram import gram_array
from pipeline.plan.tasks import Chunk, Record, Task
from pipeline.stages.cholesky_work import RESIDUAL, CholeskyWork, Factor, Indefinite, Triangle
from pipeline.stages.regression import ALPHA
from pipeline.stages.worker import Stopwatch, stored_record, targets

DENSE_KIND = "dense-solve"


@dataclass(frozen=True, slots=True)
class DenseWork:
    """Solves a ridge; picklable. `tiles`: the same on tiles, of which single steps are used; `threads`: for BLAS."""

    tiles: CholeskyWork
    threads: int

    def __call__(self, task: Task) -> list[Record]:
        """Each array is stored as soon as it is known, the coefficients first.

        Raises:
            Unfit: the factor does not exist, or refinement with it stalls.
        """
        watch = Stopwatch()
        array, frobenius, note = task.args
        tiles, factor = self.tiles, Factor.of(array)
        records: list[Record] = []

        def put(chunk: Chunk, block: np.ndarray, note: dict[str, Any] | None = None) -> None:
            records.append(stored_record(tiles.store, *chunk, block, watch, task.key, note))

        with threadpool_limits(self.threads, "blas"):
            upper = self._factored(factor)
            triangle = Triangle(lambda i, j: upper, [slice(0, tiles.grid.n)])
            note = note | {"factor": factor.dtype}
            if factor.dtype == "float32":
                alpha, found = tiles.refined(factor, triangle, frobenius)
                cut = Triangle(lambda i, j: upper[tiles.grid.rows(i), tiles.grid.rows(j)], tiles.blocks)
                note |= found | tiles.determinant(factor, cut)
            else:
                note |= tiles.determinant(factor, triangle)
                alpha = triangle.solve(targets(tiles.directory, tiles.token, tiles.grid))
            put((ALPHA, (factor.index, 0, 0)), alpha[None], note)
            if factor.dtype == "float64":
                put((RESIDUAL, (factor.index, 0)), *tiles.judged(factor, triangle, alpha, frobenius))
            for name, key in task.writes:
                if name == array:
                    rows, columns = map(tiles.grid.rows, key)
                    put((name, key), np.ascontiguousarray(upper[rows, columns]))
            # The factor is needed no more, and its inverse takes its place.
            invert_in_place(upper)
            for block, rows in enumerate(tiles.blocks):
                put((factor.inverse, (block,)), squared_lines(upper, rows))
        return records

    def _factored(self, factor: Factor) -> np.ndarray:
        """U, zero below the diagonal, whose pages are therefore hardly touched."""
        tiles, grid = self.tiles, self.tiles.grid
        matrix, name = np.zeros((grid.n, grid.n), factor.dtype), gram_array(tiles.kernel)

        def gather(key: tuple[int, int]) -> None:
            rows, columns = map(grid.rows, key)
            tile = tiles.store.view(name, key)
            matrix[rows, columns] = np.triu(tile) if rows == columns else tile

        # Pages that are touched for the first time and digests take as long as a third of the factor.
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(gather, grid.upper()))
        matrix[np.diag_indices(grid.n)] += tiles.shifts[factor.index]
        try:
            factor_in_place(matrix)
        except NotPositiveDefinite as failure:
            raise Indefinite(f"{factor.array}:pivot {failure.pivot} is {failure.value!r}") from None
        return matrix
