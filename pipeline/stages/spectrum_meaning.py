"""What a kernel's spectrum says about learning these labels, and whether it is true: a part of the spectrum stage.

From a sample of the rows that fits into a worker's memory (all rows, where they do): the learning curve as predicted
and as measured, training and held-out error under gradient flow, exponents, norms and bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ntk.spectral.alignment import kernel_target_alignment, label_power
from ntk.spectral.dynamics import flow_errors, flow_times
from ntk.spectral.generalisation import generalisation_bound, label_complexity, rkhs_norm
from ntk.spectral.held_out import measured_errors
from ntk.spectral.label_law import fit_label_law
from ntk.spectral.learning_curve import learning_curve
from ntk.spectral.power_law import fit_power_law
from ntk.spectral.stability import eigenvalue_bound, noise_floor
from pipeline.documents import finite
from pipeline.plan.gram import gram_array
from pipeline.plan.tasks import Record, Task
from pipeline.plan.tiles import TileGrid
from pipeline.stages.inputs import store_inputs
from pipeline.stages.session import Session
from pipeline.stages.spectrum_arrays import SAMPLE, Request, make_spectrum_array, spectrum_array
from pipeline.stages.worker import Stopwatch, opened, stored_record, targets

KIND, SAMPLE_KIND = "meaning", "sample"
SIZES, TIMES = 12, 60
"""Points of the learning curve, and of the errors during training."""
FEWEST, SHARE = 10, 0.975
"""The learning curve's smallest number of training rows, and its largest as a share of the sample."""
TRAINED = 0.8
"""Share of the sample that is trained on in the errors during training; the rest is held out."""

_ROWS, _ERROR = "rows", "squared label units, summed over outputs"
CURVE = {
    "size": (_ROWS, "training rows"),
    "predicted": (_ERROR, "held-out mean square error predicted from eigenpairs"),
    "mean-field": (_ERROR, "the same from eigenvalues and label power alone"),
    "measured": (_ERROR, "held-out mean square error, mean over random subsets"),
    "standard-error": (_ERROR, "standard error of `measured` over the subsets"),
}
"""Arrays of the learning curve: units and meaning of each."""

FLOW = {
    "time": ("1", "steps of gradient descent on ½‖f − y‖² times its learning rate"),
    "train": (_ERROR, "mean square error on the rows trained on"),
    "test": (_ERROR, "mean square error on the rows held out"),
}
"""Arrays of the errors during training."""


def curve_array(kernel: str, what: str) -> str:
    """Name of an array of the learning curve, `what` in `CURVE`."""
    return f"spectrum/{kernel}/learning-curve/{what}"


def flow_array(kernel: str, what: str) -> str:
    """Name of an array of the errors during training, `what` in `FLOW`."""
    return f"spectrum/{kernel}/dynamics/{what}"


def curve_sizes(rows: int) -> np.ndarray:
    """Numbers of training rows, evenly in their logarithm."""
    most = min(round(SHARE * rows), rows - 2)
    return np.unique(np.geomspace(min(FEWEST, most), most, SIZES).round().astype(np.int64))


def sampled_rows(n: int, rows: int) -> np.ndarray:
    """`rows` of n rows, ascending, drawn without replacement; the same ones every time."""
    return np.sort(np.random.default_rng(0).choice(n, rows, replace=False))


