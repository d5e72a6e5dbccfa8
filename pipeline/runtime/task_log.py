"""What a worker process did, for people and programs: one JSON document a line, a file for each process."""

from __future__ import annotations

import json
import time
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from pipeline.plan.tasks import Task
from pipeline.runtime.executor import Outcome, worker_name


def note(folder: str, task: Task, outcome: Outcome) -> None:
    """Add how an attempt ended: `time` (Unix), `worker` (`host:pid`), `task`, `kind`, `seconds`, and `error` where it
    failed. A log that cannot be written is done without."""
    entry: dict[str, object] = {
        "time": round(time.time(), 3),
        "worker": worker_name(),
        "task": task.key,
        "kind": task.kind,
        "seconds": round(outcome.seconds, 6),
    }
    if outcome.error is not None:
        entry["error"] = outcome.error
    try:
        print(json.dumps(entry), file=_file(folder), flush=True)
    except OSError:
        return


@lru_cache(maxsize=1)
def _file(folder: str) -> TextIO:
    Path(folder).mkdir(parents=True, exist_ok=True)
    return (Path(folder) / f"{worker_name().replace(':', '-')}.jsonl").open("a", encoding="utf-8")
