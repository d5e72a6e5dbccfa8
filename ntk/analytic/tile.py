"""One tile of a Gram matrix: a jitted kernel of fixed shape, corrected where its arithmetic is not good enough.

The fast kernel works on all pairs of rows at once and leaves a hole, NaN, where a pair is in doubt: where it met an
angle so near 0 or π that its own rounding error would show (`ntk.analytic.dual.angle`). Holes, and the diagonal of a
symmetric tile, are filled by the exact paired kernel in float64. (A hole rather than a second output: it keeps all
layers of a network of vectors in one loop over the pairs.) An entry depends on its two rows alone: not on the other
rows of the tile, on padding, or on which process computes it.

Nor on what is computed together: a tile is made of blocks of one shape, and whatever is decided or computed for several
entries at once is so within one block. So a tile may be cut into parts of whole blocks, which are the same bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ntk.analytic import spatial
from ntk.analytic.admission import check_rows_alone, check_weights
from ntk.analytic.exact_pairs import ExactPairs, joined
from ntk.analytic.kernel import block_within, check_inputs, outer_kernel
from ntk.analytic.mirror import mirror, transpose_into
from ntk.analytic.results import asked
from ntk.analytic.sides import DeviceSide, Side, both, pad, padded
from ntk.analytic.staging import Staged, staged
from ntk.analytic.strips import Vectors, block_rows, outer_in_strips, padded_to, shared_out, strip_kernel
from ntk.device import compiled, to_host
from ntk.stax.layer import Layer

Precision = Literal["float32", "float64"]

#: A pair is recomputed when nearly singular angles, as a share of positions summed over layers, exceed this.
_DOUBT_LIMIT = 0.02
#: Share of a float32 block in doubt above which its doubtful entries come from a float64 one rather than one by one:
#: of vectors, whose pairs cost hundreds of times as much one by one, and of inputs with positions.
_WHOLE_BLOCK = {"vectors": 0.0025, "positions": 0.1}
#: Rows of a block where pairs of inputs with positions go through the plain interpreter.
_BLOCK_OF_POSITIONS = 64


Loaded = DeviceSide | Vectors
Corner = tuple[int, int]
"""Indices of a block of rows of either side."""


#: What leaves the range of a type is infinite, what has no value NaN: the result says so, and needs no warning.
_quiet = np.errstate(over="ignore", invalid="ignore")


@lru_cache(maxsize=256)
def _outer(layer: Layer, names: tuple[str, ...], block: tuple[int, int]) -> Any:
    def run(side1: DeviceSide, side2: DeviceSide) -> dict[str, jax.Array]:
        x1, x2, graphs = both(side1, side2)
        values, doubt = outer_kernel(layer, x1, x2, names, graphs=graphs, doubting=True, block=block)
        assert doubt is not None
        hole = doubt if doubt.dtype == bool else doubt > _DOUBT_LIMIT
        return {name: jnp.where(hole, jnp.nan, value) for name, value in values.items()}

    return compiled(run)


@dataclass(frozen=True, slots=True)
class Rows:
    """Inputs of one tile and their graphs, as they are and as a tile is computed from them; made by
    `TileKernel.load`."""

    host: Side
    loaded: Loaded

    def __len__(self) -> int:
        return len(self.host[0])


class TileKernel:
    """Tiles of the kernel matrices of `architecture` for inputs of shape (batch, \\*input_shape).

    get: the kernels wanted, of "ntk" and "nngp". precision "float64" is exact to rounding; "float32" computes in
    float32 and is within 1e-5 of float64 in every entry for the arc-cosine family. tile: rows of the largest batch;
    smaller ones are padded to it, so that one compiled kernel serves a whole run. part_of: rows of the tile that tiles
    of this size, in whole multiples of its `grain`, are parts of: they equal it bit for bit.

    Attributes:
        grain: rows of the blocks that a tile is made of.
        divisible: whether tiles of fewer rows than that would take less memory: on an accelerator.

    Raises ArchitectureError when the architecture cannot take such inputs, has no scalar kernel for them (positions or
    branches are left), lets an entry depend on other rows (BatchNorm), or has no layer with weights and the NTK is
    wanted, which would be zero.
    """

    def __init__(
        self,
        architecture: Layer,
        input_shape: tuple[int, ...],
        *,
        get: tuple[str, ...] = ("ntk",),
        precision: Precision = "float64",
        tile: int,
        part_of: int | None = None,
    ) -> None:
        if precision not in ("float32", "float64"):
            raise ValueError(f"precision must be float32 or float64, got {precision!r}")
        if tile < 1:
            raise ValueError(f"tile must be at least 1, got {tile}")
        self.architecture = architecture
        self.input_shape = tuple(input_shape)
        self.names = asked(get)
        self.dtype = np.dtype(precision)
        self.tile = tile
        check_inputs(architecture, np.empty((0, *self.input_shape)), None)
        check_rows_alone(architecture)
        check_weights(architecture, self.names)
        self._staged = staged(architecture, self.input_shape)
        self._whole = part_of or tile
        self.grain = self._block_rows()
        self.divisible = spatial.device() != "cpu"
        self._exact = ExactPairs(architecture, self.input_shape, self.names, self._staged, self.grain)
        if part_of is not None and tile % self.grain:
            raise ValueError(f"parts of a tile must be multiples of {self.grain} rows, got {tile}")

    def load(self, x: np.ndarray, graphs: np.ndarray | None = None) -> Rows:
        """x (n ≤ tile, \\*input_shape) for several tiles: checked, padded and put on the device once.

        graphs: the pattern of Aggregate, one graph for each row; the layer is the identity without. Raises ValueError
        for inputs of another shape, more rows than the tile, or another number of graphs.
        """
        self._check(x)
        if graphs is not None and len(graphs) != len(x):
            raise ValueError(f"pattern must have one graph for each of {len(x)} rows, got {len(graphs)}")
        side = (x,) if graphs is None else (x, graphs)
        return Rows(side, self._loaded(side, self.dtype))

    @_quiet
    def _loaded(self, side: Side, dtype: np.dtype) -> Loaded:
        with jax.enable_x64(True):
            if len(side) == 1 and self._in_strips():
                return Vectors.of(side[0], dtype, self.grain)
            return padded(side, padded_to(self.tile, self.grain), dtype)

    def __call__(self, x1: np.ndarray | Rows, x2: np.ndarray | Rows | None = None) -> dict[str, np.ndarray]:
        """The kernels of x1 (n1 ≤ tile, \\*input_shape) with x2, or with itself when x2 is None.

        Returns arrays (n1, n2) of the tile's precision by name, read-only where nothing had to be filled in. A tile of
        x1 with itself is symmetric bit for bit and its diagonal is `diagonal(x1)`. Raises ValueError as `load` does.
        """
        rows, columns = self._sides(x1, x2)
        out = None
        if isinstance(rows.loaded, Vectors):
            out = {name: np.empty((len(rows), len(columns)), self.dtype) for name in self.names}
        return self._values(rows, columns, symmetric=x2 is None, out=out)

    def into(
        self,
        out: dict[str, np.ndarray],
        x1: np.ndarray | Rows,
        x2: np.ndarray | Rows | None = None,
        *,
        below: dict[str, np.ndarray] | None = None,
    ) -> None:
        """The same into the arrays `out`, by name, and transposed into those of `below`."""
        rows, columns = self._sides(x1, x2)
        if isinstance(rows.loaded, Vectors):
            self._values(rows, columns, symmetric=x2 is None, out=out, below=below)
            return
        for name, value in self._values(rows, columns, symmetric=x2 is None).items():
            out[name][...] = value
            if below is not None:
                transpose_into(below[name], value)

    def _sides(self, x1: np.ndarray | Rows, x2: np.ndarray | Rows | None) -> tuple[Rows, Rows]:
        rows = x1 if isinstance(x1, Rows) else self.load(x1)
        return rows, rows if x2 is None else x2 if isinstance(x2, Rows) else self.load(x2)

    @_quiet
    def _values(
        self,
        side1: Rows,
        side2: Rows,
        *,
        symmetric: bool,
        out: dict[str, np.ndarray] | None = None,
        below: dict[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """The kernels: of vectors in strips in `out`, and transposed in `below`."""
        blocks = self._blocks(len(side1), len(side2), symmetric=symmetric)
        values, holed = self._fast(
            side1.loaded, side2.loaded, len(side1), len(side2), blocks, symmetric, out, below
        )
        values = self._filled(values, side1.host, side2.host, holed, symmetric, below)
        if symmetric:
            exact = self._diagonal(side1.host)
            values = {name: _writable(value) for name, value in values.items()}
            for name, value in values.items():
                np.fill_diagonal(value, exact[name])
                mirror(value)
        return values

    def diagonal(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The kernels of every row of x (n, \\*input_shape) with itself: arrays (n,), by name."""
        self._check(x, rows=False)
        return self._diagonal((x,))

    @_quiet
    def _diagonal(self, side: Side) -> dict[str, np.ndarray]:
        parts: list[dict[str, np.ndarray]] = []
        for top in range(0, len(side[0]), self.grain):
            rows = np.arange(top, min(top + self.grain, len(side[0])))
            parts.append(self._exact(side, side, rows, rows, itself=True))
        return {name: joined([part[name] for part in parts]).astype(self.dtype) for name in self.names}

    def _blocks(self, n1: int, n2: int, *, symmetric: bool) -> list[Corner]:
        """The blocks that hold an entry, of a symmetric tile one above the diagonal or on it."""
        return [
            (i, j)
            for i in range(-(-n1 // self.grain))
            for j in range(i if symmetric else 0, -(-n2 // self.grain))
        ]

    def _fast(
        self,
        side1: Loaded,
        side2: Loaded,
        n1: int,
        n2: int,
        blocks: list[Corner],
        symmetric: bool,
        out: dict[str, np.ndarray] | None,
        below: dict[str, np.ndarray] | None = None,
    ) -> tuple[dict[str, np.ndarray], list[Corner]]:
        """The kernels in these blocks, of a symmetric tile at least those above the diagonal, and the blocks that may
        have holes."""
        with jax.enable_x64(True):
            if isinstance(side1, Vectors):
                assert isinstance(side2, Vectors) and out is not None
                run = strip_kernel(self.architecture, self.names, self.input_shape[0])
                return out, outer_in_strips(run, out, side1, side2, blocks, symmetric=symmetric, below=below)
            assert not isinstance(side2, Vectors)
            if self._staged is None:
                block = self._pairs_block(side1[0].dtype.itemsize)
                values = _outer(self.architecture, self.names, block)(side1, side2)
            else:
                values = self._staged_outer(self._staged, side1[0], side2[0], n1, n2, blocks, symmetric)
        return {name: to_host(value)[:n1, :n2] for name, value in values.items()}, blocks

    def _staged_outer(
        self,
        plan: Staged,
        x1: jax.Array,
        x2: jax.Array,
        n1: int,
        n2: int,
        blocks: list[Corner],
        symmetric: bool,
    ) -> dict[str, jax.Array]:
        size = spatial.block_of(plan, x1.dtype.itemsize, self._whole)
        corners = spatial.wanted(size, n1, n2, symmetric)
        inside = set(blocks)
        corners = corners[[(i // self.grain, j // self.grain) in inside for i, j in corners.tolist()]]
        most = (len(x1) // size.b1) * (len(x2) // size.b2)
        return spatial.outer(plan, self.names, size, self.grain, _DOUBT_LIMIT)(
            x1, x2, pad(corners, most, np.int32), np.int32(len(corners))
        )

    def _in_strips(self) -> bool:
        return len(self.input_shape) == 1 and jax.default_backend() == "cpu"

    def _block_rows(self) -> int:
        """`grain`, from the size of whole tiles, for either precision."""
        if self._staged is not None:
            sizes = [spatial.block_of(self._staged, itemsize, self._whole) for itemsize in (4, 8)]
            return max(max(size.b1, size.b2) for size in sizes)
        if len(self.input_shape) == 1:
            return block_rows(self._whole)
        return shared_out(self._whole, _BLOCK_OF_POSITIONS, min(16, self._whole))

    def _pairs_block(self, itemsize: int) -> tuple[int, int]:
        """The pairs that the plain interpreter takes at once."""
        if len(self.input_shape) == 1:
            return self.grain, self.grain
        return block_within(self.architecture, self.input_shape, itemsize, self.grain)

    def _filled(
        self,
        values: dict[str, np.ndarray],
        side1: Side,
        side2: Side,
        blocks: list[Corner],
        symmetric: bool,
        below: dict[str, np.ndarray] | None,
    ) -> dict[str, np.ndarray]:
        """The kernels with the holes of these blocks filled, of a symmetric tile those above the diagonal."""
        holes = self._holes(values, blocks, symmetric)
        if not holes:
            return values
        values, places = {name: _writable(value) for name, value in values.items()}, list(holes.values())
        share = _WHOLE_BLOCK["vectors" if len(self.input_shape) == 1 else "positions"]
        most = share * self.grain**2 if self.dtype == np.float32 else np.inf
        many = [block for block, (rows, _) in holes.items() if len(rows) > most]
        if many:
            dtype = np.dtype(np.float64)
            wide1 = self._loaded(side1, dtype)
            wide2 = wide1 if side2 is side1 else self._loaded(side2, dtype)
            n1, n2 = len(side1[0]), len(side2[0])
            out = {name: np.empty((n1, n2)) for name in self.names} if self._in_strips() else None
            wide, _ = self._fast(wide1, wide2, n1, n2, many, symmetric, out)
            for block in many:
                rows, columns = holes[block]
                for name, value in values.items():
                    value[rows, columns] = wide[name][rows, columns]
                left = np.logical_or.reduce([np.isnan(value[rows, columns]) for value in wide.values()])
                holes[block] = rows[left], columns[left]
        for rows, columns in holes.values():
            if len(rows):
                for name, exact in self._exact(side1, side2, rows, columns).items():
                    values[name][rows, columns] = exact
        for name, transposed in (below or {}).items():
            for rows, columns in places:
                transposed[columns, rows] = values[name][rows, columns]
        return values

    def _holes(
        self, values: dict[str, np.ndarray], blocks: list[Corner], symmetric: bool
    ) -> dict[Corner, tuple[np.ndarray, np.ndarray]]:
        """Rows and columns of the holes of each block that has some."""
        found: dict[Corner, tuple[np.ndarray, np.ndarray]] = {}
        for i, j in blocks:
            top, left = i * self.grain, j * self.grain
            here = np.s_[top : top + self.grain, left : left + self.grain]
            # In doubt all kernels are NaN; where a square overflows perhaps one of them.
            holes = reduce(np.logical_or, (np.isnan(value[here]) for value in values.values()))
            if symmetric and i == j:
                holes &= _above_diagonal(len(holes))
            if holes.any():
                rows, columns = np.nonzero(holes)
                found[i, j] = rows + top, columns + left
        return found

    def _check(self, x: np.ndarray, rows: bool = True) -> None:
        if x.shape[1:] != self.input_shape:
            raise ValueError(
                f"inputs must have shape (rows, {', '.join(map(str, self.input_shape))}), got {x.shape}"
            )
        if rows and len(x) > self.tile:
            raise ValueError(f"at most {self.tile} rows make a tile, got {len(x)}")


@lru_cache(maxsize=4)
def _above_diagonal(rows: int) -> np.ndarray:
    return np.triu(np.ones((rows, rows), bool), 1)


def _writable(array: np.ndarray) -> np.ndarray:
    return array if array.flags.writeable else array.copy()
