"""The spectrum stage: eigenvalues of each stored Gram matrix and what they say about training and generalisation.

One task a kernel: the matrix is put together from its tiles, decomposed by LAPACK in memory, and only what is asked for
is stored. The plan refuses a matrix that does not fit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ntk.linalg.gates import eigenpair_gate, frobenius_gate, orthogonality_gate, trace_gate
from ntk.linalg.operator import symmetric_product
from ntk.spectral.alignment import cumulative_label_power, kernel_target_alignment, label_power
from ntk.spectral.effective_dimension import effective_dimension, participation_ratio, stable_rank
from ntk.spectral.power_law import fit_power_law
from ntk.spectral.stability import condition_number, max_learning_rate, noise_floor
from pipeline.errors import GateError
from pipeline.plan.gram import gram_array
from pipeline.plan.tasks import Record, Task
from pipeline.plan.tiles import TileGrid
from pipeline.stages.inputs import store_inputs
from pipeline.stages.session import Session
from pipeline.stages.worker import Stopwatch, opened, stored_record, targets

KIND = "spectrum"
PROBED_PAIRS = 32
"""Eigenpairs, spread over the spectrum, whose residual K v − λ v is computed."""

HALF_POWER = 0.5


def spectrum_array(kernel: str, what: str) -> str:
    """Name of an array of a kernel's spectrum: `eigenvalues`, `eigenvectors`, `label-power`."""
    return f"spectrum/{kernel}/{what}"


@dataclass(frozen=True, slots=True)
class SpectrumWork:
    """All eigenpairs of one kernel; stores the leading ones and the labels' power in each mode."""

    directory: str
    token: str
    grid: TileGrid
    count: int
    vectors: int
    labels: bool

    def __call__(self, task: Task) -> list[Record]:
        watch = Stopwatch()
        (kernel,) = task.args
        store, grid = opened(self.directory, self.token), self.grid
        values, vectors = self.decompose(kernel)
        y = None
        if self.labels:
            y = targets(self.directory, self.token, grid)
        note = {"gates": self.gates(kernel, values, vectors), "lambda_min": float(values[-1])}
        blocks = {"eigenvalues": values[: self.count], "eigenvectors": vectors[:, : self.vectors]}
        if y is not None:
            blocks["label-power"] = label_power(vectors, y)[: self.count]
            note["alignment"] = kernel_target_alignment(values, vectors, y)
            note["label_norms"] = np.sum(y**2, axis=0).tolist()
        records = []
        for what, block in blocks.items():
            name, key = spectrum_array(kernel, what), (0,) * block.ndim
            if block.size:
                extra = note if what == "eigenvalues" else None
                records.append(
                    stored_record(store, name, key, np.ascontiguousarray(block), watch, task.key, extra)
                )
        return records

    def decompose(self, kernel: str) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues, descending, and eigenvectors in columns, in float64."""
        store, grid = opened(self.directory, self.token), self.grid
        matrix = np.empty((grid.n, grid.n))
        for i, j in grid.upper():
            matrix[grid.rows(i), grid.rows(j)] = store.read(gram_array(kernel), (i, j))
        # NumPy's lets go of the interpreter while LAPACK works, SciPy's does not: a stop must be heard meanwhile.
        values, vectors = np.linalg.eigh(matrix, UPLO="U")
        return values[::-1], vectors[:, ::-1]

    def gates(self, kernel: str, values: np.ndarray, vectors: np.ndarray) -> dict[str, Any]:
        """Residuals of a few pairs and orthogonality of all vectors, from a second reading of the matrix."""
        store, grid = opened(self.directory, self.token), self.grid
        probed = np.unique(np.linspace(0, grid.n - 1, min(PROBED_PAIRS, grid.n)).round().astype(int))
        chosen = np.ascontiguousarray(vectors[:, probed])
        tiles = ((key, store.read(gram_array(kernel), key)) for key in grid.upper())
        products = symmetric_product(tiles, [grid.rows(block) for block in range(grid.blocks)], chosen)
        largest = float(np.max(np.abs(values)))
        pairs = eigenpair_gate(products, values[probed], chosen, lambda_max=largest, dtype=np.float64)
        return {
            "pairs": pairs.to_dict(),
            "orthogonality": orthogonality_gate(vectors, dtype=np.float64).to_dict(),
        }


def run(session: Session) -> dict[str, Any]:
    """Decompose every stored kernel; returns the metrics.

    Raises:
        InputError: the gram stage is not done.
        GateError: a residual is too large.
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    finished = session.finished("spectrum")
    if finished is not None:
        return finished
    store_inputs(session)
    gram, config, n = session.require("gram"), session.config, session.grid.n
    count = n if config.spectrum.count == "all" else min(config.spectrum.count, n)
    vectors = min(config.spectrum.vectors, n)
    labels = session.inputs.y_train is not None
    tasks = []
    for kernel in config.kernel.get:
        shapes: dict[str, tuple[int, ...]] = {"eigenvalues": (count,)}
        if vectors:
            shapes["eigenvectors"] = (n, vectors)
        if labels:
            shapes["label-power"] = (count, session.inputs.outputs)
        writes = []
        for what, shape in shapes.items():
            name = spectrum_array(kernel, what)
            session.create(name, shape, shape, fingerprint=session.fingerprint("spectrum"))
            writes.append((name, (0,) * len(shape)))
        if any(session.journal.latest(*chunk) is None for chunk in writes):
            tasks.append(Task(f"spectrum/{kernel}", KIND, (kernel,), writes=tuple(writes)))
    work = SpectrumWork(
        str(session.directory), session.fingerprint("spectrum"), session.grid, count, vectors, labels
    )
    session.run(tasks, work, "spectrum")
    return session.finish(
        "spectrum", {kernel: _close(session, kernel, gram[kernel]) for kernel in config.kernel.get}
    )