@dataclass(frozen=True, slots=True)
class MeaningWork:
    """Learning curve, errors during training and label figures of one kernel, from a sample of the rows."""

    directory: str
    token: str
    grid: TileGrid
    rows: int
    ridges: tuple[float, ...]
    precision: str

    def __call__(self, task: Task) -> list[Record]:
        watch, store = Stopwatch(), opened(self.directory, self.token)
        (kernel,) = task.args
        chosen = sampled_rows(self.grid.n, self.rows)
        if task.kind == SAMPLE_KIND:
            ((name, key),) = task.writes
            return [stored_record(store, name, key, self.sample(kernel, chosen), watch, task.key)]
        matrix = store.read(spectrum_array(kernel, SAMPLE), (0, 0))
        y = targets(self.directory, self.token, self.grid)[chosen]
        curve, note = self.curve(matrix, y)
        flow = self.flow(matrix, y)
        blocks = {curve_array(kernel, what): block for what, block in zip(CURVE, curve, strict=True)}
        blocks |= {flow_array(kernel, what): block for what, block in zip(FLOW, flow, strict=True)}
        return [
            stored_record(
                store, name, key, np.ascontiguousarray(blocks[name]), watch, task.key,
                note if name == curve_array(kernel, "size") else None,
            )
            for name, key in task.writes
        ]  # fmt: skip

    def sample(self, kernel: str, chosen: np.ndarray) -> np.ndarray:
        """K[chosen][:, chosen] in float64; each tile is read once."""
        store, tile = opened(self.directory, self.token), self.grid.tile
        block, inside = chosen // tile, chosen % tile
        at = [np.flatnonzero(block == i) for i in range(self.grid.blocks)]
        matrix = np.empty((len(chosen), len(chosen)))
        for i, j in self.grid.upper():
            if len(at[i]) and len(at[j]):
                part = store.read(gram_array(kernel), (i, j))[np.ix_(inside[at[i]], inside[at[j]])]
                matrix[np.ix_(at[i], at[j])] = part
                matrix[np.ix_(at[j], at[i])] = part.T
        return matrix

    def curve(self, matrix: np.ndarray, y: np.ndarray) -> tuple[list[np.ndarray], dict[str, Any]]:
        """The arrays of `CURVE`, and figures of the labels."""
        rows = len(matrix)
        values, vectors = np.linalg.eigh(matrix)
        values, vectors = values[::-1], vectors[:, ::-1]
        floor = noise_floor(float(values[0]), rows, self.precision)
        mean_diagonal = float(np.trace(matrix)) / rows
        # A sample of a matrix in float32 may have eigenvalues a little below zero.
        ridge = max(min(self.ridges) * mean_diagonal, floor, -2 * float(values[-1]))
        sizes = curve_sizes(rows)
        predicted = learning_curve(values, vectors, y, sizes, ridge)
        measured, error = measured_errors(matrix, y, sizes, ridge)
        power, law = label_power(vectors, y), fit_power_law(values, floor)
        labels = None if law is None else fit_label_law(power, law.first, law.last)
        complexity = label_complexity(values, power, floor)
        note = {
            "ridge": ridge,
            "label_law": None if labels is None else asdict(labels),
            "label_complexity": _numbers(complexity),
            "generalisation_bound": _numbers(generalisation_bound(complexity, rows, mean_diagonal)),
            "rkhs_norm": [
                {"ridge": r, "value": rkhs_norm(values, power, max(r * mean_diagonal, floor))}
                for r in self.ridges
            ],
            "class_alignment": _numbers(
                np.array([kernel_target_alignment(values, vectors, column) for column in y.T])
            ),
        }
        return [sizes.astype(np.float64), predicted.error, predicted.mean_field, measured, error], note

    def flow(self, matrix: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
        """The arrays of `FLOW`, of a random split of the sample."""
        order = np.random.default_rng(1).permutation(len(matrix))
        train, test = np.split(order, [round(TRAINED * len(matrix))])
        values, vectors = np.linalg.eigh(matrix[np.ix_(train, train)])
        floor = noise_floor(float(values[-1]), len(train), self.precision)
        times = flow_times(float(values[-1]), max(float(values[0]), floor), TIMES)
        errors = flow_errors(values, vectors, y[train], times, matrix[np.ix_(test, train)], y[test])
        assert errors.test is not None
        return [errors.times, errors.train, errors.test]


def figures(session: Session, request: Request) -> dict[str, Any]:
    """Compute and store the curves of one kernel; returns its figures, none without labels. The sample of the matrix is
    stored too, so that other labels or another ridge need no second reading of the matrix.

    Raises:
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    kernel, rows = request.kernel, request.rows
    if not request.labels or not rows:
        return {}
    store_inputs(session)
    lengths = {
        curve_array(kernel, what): (len(curve_sizes(rows)), "size", about) for what, about in CURVE.items()
    }
    lengths |= {flow_array(kernel, what): (TIMES, "time", about) for what, about in FLOW.items()}
    for name, (length, dimension, (units, meaning)) in lengths.items():
        session.create(
            name, (length,), (length,), fingerprint=request.prints["curves"], dimensions=(dimension,),
            attributes={"units": units, "long_name": meaning},
        )  # fmt: skip
    tasks: list[Task] = []
    sample = make_spectrum_array(session, request, SAMPLE, (rows, rows)), (0, 0)
    if session.journal.latest(*sample) is None:
        tasks.append(Task(f"sample/{kernel}", SAMPLE_KIND, (kernel,), writes=(sample,)))
    writes = tuple((name, (0,)) for name in lengths)
    if any(session.journal.latest(*chunk) is None for chunk in writes):
        deps = tuple(task.key for task in tasks)
        tasks.append(Task(f"meaning/{kernel}", KIND, (kernel,), deps=deps, writes=writes))
    work = MeaningWork(
        str(session.directory),
        session.fingerprint("spectrum"),
        session.grid,
        rows,
        session.config.solve.ridge,
        session.spec.precision,
    )
    session.run(tasks, work, "learning curve")
    return _figures(session, kernel, rows)


def certificate(method: str, gates: Mapping[str, Any], lambda_max: float) -> dict[str, float]:
    """`lambda_error`: how far an eigenvalue that the run checked can be from one of K, from the largest residual.

    Gates of `lanczos` are in units of λ_max, those of the other methods in units of ε λ_max.
    """
    pairs = gates.get("pairs")
    if pairs is None or pairs["value"] is None:
        return {}
    unit = 1.0 if method == "lanczos" else float(np.finfo(np.float64).eps)
    return {"lambda_error": eigenvalue_bound(pairs["value"] * unit * lambda_max)}


def _figures(session: Session, kernel: str, rows: int) -> dict[str, Any]:
    note = dict(session.journal.records(curve_array(kernel, "size"))[(0,)].note)
    curve = {what: session.store.read(curve_array(kernel, what), (0,)) for what in CURVE}
    flow = {what: session.store.read(flow_array(kernel, what), (0,)) for what in FLOW}
    best = int(np.argmin(flow["test"]))
    measured = curve["measured"]
    deviations = np.abs(curve["predicted"][measured > 0] / measured[measured > 0] - 1)
    return {
        "sample_rows": rows,
        "learning_curve": {what.replace("-", "_"): block.tolist() for what, block in curve.items()}
        | {"ridge": note.pop("ridge"), "largest_deviation": float(deviations.max(initial=0.0))},
        "dynamics": {
            "rows": round(TRAINED * rows),
            "best_time": float(flow["time"][best]),
            "best_error": float(flow["test"][best]),
            "last_error": float(flow["test"][-1]),
        },
    } | note


def _numbers(values: np.ndarray) -> list[float | None]:
    """As JSON has them; None for what is not finite."""
    return [finite(value) for value in values]
