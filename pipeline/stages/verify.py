"""Reading every stored tile again, and computing again what is not as recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from pipeline.store.place import Place
from pipeline.store.reading import group_key


def check(
    directory: Place, progress: Callable[[int, int], None] | None = None
) -> tuple[int, list[TileFault]]:
    """How many chunks have a record, and what is wrong: chunks that are not as recorded, chunks of finished stages that
    have no record, a journal that is gone.

    Raises:
        InputError: not a run directory.
    """
    if rundir.resolved(directory) is None:
        raise InputError(f"{directory}: no run here", hint="`ntk run RUN.yaml --out DIR` makes one")
    journal = Journal(directory).load()
    store = ArrayStore(directory, journal)
    count = sum(len(journal.records(name)) for name in journal.arrays())
    faults = store.verify(progress=progress) + _unrecorded(store, journal)
    if not count and any(store.unrecorded(name) for name in store.names()):
        faults.append(TileFault(JOURNAL, (), "the journal is gone: tiles are stored and none has a record"))
    for name in store.damaged_groups():
        faults.append(TileFault(group_key(name), (), "the group's metadata is missing or damaged"))
    return count, faults


JOURNAL = "journal"
"""Stands for the journal itself in a fault."""

GROUP = "zarr.json"
"""Ends the name of a group's metadata in a fault."""


def _unrecorded(store: ArrayStore, journal: Journal) -> list[TileFault]:
    """Chunks that a finished stage must have recorded and did not, as after damage to the journal."""
    faults = []
    for name in store.names():
        stage = journal.stage(STAGE_OF.get(name.split("/")[0], ""))
        if stage is None or stage.status != "done":
            continue
        try:
            keys = list(store.keys(name))
        except InputError:
            continue  # damaged metadata: every recorded chunk of it is a fault already
        for key in keys:
            lower = name.startswith("gram/") and key[0] > key[1]
            if not lower and journal.latest(name, key) is None:
                faults.append(TileFault(name, key, "it has no record in the journal"))
    return faults


def repair(session: Session, plan: Plan, faults: Sequence[TileFault]) -> dict[str, Any]:
    """Discard what is damaged and run the stages it belongs to: they compute exactly what is missing.

    Raises:
        GateError, TasksFailed, Stopped: from the stages; `ntk verify --repair` again goes on.
    """
    by_array: dict[str, list[tuple[int, ...]]] = {}
    for fault in faults:
        by_array.setdefault(fault.array, []).append(fault.key)
    for name in [name for name in by_array if name.endswith(GROUP)]:
        del by_array[name]
        session.store.mend_group(name.removesuffix(GROUP).rstrip("/"))
    hit = set(STAGES) if by_array.pop(JOURNAL, None) else {STAGE_OF[name.split("/")[0]] for name in by_array}
    session.reopen(hit)
    for name, keys in by_array.items():
        session.discard(name, keys)
    metrics: dict[str, Any] = {}
    for stage in STAGES:
        if stage in hit and stage in session.stages:
            metrics |= run_stages(session, plan, only=stage)
    return metrics
