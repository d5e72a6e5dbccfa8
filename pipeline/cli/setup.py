"""From command-line arguments to an opened session."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config.cluster import AnyCluster
from pipeline.config.load import is_resolved, load_cluster, load_run, origin
from pipeline.config.model import RunConfig
from pipeline.errors import InputError
from pipeline.plan.resources import one_worker
from pipeline.stages.prepare import Prepared, prepare
from pipeline.store.place import Place, place


def prepared(
    file: Any,
    *,
    overrides: list[str] | None,
    out: Place | None,
    cluster: str | None,
    allow_code: bool,
    alone: bool = False,
) -> Prepared:
    """Read, check and plan what the arguments describe; `alone`: for one worker of the cluster, in this process."""
    config, where, folder = arguments(file, overrides=overrides, out=out, cluster=cluster)
    if alone:
        where = one_worker(where)
    return prepare(config, where, allow_code=allow_code, folder=folder)


def arguments(
    file: Any, *, overrides: list[str] | None, out: Place | None, cluster: str | None
) -> tuple[RunConfig, AnyCluster, Path]:
    """The configuration, the cluster, and the folder that names in them are relative to."""
    config = load_run(file, overrides or ())
    changes: dict[str, Any] = {}
    if out is not None:
        changes["out"] = str(out)
    elif is_resolved(file):
        changes["out"] = str(file.parent)  # a run goes on where it is, wherever it was moved to
    if cluster is not None:
        changes["cluster"] = cluster
    config = config.model_copy(update=changes)
    folder = origin(file)
    return config, load_cluster(config.cluster, folder), folder


@contextlib.contextmanager
def working(
    ready: Prepared, *, lease: str = "run", extend: bool = False, insecure: bool = False,
    performance_report: bool = False,
) -> Iterator[Any]:  # fmt: skip
    """A session with progress on stderr, which SIGTERM and Ctrl-C end cleanly.

    Raises:
        InputError: a performance report of what has no scheduler.
    """
    from pipeline.cli.options import INSECURE
    from pipeline.cli.output import say
    from pipeline.cli.progress import ProgressDisplay
    from pipeline.runtime.stop import StopFlag
    from pipeline.stages.board import Board
    from pipeline.stages.opening import open_prepared
    from pipeline.store.live import Sign

    if performance_report and ready.plan.resources.kind == "serial":
        raise InputError(
            "--performance-report is Dask's, and a cluster of kind serial computes without Dask",
            hint="choose another --cluster, as `local`",
        )
    sign = Sign(place(ready.config.out), lease)
    board = Board(sign)

    def announce(executor: Any) -> None:
        board.dashboard = getattr(executor, "dashboard_link", None)

    with ProgressDisplay(board) as display:
        opened = open_prepared(
            ready, lease=lease, listener=display, waiting=say, folder=ready.folder, extend=extend
        )
        # The flag goes up once the run is ours: while another holder is watched a signal ends the process at once.
        with opened as session, StopFlag() as stop:
            session.stop = stop
            session.on_workers = announce
            session.insecure = insecure
            session.performance_report = performance_report
            if insecure:
                say(f"warning: --insecure: {INSECURE}")
            try:
                yield session
            finally:
                sign.remove()
