"""All stages in their order, and metrics.json, which gathers what they found."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.plan.plan import Plan
from pipeline.stages import gram, predict, report, rundir, solve, spectrum
from pipeline.stages.depends import STAGES
from pipeline.stages.session import Session
from pipeline.store.layout import RunLayout

_RUN = {
    "gram": gram.run,
    "solve": solve.run,
    "predict": predict.run,
    "spectrum": spectrum.run,
    "report": report.run,
}


def run_stages(
    session: Session, plan: Plan, *, only: str | None = None, shard: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Run one stage, or every stage this run has; finished ones cost nothing.

    Returns:
        A document for the person: the directory, wall seconds, and each stage's metrics.

    Raises:
        InputError: the stage is not part of this run.
        GateError, TasksFailed, Stopped: from the stages.
    """
    began = time.perf_counter()
    if shard is not None:
        return {"directory": str(session.directory), "gram": gram.run(session, shard=shard)}
    skipped = {stage.name for stage in plan.stages if stage.skipped}
    if only is not None and only not in session.stages:
        raise InputError(f"{only}: this run has no such stage", hint=_why_not(only))
    if only in skipped:
        raise InputError(f"{only}: {next(stage.skipped for stage in plan.stages if stage.name == only)}")
    for name in STAGES:
        if name in session.stages and name not in skipped and only in (None, name):
            _RUN[name](session)
            _write_metrics(session.directory, collected(session))
    document = {"directory": str(session.directory), "seconds": time.perf_counter() - began}
    layout = RunLayout(session.directory)
    if layout.report.exists():
        document["report"] = str(layout.report)
    return document | collected(session)


def collected(session: Session) -> dict[str, Any]:
    """The metrics of every finished stage, and the memory that workers were seen to use."""
    found = {name: session.finished(name) for name in STAGES if name in session.stages and name != "report"}
    done = {name: metrics for name, metrics in found.items() if metrics is not None}
    records = {name: session.journal.stage(name) for name in done}
    peaks = {name: record.metrics["peak_worker_bytes"] for name, record in records.items() if record is not None}
    return done | {"memory": {"peak_worker_bytes": peaks, "limit": session.resources.memory}} if done else done


def _write_metrics(directory: Path, metrics: dict[str, Any]) -> None:
    text = json.dumps(metrics, indent=2) + "\n"
    file = RunLayout(directory).metrics
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        rundir.replace_text(file, text)


def _why_not(stage: str) -> str:
    return {
        "solve": "data.task is none, or solve.method is none",
        "predict": "nothing is held out (data.test or data.split), or there is no regression",
        "spectrum": "spectrum.method is none",
    }.get(stage, "see `ntk schema`")
