"""A finished or growing run, opened for reading by anyone: `open_run("DIR")`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config.sizes import human_bytes, parse_bytes
from pipeline.errors import InputError
from pipeline.plan.gram import cross_array, gram_array
from pipeline.plan.tiles import TileGrid
from pipeline.stages import rundir
from pipeline.stages.predict import PREDICTIONS
from pipeline.stages.regression import ALPHA
from pipeline.stages.spectrum_arrays import spectrum_array
from pipeline.store.arrays import ArrayStore
from pipeline.store.journal import Journal
from pipeline.store.layout import RunLayout
from pipeline.store.place import Place, place

NUMPY_LIMIT = "4 GB"
"""Largest matrix that `to_numpy` makes without being told that more is fine."""


@dataclass(frozen=True, slots=True)
class GramMatrix:
    """A stored symmetric Gram matrix; only tiles (i ≤ j) exist, the others are transposes made on reading.

    Attributes:
        name: array in the store, `gram/ntk`.
        grid: its tiles.
        dtype: of its entries.
    """

    store: ArrayStore
    name: str
    grid: TileGrid
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, int]:
        return self.grid.n, self.grid.n

    def block(self, i: int, j: int) -> np.ndarray:
        """Tile (i, j) of either triangle, checked against its record.

        Raises:
            IndexError: there is no such block.
            TileError: the tile is missing or damaged.
        """
        self.grid.shape(i, j)
        return self.store.read(self.name, (i, j)) if i <= j else self.store.read(self.name, (j, i)).T

    def to_dask(self) -> Any:
        """The whole matrix as a lazy, symmetric dask array of shape (n, n), one chunk a tile."""
        from pipeline.runtime.lazy import lazy_matrix

        return lazy_matrix(self.grid, self.block, self.dtype)

    def to_numpy(self, limit: str | int = NUMPY_LIMIT) -> np.ndarray:
        """The whole matrix in memory, shape (n, n).

        Args:
            limit: bytes it may take, as a number or a text like `16 GB`.

        Raises:
            InputError: it needs more; the message says how much.
        """
        _require_fits(self.name, self.shape, self.dtype, limit, "use to_dask() or block(i, j)")
        matrix = np.empty(self.shape, self.dtype)
        for i, j in self.grid.upper():
            tile = self.store.read(self.name, (i, j))
            matrix[self.grid.rows(i), self.grid.rows(j)] = tile
            matrix[self.grid.rows(j), self.grid.rows(i)] = tile.T
        return matrix


def _require_fits(name: str, shape: tuple[int, ...], dtype: np.dtype, limit: str | int, instead: str) -> None:
    need = math.prod(shape) * dtype.itemsize
    allowed = parse_bytes(limit) if isinstance(limit, str) else limit
    if need > allowed:
        raise InputError(
            f"{name}: {' × '.join(f'{size:,}' for size in shape)} needs {human_bytes(need)}, the limit is "
            f"{human_bytes(allowed)}",
            hint=f"{instead}, or pass a higher limit",
        )


class Run:
    """A run directory opened for reading. Every value is checked against its record as it is read, and results of
    another configuration than the present one are refused.

    Attributes:
        directory: the run directory.
        config: its resolved configuration as plain data, versions and fingerprints under `resolved`.
    """

    def __init__(self, directory: Place | str):
        from pipeline.config import yaml

        self.directory = place(directory)
        if rundir.resolved(self.directory) is None:
            raise InputError(f"{directory}: no run here", hint="`ntk run RUN.yaml --out DIR` makes one")
        self.config: dict[str, Any] = yaml.read(RunLayout(self.directory).config)
        self.journal = Journal(self.directory).load()
        self.store = ArrayStore(self.directory, self.journal)

    def gram(self, kernel: str = "ntk") -> GramMatrix:
        """The stored Gram matrix of a kernel, `ntk` or `nngp`, shape (n, n).

        Raises:
            InputError: this run stores no such kernel.
        """
        kernels = self.config["kernel"]["get"]
        if kernel not in kernels:
            raise InputError(f"{self.directory}: stores no {kernel}, only {', '.join(kernels)}")
        array = self.store.array(gram_array(kernel))
        facts = self.config["resolved"]
        return GramMatrix(
            self.store, gram_array(kernel), TileGrid(facts["rows"]["train"], facts["tile"]), array.dtype
        )

    def cross(self, kernel: str = "ntk", limit: str | int = NUMPY_LIMIT) -> np.ndarray:
        """K(test, train) of a kernel, shape (test rows, n), of a run that stores it (`gram.cross`).

        Raises:
            InputError: it is not stored, or takes more memory than `limit`.
            TileError: a tile is missing or damaged.
        """
        name = cross_array(kernel)
        if not self.store.exists(name):
            raise InputError(f"{self.directory}: stores no {name}", hint="set gram.cross to true")
        array = self.store.array(name)
        _require_fits(name, array.shape, array.dtype, limit, "read tiles with store.read")
        return self._whole(name, "gram")

    def eigenvalues(self, kernel: str = "ntk") -> np.ndarray:
        """Stored eigenvalues, descending, float64 (count,)."""
        return self._whole(spectrum_array(kernel, "eigenvalues"), "spectrum")

    def eigenvectors(self, kernel: str = "ntk") -> np.ndarray:
        """Stored leading eigenvectors in columns, float64 (n, vectors)."""
        return self._whole(spectrum_array(kernel, "eigenvectors"), "spectrum")

    @property
    def predictions(self) -> np.ndarray:
        """Predictions for the held-out rows with the chosen ridge, float64 (rows, outputs)."""
        path = self._whole(PREDICTIONS, "predict")
        return path[self.metrics["predict"]["chosen"]["index"]]

    @property
    def predictions_in_training(self) -> np.ndarray:
        """Predictions for the held-out rows at each of `predict.times`, float64 (times, rows, outputs)."""
        return self._whole(PREDICTIONS, "predict")[len(self.config["solve"]["ridge"]) :]

    @property
    def solution(self) -> np.ndarray:
        """Coefficients α = (K + λI)⁻¹ Y for every ridge, float64 (ridges, n, outputs)."""
        return self._whole(ALPHA, "solve")

    @property
    def metrics(self) -> dict[str, Any]:
        """Every figure the report shows, as in metrics.json; empty while no stage is done."""
        file = RunLayout(self.directory).metrics
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def _whole(self, name: str, stage: str) -> np.ndarray:
        self.journal.refresh()
        if not self.journal.records(name):
            raise InputError(f"{self.directory}: no {name} yet", hint=f"the {stage} stage has not stored it")
        if (facts := rundir.resolved(self.directory)) is not None:
            rundir.refuse_stale(self.directory, facts, self.journal, stage)
        return self.store.read_all(name)


def open_run(directory: Place | str) -> Run:
    """Open a run directory for reading; it may still be growing.

    Raises:
        InputError: there is no run.
    """
    return Run(directory)
