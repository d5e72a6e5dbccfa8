"""What workers on other machines cost: seconds to the first task, and for each, with TLS, without, and local."""

from __future__ import annotations

import shlex
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.config.cluster import SshCluster
from pipeline.plan.tasks import Task
from pipeline.runtime.cluster import LocalSettings, Settings, SshSettings, open_executor
from pipeline.runtime.drive import drive
from scripts.benchmarks.scheduler import NoWork

WORKERS = 2


def measure(tasks: int, repeats: int) -> dict[str, Any]:
    """Medians over clusters opened anew. The remote ones are fetched by a shell of this machine in the place of ssh,
    whose own time to connect is not in the figures."""
    result: dict[str, Any] = {"workers": WORKERS, "tasks": tasks}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shell = folder / "shell"
        shell.write_text('#!/bin/bash\nshift\nexec "$@"\n')
        shell.chmod(0o755)
        where = SshCluster(
            kind="ssh", hosts=("here",), workers_per_host=WORKERS, memory="1 GB", interface="lo",
            ssh_command=(str(shell),),
            setup=(f"export PYTHONPATH={shlex.quote(str(Path(__file__).parents[2]))}",),
        )  # fmt: skip
        meeting = folder / "jobs" / "scheduler.json"
        kinds: dict[str, Settings] = {
            "local": LocalSettings(WORKERS, dashboard=False),
            "remote, TLS": SshSettings(where, meeting),
            "remote, plain TCP": SshSettings(where, meeting, insecure=True),
        }
        for kind, settings in kinds.items():
            runs = [_once(settings, tasks) for _ in range(repeats)]
            result[f"{kind}: seconds to the first task"] = statistics.median(first for first, _ in runs)
            result[f"{kind}: seconds a task"] = statistics.median(each for _, each in runs)
    plain = result["remote, plain TCP: seconds a task"]
    result["TLS / plain TCP, a task"] = result["remote, TLS: seconds a task"] / plain
    return result


def _once(settings: Settings, count: int) -> tuple[float, float]:
    """Seconds from nothing to the first outcome; seconds for each of many tasks that do nothing."""
    began = time.perf_counter()
    with open_executor(settings) as executor:
        executor.bind(NoWork())
        _drive(executor, 1)
        first = time.perf_counter() - began
        while len(executor.workers()) < WORKERS:
            time.sleep(0.05)
        _drive(executor, count // 4)  # bundles have grown
        began = time.perf_counter()
        _drive(executor, count)
        return first, (time.perf_counter() - began) / count


def _drive(executor: Any, count: int) -> None:
    drive([Task(f"t{n}", "nothing") for n in range(count)], executor, on_records=lambda records: None)
