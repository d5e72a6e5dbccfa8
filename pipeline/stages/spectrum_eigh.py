"""All eigenpairs of a stored Gram matrix that fits into a worker's memory, by LAPACK, or by cuSOLVER where it
fits into a GPU's as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntk.linalg.gates import eigenpair_gate, orthogonality_gate
from ntk.linalg.operator import symmetric_product
from ntk.spectral.alignment import label_power
from pipeline.plan.gram import gram_array
from pipeline.plan.tasks import Record, Task
from pipeline.plan.tiles import TileGrid
from pipeline.stages.session import Session
from pipeline.stages.spectrum_arrays import (
    EIGENVALUES,
    EIGENVECTORS,
    LABEL_POWER,
    Found,
    Request,
    all_values_note,
    make_spectrum_array,
    spectrum_array,
)
from pipeline.stages.worker import Stopwatch, has_gpu, opened, stored_record, targets

KIND = "spectrum"
PROBED_PAIRS = 32
"""Eigenpairs, spread over the spectrum, whose residual K v − λ v is computed."""


@dataclass(frozen=True, slots=True)
class EighWork:
    """All eigenpairs of one kernel; stores the leading ones."""

    directory: str
    token: str
    grid: TileGrid
    request: Request

    def __call__(self, task: Task) -> list[Record]:
        watch = Stopwatch()
        store, wanted = opened(self.directory, self.token), self.request
        values, vectors = self.decompose()
        note = all_values_note(values, wanted.trace, wanted.frobenius)
        note["gates"] |= self.gates(values, vectors)
        records = []
        blocks = {EIGENVALUES: values[: wanted.count], EIGENVECTORS: vectors[:, : wanted.vectors]}
        if wanted.labels:
            y = targets(self.directory, self.token, self.grid)
            blocks[LABEL_POWER] = label_power(vectors, y)[: wanted.count]
        for name, key in task.writes:
            what = name.rsplit("/", 1)[1]
            block, extra = np.ascontiguousarray(blocks[what]), note if what == EIGENVALUES else None
            records.append(stored_record(store, name, key, block, watch, task.key, extra))
        return records

    def decompose(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues, descending, and eigenvectors in columns, in float64."""
        store, grid = opened(self.directory, self.token), self.grid
        matrix = np.empty((grid.n, grid.n))
        for i, j in grid.upper():
            matrix[grid.rows(i), grid.rows(j)] = store.read(gram_array(self.request.kernel), (i, j))
        if has_gpu():
            from ntk.device import device_memory
            from ntk.linalg import tile_jax

            if tile_jax.EIGH_MATRICES * matrix.nbytes <= device_memory():
                values, vectors = tile_jax.eigh(matrix)
                return values[::-1], vectors[:, ::-1]
        # NumPy's lets go of the interpreter while LAPACK works, SciPy's does not: a stop must be heard meanwhile.
        values, vectors = np.linalg.eigh(matrix, UPLO="U")
        return values[::-1], vectors[:, ::-1]

    def gates(self, values: np.ndarray, vectors: np.ndarray) -> dict[str, Any]:
        """Residuals of a few pairs and orthogonality of all vectors, from a second reading of the matrix."""
        store, grid = opened(self.directory, self.token), self.grid
        probed = np.unique(np.linspace(0, grid.n - 1, min(PROBED_PAIRS, grid.n)).round().astype(int))
        chosen = np.ascontiguousarray(vectors[:, probed])
        name = gram_array(self.request.kernel)
        tiles = ((key, store.read(name, key)) for key in grid.upper())
        products = symmetric_product(tiles, [grid.rows(block) for block in range(grid.blocks)], chosen)
        largest = float(np.max(np.abs(values)))
        pairs = eigenpair_gate(products, values[probed], chosen, lambda_max=largest, dtype=np.float64)
        return {
            "pairs": pairs.to_dict(),
            "orthogonality": orthogonality_gate(vectors, dtype=np.float64).to_dict(),
        }


def decompose(session: Session, request: Request) -> Found:
    """Store the eigenvalues and leading eigenvectors of a kernel.

    Raises:
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    shapes: dict[str, tuple[int, ...]] = {
        EIGENVALUES: (request.count,),
        EIGENVECTORS: (session.grid.n, request.vectors),
        LABEL_POWER: (request.count, session.inputs.outputs),
    }
    names = {what: make_spectrum_array(session, request, what, shapes[what]) for what in request.stores}
    chunks = [(name, (0,) * len(shapes[what])) for what, name in names.items()]
    missing = tuple(chunk for chunk in chunks if session.journal.latest(*chunk) is None)
    if missing:
        work = EighWork(str(session.directory), session.fingerprint("spectrum"), session.grid, request)
        session.run([Task(f"spectrum/{request.kernel}", KIND, writes=missing)], work, "spectrum")
    note = session.journal.records(spectrum_array(request.kernel, EIGENVALUES))[(0,)].note
    return Found(note["gates"], note["lambda_min"])
