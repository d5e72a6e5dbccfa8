"""The tasks of the direct method, as a worker does them: tiles of the factor with the forward substitution beside them,
backward substitution, gates, and the inverse's diagonal.

Operands are the pages of their files (`ArrayStore.view`), checked against their digests as they are taken up and asked
for one product before, so that arithmetic waits neither for the disk nor for a copy; or they are on a GPU already
(`FactorTiles`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ntk.linalg import log_determinant, substitution, tile_cholesky
from ntk.linalg.gates import factor_gate, solve_gate
from ntk.linalg.operator import symmetric_product
from ntk.linalg.refinement import refine
from pipeline.errors import GateError
from pipeline.plan.cholesky import FACTOR_KIND, FORWARD_KIND, INVERSE_KIND, factor_reads
from pipeline.plan.gram import gram_array
from pipeline.plan.tasks import Record, Task
from pipeline.plan.tiles import TileGrid
from pipeline.stages.factor_tiles import FactorTiles
from pipeline.stages.worker import Stopwatch, opened, stored_record, targets
from pipeline.store.arrays import ArrayStore

SUBSTITUTE_KIND = "substitute"
GATES_KIND = "gates"
RESIDUAL = "solution/residual"
"""‖Y − (K + λI) A‖ of every ridge with a float64 factor, (ridges, outputs); its records hold the gates."""

PROBED_ROWS = 4
"""As many entries of the inverse's diagonal, spread evenly, and as many where pivots are smallest, are computed to
float64 accuracy beside a float32 factor, to judge it by."""

Precision = Literal["float64", "float32"]


@dataclass(frozen=True, slots=True)
class Factor:
    """The factor of K + λI for the ridge of an index, in a precision, and what is stored of it, and where."""

    index: int
    dtype: Precision
    folder: str = "solution"

    @property
    def name(self) -> str:
        return f"{self.index}" if self.dtype == "float64" else f"{self.index}-{self.dtype}"

    @property
    def array(self) -> str:
        """Name of U in the store."""
        return f"{self.folder}/factor-{self.name}"

    @property
    def forward(self) -> str:
        """Name of U⁻ᵀ Y in the store."""
        return f"{self.folder}/forward-{self.name}"

    @property
    def inverse(self) -> str:
        """Name of the diagonal of (K + λI)⁻¹ in the store."""
        return f"{self.folder}/inverse-diagonal-{self.name}"

    @classmethod
    def of(cls, array: str) -> Factor:
        """The factor that an array of one of these names belongs to."""
        folder, _, name = array.rpartition("/")
        index, _, dtype = name.partition("factor-" if "factor-" in name else "diagonal-")[2].partition("-")
        return cls(int(index), "float32" if dtype else "float64", folder)


class Unfit(GateError):
    """A factor cannot be used: `str.partition(":")` of the message gives the factor's array and the reason."""


class Indefinite(Unfit):
    """A pivot was not positive; the reason is ``pivot P is VALUE``."""


class Stalled(Unfit):
    """Refinement with a float32 factor did not reach float64 accuracy."""


@dataclass(frozen=True, slots=True)
class Triangle:
    """U of a finished factor, as upper tiles `tile(i, j)` of the blocks, wherever they are."""

    tile: Callable[[int, int], np.ndarray]
    blocks: list[slice]

    def solve(self, rhs: np.ndarray) -> np.ndarray:
        """(UᵀU)⁻¹ B."""
        return substitution.solve(self.tile, self.blocks, rhs)

    def forward(self, rhs: np.ndarray) -> np.ndarray:
        """U⁻ᵀ B, in the dtype of B."""
        return substitution.forward(self.tile, self.blocks, rhs)

    def backward(self, rhs: np.ndarray) -> np.ndarray:
        """U⁻¹ B, in the dtype of B."""
        return substitution.backward(self.tile, self.blocks, rhs)

    def product(self, vectors: np.ndarray) -> np.ndarray:
        """UᵀU X."""
        return substitution.factor_product(self.tile, self.blocks, vectors)

    def least_pivots(self, count: int) -> np.ndarray:
        """Rows with the smallest U_ii, (count,): (A⁻¹)_ii is at least 1 / U_ii²."""
        diagonals = [np.diagonal(self.tile(block, block)).copy() for block in range(len(self.blocks))]
        return np.argsort(np.concatenate(diagonals), kind="stable")[:count]

    def log_determinant(self) -> float:
        """log det UᵀU."""
        blocks = range(len(self.blocks))
        return math.fsum(tile_cholesky.log_determinant(self.tile(block, block)) for block in blocks)


