"""What is done in a run directory, from its journal alone: fast, and without touching the arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.plan.gram import cross_array, gram_array
from pipeline.plan.tiles import TileGrid
from pipeline.stages import rundir
from pipeline.stages.depends import STAGE_OF, STAGES, differences, fingerprint
from pipeline.store.journal import Journal
from pipeline.store.layout import RunLayout


def status(directory: Path) -> dict[str, Any]:
    """State of every stage: `done`, `partial`, `stale` (with the fields that changed) or `pending`.

    Raises:
        InputError: not a run directory.
    """
    facts = rundir.resolved(directory)
    if facts is None:
        raise InputError(f"{directory}: no run here", hint="`ntk run RUN.yaml --out DIR` makes one")
    journal = Journal(directory).load()
    stages = [_stage(name, facts, journal) for name in STAGES if name in facts["stages"]]
    return {
        "directory": str(directory),
        "rows": facts["rows"],
        "tile": facts["tile"],
        "complete": all(stage["state"] == "done" for stage in stages),
        "report": str(RunLayout(directory).report) if RunLayout(directory).report.exists() else None,
        "stages": stages,
    }


def _stage(name: str, facts: dict[str, Any], journal: Journal) -> dict[str, Any]:
    chunks = len(
        journal.done(array for array in journal.arrays() if STAGE_OF.get(array.split("/")[0]) == name)
    )
    entry: dict[str, Any] = {"stage": name, "state": "pending", "chunks": chunks}
    if name == "gram":
        kernels = facts["fields"]["kernel.get"].split(", ")
        grid = TileGrid(facts["rows"]["train"], facts["tile"])
        cross = "gram.cross" in facts["stages"]["gram"]
        across = -(-facts["rows"]["test"] // grid.tile) * grid.blocks if cross else 0
        arrays = [name(kernel) for kernel in kernels for name in (gram_array, cross_array)[: 1 + cross]]
        entry["tiles"] = (grid.count + across) * len(kernels)
        entry["tiles_done"] = len(journal.done(arrays))
    now = rundir.stored_fields(facts, facts["stages"][name])
    record = journal.stage(name)
    if record is None or record.status != "done":
        entry["state"] = "partial" if chunks else "pending"
    elif record.fingerprint == fingerprint(now):
        entry["state"] = "done"
    else:
        entry |= {"state": "stale", "why": differences(record.metrics["depends"], now)}
    return entry


def to_text(document: dict[str, Any]) -> str:
    """A table for a person."""
    rows = document["rows"]
    lines = [
        f"{document['directory']}: {rows['train']:,} training rows, {rows['test']:,} held out, tile {document['tile']}"
    ]
    for stage in document["stages"]:
        text = f"  {stage['stage']:<9} {stage['state']:<8}"
        if "tiles" in stage:
            text += f" {stage['tiles_done']:,}/{stage['tiles']:,} tiles"
        elif stage["state"] == "partial":
            text += f" {stage['chunks']:,} chunks"
        lines.append(text.rstrip())
        lines += [f"            {line}" for line in stage.get("why", ())]
    if document["report"]:
        lines.append(f"  report: {document['report']}")
    return "\n".join(lines)
