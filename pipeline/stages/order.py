"""All stages in their order, and metrics.json, which gathers what they found."""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

from pipeline.documents import strict_json
from pipeline.errors import InputError
from pipeline.plan.plan import Plan
from pipeline.stages import rundir
from pipeline.stages.depends import STAGES
from pipeline.stages.session import Session
from pipeline.store.layout import RunLayout
from pipeline.store.place import Place


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
    if shard is not None and "gram" in session.stages:
        from pipeline.stages import gram

        session.begin("gram")
        return {"directory": str(session.directory), "gram": gram.run(session, shard=shard)}
    only = "gram" if shard is not None else only
    skipped = {stage.name: stage.skipped for stage in plan.stages if stage.skipped}
    if only in skipped:
        raise InputError(f"{only}: {skipped[only]}", hint="allow a worker more memory in cluster.yaml")
    if only is not None and only not in session.stages:
        raise InputError(f"{only}: this run has no such stage", hint=_why_not(only))
    layout = RunLayout(session.directory)
    for name in STAGES:
        if name not in session.stages or only not in (None, name):
            continue
        if session.stop is not None and session.stop.is_set:
            raise session.stop.error(f"before the {name} stage")
        lost = name == "report" and not layout.report.exists()
        if lost or session.finished(name) is None:
            # Imported only when there is something to do: resuming a finished run loads no plotting, no solver.
            session.begin(name)
            import_module(f"pipeline.stages.{name}").run(session)
        _write_metrics(session.directory, collected(session))
    document = {"directory": str(session.directory), "seconds": time.perf_counter() - began}
    if layout.report.exists():
        document["report"] = str(layout.report)
    return document | collected(session)


def collected(session: Session) -> dict[str, Any]:
    """The metrics of every finished stage, and the memory that workers were seen to use."""
    found = {name: session.finished(name) for name in STAGES if name in session.stages and name != "report"}
    done = {name: metrics for name, metrics in found.items() if metrics is not None}
    records = {name: session.journal.stage(name) for name in done}
    peaks = {
        name: record.metrics["peak_worker_bytes"] for name, record in records.items() if record is not None
    }
    return (
        done | {"memory": {"peak_worker_bytes": peaks, "limit": session.resources.memory}} if done else done
    )


def _write_metrics(directory: Place, metrics: dict[str, Any]) -> None:
    text = strict_json(metrics) + "\n"
    file = RunLayout(directory).metrics
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        rundir.replace_text(file, text)


def _why_not(stage: str) -> str:
    return {
        "gram": "solve.method is askotch, which computes rows of the Gram matrix when it needs them",
        "solve": "data.task is none, or solve.method is none",
        "predict": "nothing is held out (data.test or data.split), or there is no regression",
        "spectrum": "spectrum.method is none, or solve.method is askotch, which stores no Gram matrix",
    }.get(stage, "see `ntk schema`")
