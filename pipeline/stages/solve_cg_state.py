"""Checkpoints of conjugate gradients: one after every step, two kept in turn, so that a kill never leaves none."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ntk.linalg.conjugate_gradients import State, System
from pipeline.documents import finite
from pipeline.stages.session import Session
from pipeline.store.faults import TileError

ARRAYS = ("x", "s", "q", "y")
"""Of a state, in the order in which they stand in a checkpoint."""

SLOTS = 2


class Checkpoints:
    """The checkpoints of one ridge.

    Arrays: `solution/cg-I` (slots, 4, n, k), directions padded with zeros; `solution/cg-I-residuals` (steps, k), a row
    a step.
    """

    def __init__(self, session: Session, index: int, system: System):
        self._session, self._system = session, system
        self._states, self._residuals = f"solution/cg-{index}", f"solution/cg-{index}-residuals"
        n, k = system.b.shape
        mark = session.fingerprint("solve")
        session.create(self._states, (SLOTS, len(ARRAYS), n, k), (1, len(ARRAYS), n, k), fingerprint=mark)
        # A look at the true residual costs a product too, and two of them may come without one.
        session.create(self._residuals, (system.limit + 2, k), (1, k), fingerprint=mark)

    def latest(self) -> State | None:
        """The newest sound checkpoint, or None."""
        records = self._session.journal.records(self._states)
        for key, record in sorted(records.items(), key=lambda item: -item[1].note["products"]):
            try:
                blocks = self._session.store.read(self._states, key)[0]
            except TileError:  # killed while this slot was written: the other one is whole
                continue
            return _state(blocks, record.note)
        return None

    def write(self, state: State) -> None:
        """Keep a state, and its residuals in the history."""
        n, k = self._system.b.shape
        blocks = np.zeros((1, len(ARRAYS), n, k))
        for row, name in zip(blocks[0], ARRAYS, strict=True):
            values = getattr(state, name)
            row[:, : values.shape[1]] = values
        row = np.where(np.isfinite(state.residuals), state.residuals, 1.0)[None]
        self._session.put(self._residuals, (state.products, 0), row)
        self._session.put(self._states, (state.products % SLOTS, 0, 0, 0), blocks, _note(state))

    def history(self, columns: int) -> list[list[float]]:
        """‖r‖ / ‖b‖ after each product, for each of the first `columns` right-hand sides; three digits."""
        keys = sorted(self._session.journal.records(self._residuals))
        rows = [self._session.store.read(self._residuals, key)[0, :columns] for key in keys]
        return [[float(f"{value:.3g}") for value in column] for column in np.array(rows).T]


def _note(state: State) -> dict[str, Any]:
    """Everything of a state but its large arrays, exactly (JSON keeps floats exactly)."""
    scalars = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    for name in ARRAYS:
        del scalars[name]
    return scalars | {
        "width": state.q.shape[1],
        "c": state.c.tolist(),
        "residuals": [finite(value) for value in state.residuals],
        "replaced": finite(state.replaced),
    }


def _state(blocks: np.ndarray, note: dict[str, Any]) -> State:
    k, width = blocks.shape[2], note["width"]
    directions = {
        name: np.ascontiguousarray(blocks[row, :, :width]) for row, name in enumerate(ARRAYS) if row
    }
    return State(
        phase=note["phase"],
        x=blocks[0],
        **directions,
        c=np.array(note["c"], np.float64).reshape(width, k),
        products=note["products"],
        since=note["since"],
        residuals=np.array([np.inf if value is None else value for value in note["residuals"]]),
        exact=note["exact"],
        replaced=np.inf if note["replaced"] is None else note["replaced"],
        curvature=note["curvature"],
    )
