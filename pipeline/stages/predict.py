"""The predict stage: f(x) = K(x, train) A for the held-out rows, streamed, for every ridge at once.

K(test, train) is computed tile by tile, multiplied and forgotten. One task takes one block of held-out rows and sums
over the training blocks in order, so that the result does not depend on the workers.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.plan.tasks import Record, Task
from pipeline.plan.tiles import TileGrid
from pipeline.stages import scores
from pipeline.stages.inputs import store_inputs
from pipeline.stages.kernels import KernelSpec
from pipeline.stages.regression import ALPHA
from pipeline.stages.session import Session
from pipeline.stages.worker import Stopwatch, input_rows, opened, stored_record

KIND = "predict"
PREDICTIONS = "predictions/path"


@dataclass(frozen=True, slots=True)
class PredictWork:
    """Predictions for one block of held-out rows, shape (ridges, rows, outputs)."""

    directory: str
    token: str
    spec: KernelSpec
    kernel: str
    grid: TileGrid
    ridges: int

    def __call__(self, task: Task) -> list[Record]:
        watch = Stopwatch()
        (block,) = task.args
        store = opened(self.directory, self.token)
        kernel = self.spec.build(self.grid.tile)
        features = len(self.spec.input_shape)
        x = input_rows(self.directory, self.token, "x_test", block, features)
        alpha = np.concatenate([store.read(ALPHA, (index, 0, 0)) for index in range(self.ridges)])
        predictions = np.zeros((self.ridges, len(x), alpha.shape[2]))
        for j in range(self.grid.blocks):
            rows = input_rows(self.directory, self.token, "x_train", j, features)
            tile = kernel(x, rows)[self.kernel].astype(np.float64, copy=False)
            predictions += tile @ alpha[:, self.grid.rows(j)]
        return [stored_record(store, PREDICTIONS, (0, block, 0), predictions, watch, task.key)]


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
    config, grid, rows = session.config, session.grid, len(session.inputs.x_test)
    ridges = config.solve.ridge
    outputs = session.inputs.outputs
    chunks = (len(ridges), grid.tile, outputs)
    session.create(
        PREDICTIONS, (len(ridges), rows, outputs), chunks, fingerprint=session.fingerprint("predict")
    )
    done = session.journal.done((PREDICTIONS,))
    tasks = [
        Task(f"predict/{block}", KIND, (block,), writes=((PREDICTIONS, (0, block, 0)),))
        for block in range(-(-rows // grid.tile))
        if (PREDICTIONS, (0, block, 0)) not in done
    ]
    spec = dataclasses.replace(session.spec, get=(config.solve_kernel,))
    work = PredictWork(
        str(session.directory), session.fingerprint("predict"), spec, config.solve_kernel, grid, len(ridges)
    )
    session.run(tasks, work, "predict")
    return session.finish("predict", _close(session, solve["chosen"]["ridge"]))


def _close(session: Session, chosen: float) -> dict[str, Any]:
    config, blocks = session.config, -(-len(session.inputs.x_test) // session.grid.tile)
    path = np.concatenate([session.store.read(PREDICTIONS, (0, block, 0)) for block in range(blocks)], axis=1)
    ridges: list[dict[str, Any]] = [{"ridge": ridge} for ridge in config.solve.ridge]
    y = session.inputs.y_test
    by = "loo"
    if y is not None:
        for entry, predictions in zip(ridges, path, strict=True):
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
    } | figures
