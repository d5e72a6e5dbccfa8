"""`ntk submit`: what it does and what it prints."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

from pipeline.cli.output import say
from pipeline.config.cluster import SlurmCluster
from pipeline.config.load import load_run
from pipeline.errors import InputError
from pipeline.stages import status as stages_status
from pipeline.stages import submit as stages_submit
from pipeline.store.layout import RunLayout
from pipeline.store.place import Place, place

WATCH_SECONDS = 5.0
"""Between two looks at a job."""

LOG_LINES = 40
"""Last lines of each log that are shown."""


def submit_command(
    file: Path, *, overrides: list[str] | None, out: Place | None, cluster: str | None, allow_code: bool,
    array: int | None, only_print: bool, performance_report: bool = False,
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """Check that the run can be done there, and submit it, or show the scripts."""
    from pipeline.cli.setup import arguments
    from pipeline.stages.prepare import prepare

    config, where, folder = arguments(file, overrides=overrides, out=out, cluster=cluster)
    if not isinstance(where, SlurmCluster):
        raise InputError(
            f"cluster {config.cluster!r} is of kind {where.kind}: there is nothing to submit to",
            hint="ntk run uses it at once; entries of kind slurm in cluster.yaml are submitted to (docs/clusters.md)",
        )
    config = config.model_copy(update={"out": str(_shared(config.out))})
    if only_print:
        scripts = stages_submit.scripts(
            config, where, array=array, allow_code=allow_code, performance_report=performance_report
        )
        return {"scripts": scripts}, "\n".join(scripts).rstrip()
    ready = prepare(config, where, allow_code=allow_code, folder=folder)
    ids = stages_submit.submit(
        config, where, folder, array=array, allow_code=allow_code, performance_report=performance_report
    )
    document = {
        "directory": config.out,
        "jobs": ids,
        "tiles": ready.plan.grid.count,
        "workers": where.workers,
    }
    text = f"submitted job {', '.join(ids)}: {ready.plan.grid.count:,} tiles in {config.out}"
    return document, f"{text}\nnext: ntk submit {file} --out {config.out} --watch"


def directory_of(file: Path, overrides: list[str] | None, out: Place | None) -> Path:
    """The run directory that a configuration names."""
    return _shared(out or load_run(file, overrides or ()).out)


def _shared(out: str | Place) -> Path:
    """The run directory of jobs: scripts, logs and the run's keys lie in it, where nodes and batch system find them.

    Raises:
        InputError: it is in an object store.
    """
    directory = place(out)
    if not isinstance(directory, Path):
        raise InputError(
            f"{directory}: jobs keep scripts, logs and keys in the run directory, which must be a directory that the "
            "nodes share",
            hint="submit with --out on a shared disk, or call `ntk gram --shard K/M` and `ntk run` with this --out in "
            "a batch script of your own",
        )
    return directory.resolve()


def show(directory: Path) -> tuple[dict[str, Any], str]:
    """Jobs of a run and how far the run is."""
    found = stages_submit.jobs(directory)
    if not found:
        raise InputError(
            f"{directory}: nothing was submitted from here", hint="ntk submit RUN.yaml --cluster NAME"
        )
    document: dict[str, Any] = {"directory": str(directory), "jobs": found}
    lines = [f"job {job['job']}: {job['state']}, attempt {max(job['attempts'], 1)}" for job in found]
    if RunLayout(directory).config.exists():
        document["run"] = stages_status.status(directory)
        lines.append(stages_status.to_text(document["run"]))
    return document, "\n".join(lines)


def cancel(directory: Path) -> tuple[dict[str, Any], str]:
    ended = stages_submit.cancel(directory)
    text = (
        f"cancelled job {', '.join(ended)}; what is stored stays" if ended else "no job of this run is active"
    )
    return {"directory": str(directory), "cancelled": ended}, text


def logs(directory: Path) -> tuple[dict[str, Any], str]:
    files = stages_submit.logs(directory)
    parts = []
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as stream:
            parts.append(f"==> {file} <==\n" + "".join(deque(stream, LOG_LINES)).rstrip())
    return {"directory": str(directory), "logs": [str(file) for file in files]}, "\n".join(
        parts
    ) or "no logs yet"


def watch(directory: Path) -> tuple[dict[str, Any], str]:
    """Tells what changes until no job of the run is active."""
    last = ""
    while True:
        document, text = show(directory)
        if text != last:
            say(text)
            last = text
        if not any(job["active"] for job in document["jobs"]):
            return document, f"no job of {directory} is active any more"
        time.sleep(WATCH_SECONDS)
