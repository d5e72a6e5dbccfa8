"""From command-line arguments to an opened session."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config.load import load_cluster, load_run
from pipeline.stages.prepare import Prepared, prepare


def prepared(
    file: Path,
    *,
    overrides: list[str] | None,
    out: Path | None,
    cluster: str | None,
    allow_code: bool,
    calibrate: bool = False,
) -> Prepared:
    """Read, check and plan what the arguments describe."""
    config = load_run(file, overrides or ())
    changes: dict[str, Any] = {}
    if out is not None:
        changes["out"] = str(out)
    if cluster is not None:
        changes["cluster"] = cluster
    config = config.model_copy(update=changes)
    folder = file.resolve().parent
    where = load_cluster(config.cluster, folder)
    return prepare(config, where, allow_code=allow_code, code_path=str(folder), calibrate=calibrate)


@contextlib.contextmanager
def working(ready: Prepared, *, lease: str = "run") -> Iterator[Any]:
    """A session with progress on stderr, which SIGTERM and Ctrl-C end cleanly."""
    from pipeline.cli.output import say
    from pipeline.cli.progress import ProgressDisplay
    from pipeline.runtime.stop import StopFlag
    from pipeline.stages.session import open_session

    with StopFlag() as stop, ProgressDisplay() as display:
        opened = open_session(
            ready.config, ready.inputs, ready.spec, ready.identity, ready.plan.grid, ready.plan.resources,
            lease=lease, listener=display, stop=stop, waiting=say,
        )  # fmt: skip
        with opened as session:
            session.on_workers = lambda executor: _announce(executor, say)
            yield session


def _announce(executor: Any, say: Any) -> None:
    link = getattr(executor, "dashboard_link", None)
    if link and sys.stderr.isatty():
        say(f"dashboard: {link}")
