"""The Gram matrix as an operator: blocks, rows, diagonal and products with several vectors, computed by the workers.

One interface whether its tiles are stored or computed each time. Vectors and partial sums pass through scratch arrays
of the store; workers return records. See `pipeline.plan.products` for how a product is cut, and why the same product
is the same bit for bit whoever computes it; `pipeline.plan.shares` for who does, and `pipeline.stages.kept` for what
stays with them from one product to the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from pipeline.errors import GateError
from pipeline.plan.gram import gram_array
from pipeline.plan.kept import kept_tiles
from pipeline.plan.memory_solve import product_task
from pipeline.plan.products import Patches
from pipeline.plan.shares import Patch, measured_speeds, share_out
from pipeline.plan.tasks import Record, Task
from pipeline.stages.operator_work import DIAGONAL, PRODUCT, ROWS, ROWS_PRODUCT, OperatorWork
from pipeline.stages.session import Session
from pipeline.stages.tiles import ComputedTiles, StoredTiles
from pipeline.stages.worker import Stopwatch, stored_record
from pipeline.store.scratch import SCRATCH


class GramOperator:
    """A symmetric n×n Gram matrix K, float64 in what it returns.

    Args:
        session: the opened run; its workers compute.
        token: changes with what is in the store, as a stage's fingerprint does.
        tiles: where tiles come from.
        itemsize: bytes of an entry of a tile.

    Attributes:
        read: tiles that workers did not have, and read or computed for a product, so far.
    """

    def __init__(self, session: Session, token: str, tiles: StoredTiles | ComputedTiles, itemsize: int):
        self._session = session
        self._tiles = tiles
        self._itemsize = itemsize
        self._patches = Patches.of(tiles.grid, itemsize)
        self._work = OperatorWork(str(session.directory), token, tiles, self._patches, itemsize)
        self._folder = f"{SCRATCH}/{tiles.kernel}"
        self._spec = tiles.spec if isinstance(tiles, ComputedTiles) else None
        self._products = self.read = 0
        self._created: set[str] = set()
        # Who did which patch of the last product, how much there is to do in each, and how fast everybody is.
        self._owners: dict[Patch, str] = {}
        self._effort = {
            patch: float(sum(tiles.grid.entries(i, j) for i, j in self._patches.tiles(*patch)))
            for patch in self._patches.upper()
        }
        self._speeds: dict[str, float] = {}

    @property
    def n(self) -> int:
        """Rows and columns."""
        return self._tiles.grid.n

    def block(self, i: int, j: int) -> np.ndarray:
        """Tile (i, j) of either triangle, read or computed by this process; not to be changed."""
        return self._tiles.tile(i, j) if i <= j else self._tiles.tile(j, i).T

    def matvec(self, vectors: np.ndarray) -> np.ndarray:
        """K V: each tile is read (or computed) once and used twice.

        Args:
            vectors: V, shape (n, k) or (n,).

        Returns:
            float64, shape of `vectors`; the same bit for bit for the same vectors, whoever works.

        Raises:
            ValueError: V has another number of rows.
            GateError: V or the product has an entry that is not finite.
            TileError: a stored tile is not as recorded.
            TasksFailed, Stopped: see there.
        """
        if vectors.ndim not in (1, 2) or len(vectors) != self.n:
            raise ValueError(f"the matrix has {self.n} rows, the vectors have shape {vectors.shape}")
        x = np.asarray(vectors, np.float64).reshape(self.n, -1).T
        if not x.size:
            return np.zeros(vectors.shape)
        if not np.isfinite(x).all():
            raise GateError(
                f"{self._tiles.kernel}: a vector to be multiplied has entries that are not finite"
            )
        patches, width = self._patches, len(x)
        into, sent = f"{self._folder}/products-{width}", self._send(f"vectors-{width}", x)
        self._create(into, (patches.sides, width, self.n), (1, width, patches.rows_per_side))
        self._products += 1
        owners, keep = self._shared_out(), self._kept(width)
        tasks = [
            Task(
                f"{PRODUCT}/{i}.{j}",
                PRODUCT,
                (i, j, (sent[i], sent[j]), self._products, keep),
                writes=((into, (j, 0, i)),) if i == j else ((into, (j, 0, i)), (into, (i, 0, j))),
                prefers=owners.get((i, j), ""),
            )
            for i, j in patches.upper()
        ]
        parts = {record.key: record for record in self._session.collect(tasks, self._work)}
        self._learn({(i, j): parts[j, 0, i] for i, j in patches.upper()})
        product = np.zeros_like(x, order="C")
        for side in range(patches.sides):
            for other in range(patches.sides):  # always in this order: sums of floats depend on it
                product[:, patches.rows(side)] += self._session.store.read_recorded(parts[other, 0, side])[0]
        if not np.isfinite(product).all():
            raise GateError(
                f"{self._tiles.kernel}: a product with the matrix has entries that are not finite"
            )
        return np.ascontiguousarray(product.T).reshape(vectors.shape)

    def rows(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """K[indices, :], float64 (len(indices), n), in the order of `indices`.

        Raises:
            IndexError: an index is outside 0 … n − 1.
            TileError, TasksFailed, Stopped: as `matvec`.
        """
        chosen = self._rows_wanted(indices)
        count = len(chosen)
        if not count:
            return np.zeros((0, self.n))
        at, inputs = self._send_rows(chosen)
        into = f"{self._folder}/rows-{count}"
        self._create(into, (count, self.n), (count, self._patches.rows_per_side))
        tasks = [
            Task(f"{ROWS}/{side}", ROWS, (side, at, inputs), writes=((into, (0, side)),))
            for side in range(self._patches.sides)
        ]
        return np.concatenate(self._collected(tasks), axis=1)

    def rows_product(
        self, indices: Sequence[int] | np.ndarray, vectors: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """K[indices][:, indices] and K[indices, :] V, for distinct indices: the rows stay with the workers.

        Args:
            indices: m different rows.
            vectors: V, shape (n, k).

        Returns:
            float64 (m, m) and (m, k), the same bit for bit whoever works.

        Raises:
            IndexError, TileError, TasksFailed, Stopped: as `rows`.
        """
        chosen = self._rows_wanted(indices)
        count, width = len(chosen), vectors.shape[1]
        at, inputs = self._send_rows(chosen)
        sent = self._send(f"vectors-{width}", np.ascontiguousarray(np.asarray(vectors, np.float64).T))
        into, sides = f"{self._folder}/rows-product-{count}-{width}", self._patches.sides
        self._create(into, (sides, count, count + width), (1, count, count + width))
        tasks = [
            Task(
                f"{ROWS_PRODUCT}/{side}",
                ROWS_PRODUCT,
                (side, at, inputs, sent[side]),
                writes=((into, (side, 0, 0)),),
            )
            for side in range(sides)
        ]
        found = np.zeros((count, count + width))
        for part in self._collected(tasks):  # in the order of the sides: sums of floats depend on it
            found += part[0]
        return found[:, :count], found[:, count:]

    def diagonal(self) -> np.ndarray:
        """The diagonal, float64 (n,).

        Raises:
            TileError, TasksFailed, Stopped: as `matvec`.
        """
        into = f"{self._folder}/diagonal"
        self._create(into, (self.n,), (self._patches.rows_per_side,))
        tasks = [
            Task(f"{DIAGONAL}/{side}", DIAGONAL, (side,), writes=((into, (side,)),))
            for side in range(self._patches.sides)
        ]
        return np.concatenate(self._collected(tasks))

    def _shared_out(self) -> dict[Patch, str]:
        """Who shall do which patch; nobody in particular in a first product, or where there is but one worker."""
        present = [str(worker["label"]) for worker in self._session.executor.workers()]
        if not self._owners or len(present) < 2:
            return {}
        usual = sum(self._speeds.values()) / len(self._speeds) if self._speeds else 1.0
        speeds = {worker: self._speeds.get(worker, usual) for worker in present}
        return share_out(self._effort, speeds, self._owners)

    def _learn(self, done: dict[Patch, Record]) -> None:
        """What the records of a product say of who did what."""
        times = {patch: (record.worker, record.seconds) for patch, record in done.items()}
        self._speeds = measured_speeds(self._effort, times, self._owners, self._speeds)
        self._owners = {patch: record.worker for patch, record in done.items()}
        self.read += sum(record.note["tiles_read"] for record in done.values())

    def _kept(self, width: int) -> int:
        """Tiles that a worker may keep during products with so many vectors."""
        if self._spec is not None or self._session.store.is_mapped(gram_array(self._tiles.kernel)):
            return 0
        grid, itemsize = self._tiles.grid, self._itemsize
        need = product_task(grid.tile, self._patches.rows_per_side, width, itemsize=itemsize)
        return kept_tiles(grid, itemsize, need.total, self._session.resources)

    def _rows_wanted(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        chosen = np.asarray(indices, np.int64)
        if chosen.ndim != 1 or (len(chosen) and not (chosen.min() >= 0 and chosen.max() < self.n)):
            raise IndexError(f"rows must be numbers in 0…{self.n - 1}, got {indices!r:.80}")
        return chosen

    def _send_rows(self, chosen: np.ndarray) -> tuple[Record, Record | None]:
        """Store which rows are wanted and, where rows are computed, their inputs."""
        at = self._put(f"indices-{len(chosen)}", chosen)
        if self._spec is None:
            return at, None
        x = self._session.inputs.x_train[chosen].astype(self._spec.precision)
        return at, self._put(f"inputs-{len(chosen)}", x)

    def _collected(self, tasks: list[Task]) -> list[np.ndarray]:
        """What tasks of one chunk each stored, in the order of the tasks."""
        records = {record.chunk: record for record in self._session.collect(tasks, self._work)}
        return [self._session.store.read_recorded(records[task.writes[0]]) for task in tasks]

    def _send(self, name: str, x: np.ndarray) -> list[Record]:
        """Store vectors (k, n), a chunk a side, for the workers."""
        full, width = f"{self._folder}/{name}", len(x)
        self._create(full, x.shape, (width, self._patches.rows_per_side))
        return [
            self._stored(full, (0, side), x[:, self._patches.rows(side)])
            for side in range(self._patches.sides)
        ]

    def _put(self, name: str, values: np.ndarray) -> Record:
        """Store a small array as one chunk for the workers."""
        full = f"{self._folder}/{name}"
        self._create(full, values.shape, values.shape, values.dtype.name)
        return self._stored(full, (0,) * values.ndim, values)

    def _create(
        self, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str = "float64"
    ) -> None:
        # Looking what is there is a request to a bucket, and nobody else makes these.
        if name not in self._created:
            self._session.store.create(name, shape, chunks, dtype, fingerprint="")
            self._created.add(name)

    def _stored(self, name: str, key: tuple[int, ...], block: np.ndarray) -> Record:
        return stored_record(self._session.store, name, key, block, Stopwatch())


def stored_operator(session: Session, kernel: str, stage: str) -> GramOperator:
    """The stored Gram matrix of a kernel, for a stage whose fingerprint names what is in the store."""
    token = session.fingerprint(stage)
    tiles = StoredTiles(str(session.directory), token, kernel, session.grid)
    return GramOperator(session, token, tiles, np.dtype(session.spec.precision).itemsize)


def computed_operator(session: Session, kernel: str, stage: str) -> GramOperator:
    """The Gram matrix of a kernel, computed from the stored inputs each time it is needed; nothing of it is stored."""
    token = session.fingerprint(stage)
    spec = dataclasses.replace(session.spec, get=(kernel,))
    tiles = ComputedTiles(str(session.directory), token, kernel, session.grid, spec)
    return GramOperator(session, token, tiles, np.dtype(spec.precision).itemsize)
