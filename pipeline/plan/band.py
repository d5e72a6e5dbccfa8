"""Tasks of the reduction of a stored symmetric matrix to a band, out of core.

With A_0 = K and A_k the matrix after k panels (``ntk.linalg.band_reduction``):

    panel k      Y_{k−1} summed, W_{k−1} made; the first b rows of A_k made from A_{k−1}, V_k, R_k by their QR
    sweep k, s   for the tiles of share s: A_k = A_{k−1} − V_{k−1} W_{k−1}ᵀ − W_{k−1} V_{k−1}ᵀ written,
                 and its part of Y_k = A_k V_k T_k

so that a panel costs one reading and one writing of what is left of the matrix. Nothing is updated in place: A_k is
stored beside A_{k−1}, whose records are void when sweep k is done, and a killed reduction goes on at its last task. The
files of A_{k−1} then become those of A_{k+1}: writing over an old file costs a tenth of making a new one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from pipeline.plan.tasks import Chunk, Task
from pipeline.plan.tiles import TileGrid

PANEL_KIND = "band-panel"
SWEEP_KIND = "band-sweep"


@dataclass(frozen=True, slots=True)
class BandPlan:
    """The reduction of an n × n matrix in tiles to bandwidth b, its sweeps cut into shares.

    Attributes:
        grid: tiles of the matrix, and of what is left of it after each panel.
        bandwidth: b.
        shares: tasks of a sweep. Sums over shares are taken in their order, so that results do not depend on who is
            first, but they do depend on this number.
        root: the arrays are named `root/band`, `root/reflectors` …
        vectors: whether eigenvectors are wanted, for which the reflectors are kept.
    """

    grid: TileGrid
    bandwidth: int
    shares: int
    root: str
    vectors: bool = True

    @property
    def panels(self) -> int:
        """Number of panels; the last has nothing below it and no sweep."""
        return -(-self.grid.n // self.bandwidth)

    def rows(self, panel: int) -> slice:
        """The rows (equally columns) of a panel."""
        return slice(panel * self.bandwidth, min((panel + 1) * self.bandwidth, self.grid.n))

    def tiles(self, panel: int) -> Iterator[tuple[int, int]]:
        """The upper tiles of the matrix that is left below a panel."""
        first = self.rows(panel).stop // self.grid.tile
        return ((i, j) for i in range(first, self.grid.blocks) for j in range(i, self.grid.blocks))

    def share(self, panel: int, share: int) -> list[tuple[int, int]]:
        """The tiles of one share of a sweep: dealt in turn, so that every share has its part of each row."""
        return list(self.tiles(panel))[share :: self.shares]

    @property
    def arrays(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Name → (shape, chunk) of every array the reduction keeps or passes on."""
        n, t, b, p = self.grid.n, self.grid.tile, self.bandwidth, self.panels
        return {
            self.band: ((p, b, 2 * b), (1, b, 2 * b)),
            self.reflectors: ((p, n, b), (1, n, b)),
            self.triangles: ((p, b, b), (1, b, b)),
            self.matrix: ((p, n, n), (1, t, t)),
            self.products: ((p, self.shares, n, b), (1, 1, n, b)),
            self.updates: ((p, n, b), (1, n, b)),
        }

    @property
    def band(self) -> str:
        """[D_k | R_kᵀ] of each panel."""
        return f"{self.root}/band"

    @property
    def reflectors(self) -> str:
        """V_k, zero above its rows."""
        return f"{self.root}/reflectors"

    @property
    def triangles(self) -> str:
        """T_k."""
        return f"{self.root}/triangles"

    @property
    def matrix(self) -> str:
        """A_k, k ≥ 1."""
        return f"{self.root}/matrix"

    @property
    def products(self) -> str:
        """The shares' parts of Y_k."""
        return f"{self.root}/products"

    @property
    def updates(self) -> str:
        """W_{k−1}, at index k."""
        return f"{self.root}/updates"

    def panel_writes(self, panel: int) -> tuple[Chunk, ...]:
        """The chunks that the task of a panel stores; the band's last."""
        key = (panel, 0, 0)
        if panel == self.panels - 1:
            return ((self.band, key),)
        update = ((self.updates, key),) if panel > 0 else ()
        return (*update, (self.reflectors, key), (self.triangles, key), (self.band, key))

    def sweep_writes(self, panel: int, share: int) -> tuple[Chunk, ...]:
        """The chunks that a share of a sweep stores; its product's last."""
        tiles = [(self.matrix, (panel, *tile)) for tile in self.share(panel, share)] if panel > 0 else []
        return (*tiles, (self.products, (panel, share, 0, 0)))

    def panel_done(self, panel: int, done: Collection[Chunk]) -> bool:
        """Whether a panel is recorded: its band is its last chunk."""
        return (self.band, (panel, 0, 0)) in done

    def sweep_done(self, panel: int, share: int, done: Collection[Chunk]) -> bool:
        """Recorded, or recorded once and dropped since: the next panel needs all of it."""
        return self.panel_done(panel + 1, done) or (self.products, (panel, share, 0, 0)) in done

    def spent(self, done: Collection[Chunk]) -> list[Chunk]:
        """Chunks with a record that no task needs any more. Their files may still be used up (`over`)."""
        undone = (
            panel
            for panel in range(self.panels - 1)
            if not all(self.sweep_done(panel, share, done) for share in range(self.shares))
        )
        last = self.panels if self.panel_done(self.panels - 1, done) else self.panels - 1
        first = next(undone, last)
        # Sweep and panel `first` still read A, Y of first − 1 and W at `first`.
        passed = {self.matrix: first - 1, self.products: first - 1, self.updates: first}
        if not self.vectors:
            passed |= {self.reflectors: first - 1, self.triangles: first - 1}
        return sorted(chunk for chunk in done if chunk[0] in passed and chunk[1][0] < passed[chunk[0]])

    def over(self, name: str, key: tuple[int, ...]) -> tuple[int, ...] | None:
        """The chunk whose file a chunk is written over: that of two steps before, which every task that read it has
        behind it. Of the first two steps it is one that never was."""
        kept = {self.band} | ({self.reflectors, self.triangles} if self.vectors else set())
        return None if name in kept else (key[0] - 2, *key[1:])


def band_tasks(plan: BandPlan, done: Collection[Chunk], prefix: str) -> tuple[Task, ...]:
    """The tasks that are not done, in order.

    Invariant: when a task starts, every chunk that it reads is in ``done`` and not ``spent``, or was written by a task
    before it.

    Args:
        plan: the reduction.
        done: chunks with a record.
        prefix: start of the task keys: `prefix/panel/3`, `prefix/sweep/3.1`.
    """
    tasks: list[Task] = []
    waits: list[str] = []
    for panel in range(plan.panels):
        if not plan.panel_done(panel, done):
            key = f"{prefix}/panel/{panel}"
            tasks.append(
                Task(key, PANEL_KIND, (panel,), tuple(waits), plan.panel_writes(panel), priority=2 * panel)
            )
            waits = [key]
        else:
            waits = []
        if panel == plan.panels - 1:
            break
        sweeps = []
        for share in range(plan.shares):
            if not plan.sweep_done(panel, share, done):
                key, writes = f"{prefix}/sweep/{panel}.{share}", plan.sweep_writes(panel, share)
                args = (panel, share)
                tasks.append(Task(key, SWEEP_KIND, args, tuple(waits), writes, priority=2 * panel + 1))
                sweeps.append(key)
        waits = sweeps
    return tuple(tasks)
