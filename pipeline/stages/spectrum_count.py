"""Whether leading eigenvalues are all there are above a shift: counted by LDLᵀ of the whole matrix, where it fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ntk.linalg.gates import Gate
from ntk.linalg.inertia import LIMIT, count_above_dense, shifts_between
from pipeline.plan.gram import gram_array
from pipeline.plan.spectrum import is_counted
from pipeline.plan.tasks import Record, Task
from pipeline.plan.tiles import TileGrid
from pipeline.stages.session import Session
from pipeline.stages.spectrum_arrays import (
    EIGENVALUES,
    INERTIA_COUNT,
    Request,
    make_spectrum_array,
    spectrum_array,
)
from pipeline.stages.worker import Stopwatch, opened, stored_record

KIND = "inertia"


@dataclass(frozen=True, slots=True)
class CountWork:
    """Eigenvalues of K above a shift; picklable."""

    directory: str
    token: str
    kernel: str
    grid: TileGrid

    def __call__(self, task: Task) -> list[Record]:
        watch, grid = Stopwatch(), self.grid
        (shift,) = task.args
        store = opened(self.directory, self.token)
        matrix = np.zeros((grid.n, grid.n), order="F")
        for i, j in grid.upper():
            matrix[grid.rows(j), grid.rows(i)] = store.view(gram_array(self.kernel), (i, j)).T
        found = count_above_dense(matrix, shift)
        note = {"shift": shift, "uncertainty": found.uncertainty}
        ((name, key),) = task.writes
        above = np.array([found.above], np.float64)
        return [stored_record(store, name, key, above, watch, task.key, note)]


def inertia_gate(session: Session, request: Request) -> dict[str, Any]:
    """The gate `inertia` on the stored leading eigenvalues: how many are missing (or too many) above the last wide gap
    among them. None where the matrix does not fit, or the gap is too narrow to be sure.

    Raises:
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    n, kernel = session.grid.n, request.kernel
    if not is_counted(n, session.resources.memory):
        return {}
    shifts = shifts_between(session.store.read_all(spectrum_array(kernel, EIGENVALUES)), n)
    if not shifts:
        return {}
    expected, shift, half = shifts[-1]
    name = make_spectrum_array(session, request, INERTIA_COUNT, (1,))
    if session.journal.latest(name, (0,)) is None:
        work = CountWork(str(session.directory), session.fingerprint("spectrum"), kernel, session.grid)
        session.run([Task(f"spectrum/{kernel}/count", KIND, (shift,), (), ((name, (0,)),))], work, "spectrum")
    if session.journal.records(name)[(0,)].note["uncertainty"] >= half:
        return {}
    above = int(session.store.read_all(name)[0])
    return {"inertia": Gate(abs(above - expected), LIMIT).to_dict()}
