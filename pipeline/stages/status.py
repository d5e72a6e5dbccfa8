"""What is done in a run directory, from its journal: fast, and without reading the arrays."""

from __future__ import annotations

import time
from typing import Any

from pipeline.config.sizes import human_seconds
from pipeline.errors import InputError
from pipeline.plan.gram import cross_array, gram_array
from pipeline.plan.tiles import TileGrid
from pipeline.stages import rundir
from pipeline.stages.board import left_text, rate_text, worker_lines
from pipeline.stages.depends import STAGE_OF, STAGES
from pipeline.store.journal import Journal
from pipeline.store.layout import RunLayout
from pipeline.store.live import at_work
from pipeline.store.place import Place

OLD_SECONDS = 10.0
"""Of what was said longer ago than this its age is shown."""


def status(directory: Place) -> dict[str, Any]:
    """State of every stage: `done`, `lost` (with the arrays that somebody removed), `partial`, `stale` (with the fields
    that changed) or `pending`.

    Raises:
        InputError: not a run directory.
    """
    facts = rundir.resolved(directory)
    if facts is None:
        raise InputError(f"{directory}: no run here", hint="`ntk run RUN.yaml --out DIR` makes one")
    journal = Journal(directory).load()
    missing = RunLayout(directory).missing(journal.arrays())
    stages = [_stage(name, facts, journal, missing) for name in STAGES if name in facts["stages"]]
    return {
        "directory": str(directory),
        "rows": facts["rows"],
        "tile": facts["tile"],
        "complete": all(stage["state"] == "done" for stage in stages),
        "report": str(RunLayout(directory).report) if RunLayout(directory).report.exists() else None,
        "stages": stages,
        "running": [
            {"lease": live.lease, "host": live.host, "pid": live.pid, "since": live.since, "age": live.age}
            | {key: live.said[key] for key in live.said.keys() - {"at", "pid"}}
            for live in at_work(directory)
        ],
    }


def _stage(name: str, facts: dict[str, Any], journal: Journal, missing: list[str]) -> dict[str, Any]:
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
    record = journal.stage(name)
    if record is None or record.status != "done":
        entry["state"] = "partial" if chunks else "pending"
    elif why := rundir.changes(facts, name, record):
        entry |= {"state": "stale", "why": why}
    elif lost := [array for array in missing if STAGE_OF[array.split("/")[0]] == name]:
        entry |= {"state": "lost", "why": [f"{array} is not in the store any more" for array in lost]}
    else:
        entry["state"] = "done"
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
    for running in document["running"]:
        lines += _running_lines(running)
    if document["report"]:
        lines.append(f"  report: {document['report']}")
    return "\n".join(lines)


def _running_lines(running: dict[str, Any]) -> list[str]:
    """What a process at work on the run says of itself."""
    what = "running" if running["lease"] == "run" else running["lease"]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(running["since"]))
    lines = [f"  {what}: process {running['pid']} on {running['host']} since {since}"]
    if "label" not in running:
        return lines
    old = "" if running["age"] < OLD_SECONDS else f" (said {human_seconds(running['age'])} ago)"
    lines.append(
        f"    {running['label']}: {running['done']:,}/{running['total']:,}, {rate_text(running)}"
        f"{left_text(running)}{old}"
    )
    lines += [f"      {line}" for line in worker_lines(running)]
    if running["dashboard"]:
        lines.append(f"    dashboard: {running['dashboard']}")
    return lines