@dataclass(frozen=True, slots=True)
class CholeskyWork:
    """One step of the factorisation or what follows from the factor; `shifts` holds λ for each ridge."""

    directory: str
    token: str
    kernel: str
    grid: TileGrid
    shifts: tuple[float, ...]
    tiles: FactorTiles = field(default_factory=FactorTiles, compare=False)

    def __call__(self, task: Task) -> Callable[[], list[Record]]:
        watch = Stopwatch()
        steps = {
            FACTOR_KIND: self.factor, FORWARD_KIND: self.forward, SUBSTITUTE_KIND: self.substitute,
            GATES_KIND: self.gates, INVERSE_KIND: self.inverse,
        }  # fmt: skip
        block, note = steps[task.kind](task)
        ((name, key),) = task.writes

        def store(block: np.ndarray) -> Record:
            return stored_record(self.store, name, key, block, watch, task.key, note)

        return lambda: [self.tiles.stored(block, store)]

    def factor(self, task: Task) -> tuple[Any, dict[str, Any]]:
        """Tile (i, j) of U, on a GPU if there is one: the shifted Gram tile less the products of the tiles above, then
        a solve or a root."""
        array, i, j = task.args
        factor, store = Factor.of(array), self.store
        above = factor_reads(i, j)
        for tile in above[:2]:
            self.tiles.expect(store, array, tile)
        shift = self.shifts[factor.index] if i == j else 0.0
        steps = self.tiles.start(store.view(gram_array(self.kernel), (i, j)), factor.dtype, shift)

        def operand(position: int) -> Any:
            for tile in above[position + 2 : position + 3]:
                self.tiles.expect(store, array, tile)
            return self.tiles.operand(store, array, above[position])

        for k in range(i):
            if i == j:
                steps.update(operand(k))
            else:
                steps.update(operand(2 * k), operand(2 * k + 1))
        if i < j:
            return steps.solve_row(operand(2 * i)), {}
        try:
            return steps.factor(), {}
        except tile_cholesky.NotPositiveDefinite as failure:
            at = failure.within(self.grid.rows(i))
            raise Indefinite(f"{array}:pivot {at.pivot} is {at.value!r}") from None

    def forward(self, task: Task) -> tuple[np.ndarray, dict[str, Any]]:
        """Block i of Z = U⁻ᵀ Y, from column i of U and the blocks of Z before it."""
        array, forward, i = task.args
        store = self.store
        z = np.array(store.read("inputs/y_train", (i, 0)), order="C")
        for k in range(i):
            store.expect(array, (k + 1, i))
            tile_cholesky.update(z, store.view(array, (k, i)), store.read(forward, (k, 0)))
        return tile_cholesky.solve_row(store.view(array, (i, i)), z), {}

    def substitute(self, task: Task) -> tuple[np.ndarray, dict[str, Any]]:
        """A = (K + λI)⁻¹ Y for all right-hand sides: U⁻¹ Z, or by refinement around a float32 factor."""
        array, frobenius, note = task.args
        factor, triangle = Factor.of(array), self.triangle(array)
        note = note | {"factor": factor.dtype}
        if factor.dtype == "float64":
            z = [self.store.read(factor.forward, (block, 0)) for block in range(self.grid.blocks)]
            alpha = triangle.backward(np.concatenate(z))
        else:
            alpha, found = self.refined(factor, triangle, frobenius)
            note |= found
        return alpha[None], note | self.determinant(factor, triangle)

    def gates(self, task: Task) -> tuple[np.ndarray, dict[str, Any]]:
        """‖Y − (K + λI) A‖ of each column, and the gates on a float64 factor and on its solution."""
        array, frobenius, solution = task.args
        return self.judged(Factor.of(array), self.triangle(array), self.store.read(*solution)[0], frobenius)

    def judged(
        self, factor: Factor, triangle: Triangle, alpha: np.ndarray, frobenius: float
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """What `gates` finds, of a factor in the store or not."""
        y, product = targets(self.directory, self.token, self.grid), self._product(factor)
        backward = factor_gate(
            product, triangle.product, n=self.grid.n, frobenius=frobenius, dtype=np.float64
        )
        residual = y - product(alpha)
        solved = solve_gate(residual, alpha, y, norm=frobenius, dtype=np.float64)
        gates = {"factor": backward.to_dict(), "solution": solved.to_dict()}
        return np.linalg.norm(residual, axis=0)[None], {"gates": gates}

    def inverse(self, task: Task) -> tuple[np.ndarray, dict[str, Any]]:
        """The diagonal of (K + λI)⁻¹ on one block."""
        name, j = task.args
        read = self._reader(Factor.of(name).array, self.tiles.operand)
        return self.tiles.inverse_diagonal_block(read, self.blocks, j), {}

    def triangle(self, array: str) -> Triangle:
        """A factor in the store."""
        return Triangle(self._reader(array), self.blocks)

    def refined(
        self, factor: Factor, triangle: Triangle, frobenius: float
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A by float64 refinement around a float32 factor; beside Y some unit columns, to judge the inverse's
        diagonal."""
        y = targets(self.directory, self.token, self.grid)
        n, outputs = y.shape
        spread = np.linspace(0, n - 1, PROBED_ROWS).astype(int)
        rows = np.union1d(spread, triangle.least_pivots(PROBED_ROWS))
        rhs = np.zeros((n, outputs + len(rows)))
        rhs[:, :outputs] = y
        rhs[rows, outputs + np.arange(len(rows))] = 1.0

        def precondition(residual: np.ndarray) -> np.ndarray:
            # Residuals become smaller than float32 can tell from zero; what matters is their direction.
            scale = np.max(np.abs(residual), axis=0)
            scale[scale == 0] = 1.0
            return triangle.solve((residual / scale).astype(np.float32)) * scale

        refined = refine(self._product(factor), precondition, rhs, norm=frobenius)
        if not refined.converged:
            raise Stalled(
                f"{factor.array}:refinement stopped at a backward error of {refined.error:.1e} after "
                f"{refined.steps} steps"
            )
        alpha = np.ascontiguousarray(refined.solution[:, :outputs])
        solution = solve_gate(refined.residual[:, :outputs], alpha, y, norm=frobenius, dtype=np.float64)
        values = refined.solution[rows, outputs + np.arange(len(rows))]
        return alpha, {
            "gates": {"solution": solution.to_dict()},
            "refinement": {"steps": refined.steps, "error": refined.error},
            "inverse_diagonal": {"rows": rows.tolist(), "values": values.tolist()},
        }

    def determinant(self, factor: Factor, triangle: Triangle) -> dict[str, float]:
        """log det(K + λI); by a float32 factor with what that lacks, and half the width of its 95 % interval. Then
        `triangle` must be in tiles, each of which is converted to float64 as it is used."""
        value = triangle.log_determinant()
        if factor.dtype == "float64":
            return {"log_determinant": value}
        lacks = log_determinant.correction(
            self._product(factor), triangle.forward, triangle.backward, self.grid.n
        )
        return {
            "log_determinant": value + float(lacks.value),
            "log_determinant_error": float(lacks.half_width),
        }

    def _product(self, factor: Factor) -> Callable[[np.ndarray], np.ndarray]:
        """X ↦ (K + λI) X in float64, one pass over the Gram tiles."""
        shift, read = self.shifts[factor.index], self._reader(gram_array(self.kernel))

        def product(vectors: np.ndarray) -> np.ndarray:
            tiles = ((key, read(*key)) for key in self.grid.upper())
            return symmetric_product(tiles, self.blocks, vectors) + shift * vectors

        return product

    def _reader(
        self, array: str, take: Callable[[ArrayStore, str, tuple[int, int]], Any] = ArrayStore.view
    ) -> Callable[[int, int], Any]:
        """Tiles of an array for a pass over its rows, up or down: the neighbours are asked for meanwhile."""
        store, tiles = self.store, tuple(self.grid.upper())

        def read(i: int, j: int) -> Any:
            position = self.grid.index(i, j)
            for neighbour in (position - 1, position + 1):
                if 0 <= neighbour < len(tiles):
                    self.tiles.expect(store, array, tiles[neighbour])
            return take(store, array, (i, j))

        return read

    @property
    def store(self) -> ArrayStore:
        return opened(self.directory, self.token)

    @property
    def blocks(self) -> list[slice]:
        return [self.grid.rows(block) for block in range(self.grid.blocks)]
