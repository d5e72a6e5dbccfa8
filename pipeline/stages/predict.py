"""The predict stage: f(x) = K(x, train) A for the held-out rows, streamed, for every ridge and training time at once.

K(test, train) is computed tile by tile, multiplied and forgotten. One task takes one block of held-out rows and sums
over the training blocks in order, so that the result does not depend on the workers.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntk.linalg.gates import Gate
from pipeline.plan.tasks import Record, Task
from pipeline.plan.tiles import TileGrid
from pipeline.stages import scores
from pipeline.stages.inputs import store_inputs
from pipeline.stages.kernels import KernelSpec
from pipeline.stages.regression import ALPHA
from pipeline.stages.session import Session
from pipeline.stages.training_times import FLOW, TOLERANCE, store_flow
from pipeline.stages.worker import Stopwatch, input_rows, opened, stored_record

KIND = "predict"
PREDICTIONS = "predictions/path"
"""(ridges + training times, rows, outputs), in chunks of one block of rows."""


@dataclass(frozen=True, slots=True)
class PredictWork:
    """Predictions for one block of held-out rows, shape (predictors, rows, outputs).

    `coefficients` names arrays (count, n, outputs) with one chunk for each predictor, and their counts; `predictions`
    the array to write.
    """

    directory: str
    token: str
    spec: KernelSpec
    kernel: str
    grid: TileGrid
    coefficients: tuple[tuple[str, int], ...]
    predictions: str

    def __call__(self, task: Task) -> list[Record]:
        watch = Stopwatch()
        (block,) = task.args
        store = opened(self.directory, self.token)
        kernel = self.spec.build(self.grid.tile)
        features = len(self.spec.input_shape)
        x = input_rows(self.directory, self.token, "x_test", block, features)
        alpha = np.concatenate(
            [store.read(name, (index, 0, 0)) for name, count in self.coefficients for index in range(count)]
        )
        predictions = np.zeros((len(alpha), len(x), alpha.shape[2]))
        for j in range(self.grid.blocks):
            rows = input_rows(self.directory, self.token, "x_train", j, features)
            tile = kernel(x, rows)[self.kernel].astype(np.float64, copy=False)
            predictions += tile @ alpha[:, self.grid.rows(j)]
        return [stored_record(store, self.predictions, (0, block, 0), predictions, watch, task.key)]


def run(session: Session) -> dict[str, Any]:
    """Predict the held-out rows and score them; returns the metrics.

    Raises:
        InputError: the solve stage is not done.
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    finished = session.finished("predict")
    if finished is not None:
        return finished
    store_inputs(session)
    solve = session.require("solve")
    config = session.config
    bounds = store_flow(session) if config.predict.times else []
    coefficients = ((ALPHA, len(config.solve.ridge)), (FLOW, len(bounds)))
    stream(session, coefficients, PREDICTIONS, session.fingerprint("predict"))
    return session.finish("predict", _close(session, solve["chosen"], bounds))


def stream(
    session: Session, coefficients: tuple[tuple[str, int], ...], predictions: str, fingerprint: str
) -> None:
    """Store K(x, train) A for the held-out rows x, whose inputs are in the store.

    Args:
        coefficients: as in `PredictWork`.
        predictions: name of the array to store, (predictors, rows, outputs).
        fingerprint: of all that it depends on; blocks of rows that are there already are kept.

    Raises:
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    grid, rows, outputs = session.grid, len(session.inputs.x_test), session.inputs.outputs
    predictors, kernel = sum(count for _, count in coefficients), session.config.solve_kernel
    session.create(
        predictions, (predictors, rows, outputs), (predictors, grid.tile, outputs), fingerprint=fingerprint
    )
    done = session.journal.done((predictions,))
    tasks = [
        Task(f"predict/{block}", KIND, (block,), writes=((predictions, (0, block, 0)),))
        for block in range(-(-rows // grid.tile))
        if (predictions, (0, block, 0)) not in done
    ]
    spec = dataclasses.replace(session.spec, get=(kernel,))
    work = PredictWork(str(session.directory), fingerprint, spec, kernel, grid, coefficients, predictions)
    session.run(tasks, work, "predict")


def _close(session: Session, solved: dict[str, Any], bounds: list[float]) -> dict[str, Any]:
    config, blocks = session.config, -(-len(session.inputs.x_test) // session.grid.tile)
    path = np.concatenate([session.store.read(PREDICTIONS, (0, block, 0)) for block in range(blocks)], axis=1)
    ridges: list[dict[str, Any]] = [{"ridge": ridge} for ridge in config.solve.ridge]
    times: list[dict[str, Any]] = [
        {"time": time, "gates": {"coefficients": Gate(bound, TOLERANCE).to_dict()}}
        for time, bound in zip(config.predict.times, bounds, strict=True)
    ]
    y = session.inputs.y_test
    chosen, by = solved["ridge"], solved["by"]
    if y is not None:
        for entry, predictions in zip([*ridges, *times], path, strict=True):
            entry |= scores.score(y, predictions, config.data.task)
        if config.solve.select == "held_out":
            best = min(ridges, key=lambda entry: (entry["rmse"], -entry["ridge"]))
            chosen, by = best["ridge"], "held_out"
    index = config.solve.ridge.index(chosen)
    figures = {name: value for name, value in ridges[index].items() if name != "ridge"}
    return {
        "rows": path.shape[1],
        "ridges": ridges,
        "chosen": {"ridge": chosen, "by": by, "index": index},
        **({"times": times} if times else {}),
    } | figures
