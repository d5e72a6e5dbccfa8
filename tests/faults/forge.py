"""A process that has imported everything and forks runs: ``python -m tests.faults.forge``.

A run costs two seconds of imports, which most of these tests do not need again. What is forked is otherwise a process
like any other: a session of its own, the real command line, its own end. Requests and answers are lines of JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

MODULES = (
    "distributed",
    "scipy.stats",
    "sklearn.model_selection",
    "pipeline.cli.app",
    "pipeline.cli.progress",
    "pipeline.cli.setup",
    "pipeline.cli.summary",
    "pipeline.runtime.crew",
    "pipeline.runtime.dask_executor",
    *(
        f"pipeline.stages.{name}"
        for name in ("gram", "solve", "predict", "spectrum", "report", "order", "session")
    ),
    "tests.faults.injections",
)
"""What a run imports as it goes. Each leaves this process with one thread, as a fork needs it."""


def main() -> None:
    """Serve until standard input ends."""
    for name in MODULES:
        importlib.import_module(name)
    assert threading.active_count() == 1
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "start":
            pid = os.fork()
            if pid == 0:
                _become_a_run(request)
                return
            _answer(pid)
        else:
            _answer(_wait(request["pid"], request["seconds"]))


def _become_a_run(request: dict[str, Any]) -> None:
    from pipeline.cli import main
    from tests.faults import injections

    os.setsid()
    os.chdir(request["folder"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ |= request["environment"]
    for name, *arguments in request["inject"]:
        getattr(injections, name)(*arguments)
    sys.argv = ["ntk", *request["arguments"]]
    main()


def _wait(pid: int, seconds: float) -> int | None:
    """Exit code as `subprocess` gives it; None when it still runs."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.01)


def _answer(value: int | None) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
