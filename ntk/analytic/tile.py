"""One tile of a Gram matrix: a jitted kernel of fixed shape, corrected where its arithmetic is not good enough.

The fast kernel works on all pairs of rows at once and leaves a hole, NaN, where a pair is in doubt: where it met an
angle so near 0 or π that its own rounding error would show (`ntk.analytic.dual.angle`). Holes, and the diagonal of a
symmetric tile, are filled by the exact paired kernel in float64. (A hole rather than a second output: it keeps all
layers of a network of vectors in one loop over the pairs.) An entry depends on its two rows alone: not on the other
rows of the tile, on padding, or on which process computes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ntk.analytic import spatial
from ntk.analytic.admission import check_rows_alone, check_weights
from ntk.analytic.costs import cost
from ntk.analytic.kernel import check_inputs, outer_kernel, paired_kernel
from ntk.analytic.mirror import mirror
from ntk.analytic.results import asked
from ntk.analytic.staging import staged
from ntk.analytic.strips import Vectors, outer_in_strips, strip_kernel
from ntk.stax.layer import Layer

Precision = Literal["float32", "float64"]

#: A pair is recomputed when nearly singular angles, as a share of positions summed over layers, exceed this.
_DOUBT_LIMIT = 0.02
#: Share of a float32 tile in doubt above which the doubtful entries come from a float64 tile rather than one by one.
_WHOLE_TILE = 0.1
#: Pairs per call of the exact paired kernel: the small size for a handful, the large one for many.
_PAIRS = (64, 512)
#: Bytes of temporaries of such a call: with residuals a pair takes about twice what its covariances alone take.
_PAIRS_BYTES = 2**27


Side = tuple[np.ndarray, ...]
DeviceSide = tuple[jax.Array, ...]
"""What is known of some rows: (inputs,), or (inputs, graphs) for an architecture with Aggregate; rows first. On the
device they are padded to the tile."""
Loaded = DeviceSide | Vectors


@lru_cache(maxsize=256)
def _outer(layer: Layer, names: tuple[str, ...]) -> Any:
    def run(side1: DeviceSide, side2: DeviceSide) -> dict[str, jax.Array]:
        x1, x2, graphs = _both(side1, side2)
        values, doubt = outer_kernel(layer, x1, x2, names, graphs=graphs, doubting=True, blocked=x1.ndim > 2)
        assert doubt is not None
        hole = doubt if doubt.dtype == bool else doubt > _DOUBT_LIMIT
        return {name: jnp.where(hole, jnp.nan, value) for name, value in values.items()}

    return jax.jit(run)


@lru_cache(maxsize=256)
def _paired(layer: Layer, names: tuple[str, ...], itself: bool) -> Any:
    def run(side1: DeviceSide, side2: DeviceSide) -> dict[str, jax.Array]:
        x1, x2, graphs = _both(side1, side2)
        return paired_kernel(layer, x1, x2, names, graphs=graphs, itself=itself)

    return jax.jit(run)


def _both(
    side1: DeviceSide, side2: DeviceSide
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, jax.Array] | None]:
    """The inputs of two sides and their graphs, if there are any."""
    (x1, *graph1), (x2, *graph2) = side1, side2
    return x1, x2, (graph1[0], graph2[0]) if graph1 else None


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
    smaller ones are padded to it, so that one compiled kernel serves a whole run.

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

    def _loaded(self, side: Side, dtype: np.dtype) -> Loaded:
        with jax.enable_x64(True):
            if len(side) == 1 and len(self.input_shape) == 1 and jax.default_backend() == "cpu":
                return Vectors.of(side[0], dtype, self.tile)
            return _padded(side, self._rows(dtype), dtype)

    def __call__(self, x1: np.ndarray | Rows, x2: np.ndarray | Rows | None = None) -> dict[str, np.ndarray]:
        """The kernels of x1 (n1 ≤ tile, \\*input_shape) with x2, or with itself when x2 is None.

        Returns arrays (n1, n2) of the tile's precision by name, read-only where nothing had to be filled in. A tile of
        x1 with itself is symmetric bit for bit and its diagonal is `diagonal(x1)`. Raises ValueError as `load` does.
        """
        rows = x1 if isinstance(x1, Rows) else self.load(x1)
        columns = rows if x2 is None else x2 if isinstance(x2, Rows) else self.load(x2)
        values = self._fast(rows.loaded, columns.loaded, len(rows), len(columns), symmetric=x2 is None)
        if x2 is None:
            exact = self._diagonal(rows.host)
            values = {name: _writable(value) for name, value in values.items()}
            for name, value in values.items():
                np.fill_diagonal(value, exact[name])
                mirror(value)
        holes = np.isnan(next(iter(values.values())))
        if holes.any():
            values = {name: _writable(value) for name, value in values.items()}
            self._fill(
                values,
                np.triu(holes, 1) if x2 is None else holes,
                rows.host,
                columns.host,
                symmetric=x2 is None,
            )
            if x2 is None:
                for value in values.values():
                    mirror(value)
        return values

    def diagonal(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The kernels of every row of x (n, \\*input_shape) with itself: arrays (n,), by name."""
        self._check(x, rows=False)
        return self._diagonal((x,))

    def _diagonal(self, side: Side) -> dict[str, np.ndarray]:
        rows = np.arange(len(side[0]))
        values = self._exact(side, side, rows, rows, itself=True)
        return {name: value.astype(self.dtype) for name, value in values.items()}

    def _fast(
        self, side1: Loaded, side2: Loaded, n1: int, n2: int, *, symmetric: bool
    ) -> dict[str, np.ndarray]:
        """The kernels with holes; of a symmetric tile at least those above the diagonal."""
        with jax.enable_x64(True):
            if isinstance(side1, Vectors):
                assert isinstance(side2, Vectors)
                run = strip_kernel(self.architecture, self.names, self.input_shape[0])
                return outer_in_strips(run, self.names, side1, side2, symmetric=symmetric)
            assert not isinstance(side2, Vectors)
            if self._staged is None:
                values = _outer(self.architecture, self.names)(side1, side2)
            else:
                values = self._in_blocks(side1[0], side2[0], n1, n2, symmetric)
        return {name: np.asarray(value)[:n1, :n2] for name, value in values.items()}

    def _in_blocks(
        self, x1: jax.Array, x2: jax.Array, n1: int, n2: int, symmetric: bool
    ) -> dict[str, jax.Array]:
        assert self._staged is not None
        size = spatial.block_of(self._staged, x1.dtype.itemsize, self.tile)
        corners = spatial.wanted(size, n1, n2, symmetric)
        most = (len(x1) // size.b1) * (len(x2) // size.b2)
        return spatial.outer(self._staged, self.names, size, _DOUBT_LIMIT)(
            x1, x2, _pad(corners, most, np.int32), np.int32(len(corners))
        )

    def _rows(self, dtype: np.dtype) -> int:
        """The rows that a tile is padded to."""
        if self._staged is None:
            return self.tile
        return spatial.block_of(self._staged, dtype.itemsize, self.tile).padded(self.tile)

    def _fill(
        self,
        values: dict[str, np.ndarray],
        holes: np.ndarray,
        side1: Side,
        side2: Side,
        *,
        symmetric: bool,
    ) -> None:
        if self.dtype == np.float32 and np.count_nonzero(holes) > _WHOLE_TILE * holes.size:
            wide_dtype = np.dtype(np.float64)
            wide1, wide2 = (self._loaded(side, wide_dtype) for side in (side1, side2))
            wide = self._fast(wide1, wide2, len(side1[0]), len(side2[0]), symmetric=symmetric)
            for name, value in values.items():
                np.copyto(value, wide[name], where=holes, casting="same_kind")
            holes = holes & np.isnan(next(iter(wide.values())))
        rows, columns = np.nonzero(holes)
        if len(rows):
            for name, exact in self._exact(side1, side2, rows, columns).items():
                values[name][rows, columns] = exact

    def _exact(
        self, side1: Side, side2: Side, rows: np.ndarray, columns: np.ndarray, itself: bool = False
    ) -> dict[str, np.ndarray]:
        """float64 kernels of row rows[i] of one side with row columns[i] of the other; `itself`: of all rows with
        themselves."""
        run = (
            _paired(self.architecture, self.names, itself)
            if self._staged is None
            else spatial.paired(self._staged, self.names, itself)
        )
        size = self._pairs(len(rows))
        parts: list[dict[str, np.ndarray]] = []
        with jax.enable_x64(True):
            for start in range(0, len(rows), size):
                here = np.s_[start : start + size]
                # Rows with themselves are neighbours in memory, which need not be gathered.
                one, two = (here, here) if itself else (rows[here], columns[here])
                first = _padded(tuple(a[one] for a in side1), size, np.float64)
                second = first if itself else _padded(tuple(a[two] for a in side2), size, np.float64)
                part = run(first, second)
                count = len(rows[here])
                parts.append({name: np.asarray(value)[:count] for name, value in part.items()})
        return {
            name: np.concatenate([part[name] for part in parts]) if parts else np.empty(0)
            for name in self.names
        }

    def _pairs(self, count: int) -> int:
        """Pairs per call of the paired kernel: one of two sizes, each compiled once, within the memory of a block."""
        if self._staged is not None:
            few, many = (spatial.pairs_at_once(self._staged, size) for size in _PAIRS)
            return few if count <= few else many
        per_pair = 2 * cost(self.architecture, self.input_shape, get=self.names).bytes_per_pair
        few, many = (max(1, min(size, int(_PAIRS_BYTES / per_pair))) for size in _PAIRS)
        return few if count <= few else many

    def _check(self, x: np.ndarray, rows: bool = True) -> None:
        if x.shape[1:] != self.input_shape:
            raise ValueError(
                f"inputs must have shape (rows, {', '.join(map(str, self.input_shape))}), got {x.shape}"
            )
        if rows and len(x) > self.tile:
            raise ValueError(f"at most {self.tile} rows make a tile, got {len(x)}")


def _writable(array: np.ndarray) -> np.ndarray:
    return array if array.flags.writeable else array.copy()


def _padded(side: Side, rows: int, dtype: Any) -> DeviceSide:
    """`_pad` of inputs in `dtype` and of graphs, those of integers as they are."""
    x, *graphs = side
    return (_pad(x, rows, dtype), *(_pad(g, rows, dtype if g.dtype.kind == "f" else g.dtype) for g in graphs))


def _pad(x: np.ndarray, rows: int, dtype: Any) -> jax.Array:
    """x with rows of zeros below, on the device. Call it where 64-bit types are enabled."""
    if len(x) == rows:
        return jnp.asarray(x, dtype)
    padded = np.zeros((rows, *x.shape[1:]), dtype)
    padded[: len(x)] = x
    return jnp.asarray(padded)