def _close(session: Session, kernel: str, gram: dict[str, Any]) -> dict[str, Any]:
    """The figures of one kernel, from the stored eigenvalues."""
    name = spectrum_array(kernel, "eigenvalues")
    values, n = session.store.read(name, (0,)), session.grid.n
    note = session.journal.records(name)[(0,)].note
    precision = session.spec.precision
    gates = dict(note["gates"])
    if len(values) == n:
        gates["trace"] = trace_gate(values, trace=gram["trace"], dtype=np.float64).to_dict()
        gates["frobenius"] = frobenius_gate(
            values, frobenius=gram["frobenius_norm"], dtype=np.float64
        ).to_dict()
    session.require_gates("spectrum", {kernel: gates})
    floor = noise_floor(float(values[0]), n, precision)
    if not values[0] > floor:
        raise GateError(
            f"spectrum: {kernel}: the Gram matrix is zero up to rounding (largest eigenvalue {values[0]:.3g})",
            hint="look at the inputs and at the weight variances of the architecture",
        )
    condition = condition_number(np.array([values[0], note["lambda_min"]]), floor)
    law = fit_power_law(values, floor)
    ridges = session.config.solve.ridge
    dimensions = effective_dimension(values, np.array(ridges) * gram["mean_diagonal"], floor)
    figures: dict[str, Any] = {
        "lambda_max": float(values[0]),
        "lambda_min": note["lambda_min"],
        "noise_floor": floor,
        "condition_number": condition.value,
        "condition_number_resolved": condition.resolved,
        "max_learning_rate": max_learning_rate(float(values[0])),
        "effective_dimension": [
            {"ridge": r, "value": float(d)} for r, d in zip(ridges, dimensions, strict=True)
        ],
        "participation_ratio": participation_ratio(values),
        "stable_rank": stable_rank(values),
        "power_law": None if law is None else asdict(law),
        "gates": gates,
    }
    if "alignment" in note:
        figures["label_alignment"] = note["alignment"]
        power = session.store.read(spectrum_array(kernel, "label-power"), (0, 0))
        cumulative = cumulative_label_power(power.sum(axis=1)[:, None], np.array([sum(note["label_norms"])]))[
            :, 0
        ]
        figures["modes_for_half_label_power"] = int(np.searchsorted(cumulative, HALF_POWER)) + 1
    return figures
