"""Submitting a run to a batch system, following it there, and deciding whether an attempt is followed by another."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.config import yaml
from pipeline.config.cluster import SlurmCluster
from pipeline.config.load import CLUSTER_FILE, RESOLVED
from pipeline.config.model import RunConfig
from pipeline.errors import InputError, Stopped, TasksFailed
from pipeline.runtime import slurm
from pipeline.runtime.slurm_script import Job, array_script, run_script
from pipeline.stages import rundir
from pipeline.store.files import make_directory
from pipeline.store.journal import Journal
from pipeline.store.layout import RunLayout

IDLE_ATTEMPTS = 2
"""Attempts in a row without progress after which a run is not begun again."""

ACTIVE = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD")
"""Slurm's words for jobs that are not over."""


def scripts(
    config: RunConfig,
    where: SlurmCluster,
    *,
    array: int | None = None,
    allow_code: bool = False,
    performance_report: bool = False,
) -> list[str]:
    """The batch scripts of a run, in the order in which they are to run."""
    directory = Path(config.out).resolve()
    layout = RunLayout(directory)
    job = Job(
        name="ntk-" + (re.sub(r"[^\w.-]", "-", directory.name) or "run"),
        folder=layout.jobs,
        run_file=layout.jobs / layout.config.name,
        cluster=config.cluster,
        cluster_file=layout.jobs / CLUSTER_FILE,
        directory=directory,
        python=where.python or sys.executable,
        allow_code=allow_code,
        performance_report=performance_report,
    )
    made = [] if array is None else [array_script(job, where, array)]
    return [*made, run_script(job, where)]


def submit(
    config: RunConfig,
    where: SlurmCluster,
    folder: Path,
    *,
    array: int | None = None,
    allow_code: bool = False,
    performance_report: bool = False,
) -> list[str]:
    """Write what the jobs need into the run directory and submit them; their ids.

    The configuration and the cluster are copied: what is edited later does not change a job that waits.

    Raises:
        InputError: a job of this run is not over, or Slurm refuses.
    """
    directory = Path(config.out).resolve()
    rundir.resolved(directory)  # refuses a directory of somebody else's
    if active := [entry["job"] for entry in jobs(directory) if entry["active"]]:
        raise InputError(
            f"{directory}: job {', '.join(active)} of this run is not over",
            hint="--status, --watch or --cancel",
        )
    layout = RunLayout(directory)
    make_directory(layout.jobs)
    content = json.loads(config.model_dump_json()) | {RESOLVED: {"folder": str(folder.resolve())}}
    rundir.replace_text(layout.jobs / layout.config.name, yaml.write(content, "What was submitted."))
    cluster = {config.cluster: json.loads(where.model_dump_json(exclude_none=True))}
    rundir.replace_text(layout.jobs / CLUSTER_FILE, yaml.write(cluster, "The cluster it was submitted to."))
    ids: list[str] = []
    texts = scripts(config, where, array=array, allow_code=allow_code, performance_report=performance_report)
    for number, script in enumerate(texts):
        rundir.replace_text(layout.jobs / f"job-{number}.sh", script)
        try:
            ids.append(slurm.submit(script, after=ids[-1] if ids else None))
        except InputError:
            if ids:
                slurm.cancel(ids)  # half of what was asked for helps nobody
            raise
        _note(directory, "submitted", ids[-1], shares=array if array and not number else None)
    return ids


def jobs(directory: Path) -> list[dict[str, Any]]:
    """The jobs of a run in the order of their submission: id, Slurm's state, whether they are not over, attempts."""
    history = _history(directory)
    found = []
    for entry in history:
        if entry["event"] != "submitted":
            continue
        began = [
            e["job"] for e in history if e["event"] == "began" and e["job"].split("_")[0] == entry["job"]
        ]
        attempts = max(Counter(began).values(), default=0)  # of an array's elements the one with the most
        state = slurm.state(entry["job"])
        active = any(word in ACTIVE for word in state.split(","))
        found.append({"job": entry["job"], "state": state, "active": active, "attempts": attempts})
    return found


