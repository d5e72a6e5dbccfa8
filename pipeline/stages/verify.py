"""Reading every stored tile again, and computing again what is not as recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.plan.plan import Plan
from pipeline.stages import rundir
from pipeline.stages.depends import STAGE_OF, STAGES
from pipeline.stages.order import run_stages
from pipeline.stages.session import Session
from pipeline.store.arrays import ArrayStore
from pipeline.store.faults import TileFault
from pipeline.store.journal import Journal


def check(directory: Path, progress: Callable[[int, int], None] | None = None) -> tuple[int, list[TileFault]]:
    """How many chunks have a record, and those that are not as recorded.

    Raises:
        InputError: not a run directory.
    """
    if rundir.resolved(directory) is None:
        raise InputError(f"{directory}: no run here", hint="`ntk run RUN.yaml --out DIR` makes one")
    journal = Journal(directory).load()
    count = sum(len(journal.records(name)) for name in journal.arrays())
    return count, ArrayStore(directory, journal).verify(progress=progress)


def repair(session: Session, plan: Plan, faults: Sequence[TileFault]) -> dict[str, Any]:
    """Discard what is damaged and run the stages it belongs to: they compute exactly what is missing.

    Raises:
        GateError, TasksFailed, Stopped: from the stages; `ntk verify --repair` again goes on.
    """
    by_array: dict[str, list[tuple[int, ...]]] = {}
    for fault in faults:
        by_array.setdefault(fault.array, []).append(fault.key)
    hit = {STAGE_OF[name.split("/")[0]] for name in by_array}
    for stage in STAGES:
        # First the stages are no longer done, then their tiles go: a kill in between leaves nothing believed.
        if stage in hit and stage in session.stages:
            session.writer.stage(stage, session.fingerprint(stage), "repairing")
    for name, keys in by_array.items():
        session.discard(name, keys)
    metrics: dict[str, Any] = {}
    for stage in STAGES:
        if stage in hit and stage in session.stages:
            metrics |= run_stages(session, plan, only=stage)
    return metrics
