"""The command line: the only place that knows Typer, and the only one that prints."""

from __future__ import annotations

import io
import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Entry point of the `ntk` executable."""
    # Until work begins (then `StopFlag` takes over) there is nothing to flush: a stop just ends with its exit code.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    # A λ that a terminal cannot show is no reason to fail; stderr writes such letters out by itself.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    from pipeline.cli.app import app
    from pipeline.cli.output import close_document

    try:
        app()
    except SystemExit as ending:
        close_document(ending.code)
        _leave(ending.code)
        raise


def _leave(code: object) -> None:
    """End here and now if a task that was given up is still at work: the interpreter's own end would have BLAS end its
    threads, and wait for ever for those that compute."""
    # Most commands never make a serial executor, and do not import it to find out.
    serial = sys.modules.get("pipeline.runtime.serial")
    if serial is not None and isinstance(code, int) and serial.is_at_work():
        from pipeline.runtime import ending

        ending.end()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end(number: int, frame: FrameType | None) -> None:
    from pipeline.cli.output import fail
    from pipeline.errors import Interrupted, Stopped

    kind = Interrupted if number == signal.SIGINT else Stopped
    fail(kind(f"stopped by {signal.Signals(number).name} before any work began"), "--json" in sys.argv)
    sys.exit(kind.exit_code)