def cancel(directory: Path) -> list[str]:
    """End the jobs of a run that are not over; their ids. What they stored stays."""
    active = [entry["job"] for entry in jobs(directory) if entry["active"]]
    for job in active:
        _note(directory, "cancelled", job)  # first: a job that is told to stop must not requeue itself
    if active:
        slurm.cancel(active)
    return active


def logs(directory: Path) -> list[Path]:
    """Log files of a run's jobs and workers, the latest last."""
    return sorted(RunLayout(directory).jobs.glob("*.log"), key=lambda file: file.stat().st_mtime)


def begin_attempt(directory: Path) -> None:
    """Note that an attempt begins.

    Raises:
        TasksFailed: this job's last attempts made no progress.
    """
    attempt = _this_attempt()
    progress = _progress(directory)
    _note(directory, "began", attempt.job, restart=attempt.restart, progress=progress)
    begins = _begins(directory, attempt.job)
    if len(begins) > IDLE_ATTEMPTS and len(set(begins[-IDLE_ATTEMPTS - 1 :])) == 1:
        raise _idle(progress)


def end_attempt(directory: Path, code: int) -> None:
    """Note that an attempt ended, and requeue the job when it was stopped and makes progress.

    Raises:
        Stopped: the job was requeued, or will be by Slurm.
        TasksFailed: the last attempts made no progress.
    """
    attempt = _this_attempt()
    progress = _progress(directory)
    _note(directory, "ended", attempt.job, restart=attempt.restart, progress=progress, code=code)
    if code != Stopped.exit_code:
        return
    if any(e["event"] == "cancelled" and e["job"] == attempt.job.split("_")[0] for e in _history(directory)):
        raise Stopped("cancelled", hint="submit the run again to go on")
    begins = _begins(directory, attempt.job)
    if len(begins) >= IDLE_ATTEMPTS and {*begins[-IDLE_ATTEMPTS:], progress} == {progress}:
        raise _idle(progress)
    # Slurm itself requeues a job that it preempts, and a person's scancel is to end it.
    if slurm.state(attempt.job) == "RUNNING":
        _note(directory, "requeued", attempt.job)
        slurm.requeue(attempt.job)
    raise Stopped("stopped in time", hint="the job goes on when Slurm starts it again")


def _this_attempt() -> slurm.Attempt:
    attempt = slurm.this_job()
    if attempt is None:
        raise InputError("this is for the batch script of a job", hint="ntk submit RUN.yaml --cluster NAME")
    return attempt


def _idle(progress: int) -> TasksFailed:
    return TasksFailed(
        f"{IDLE_ATTEMPTS} attempts in a row recorded nothing new ({progress:,} records); the run is not begun again",
        hint="the time limit may be too short for one task (gram.tile, walltime), or workers do not start: see the "
        "logs, correct the cause and submit again",
    )


def _begins(directory: Path, job: str) -> list[int]:
    """Progress at the beginning of each attempt of a job."""
    return [e["progress"] for e in _history(directory) if e["event"] == "began" and e["job"] == job]


def _progress(directory: Path) -> int:
    """A number that changes with everything a run records; it falls when a stage removes what it needs no more."""
    if not RunLayout(directory).journal.is_dir():
        return 0
    journal = Journal(directory).load()
    return len(journal.done(journal.arrays())) + len(journal.stages())


def _history(directory: Path) -> list[dict[str, Any]]:
    file = RunLayout(directory).job_history
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.strip()]


def _note(directory: Path, event: str, job: str, **facts: Any) -> None:
    """Append a line to the history; short enough to be written in one piece beside others."""
    entry = {"event": event, "job": job, "time": round(time.time(), 3)}
    entry |= {key: value for key, value in facts.items() if value is not None}
    file = RunLayout(directory).job_history
    make_directory(file.parent)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(entry) + "\n")
