"""The command line: the only place that knows Typer, and the only one that prints."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def main() -> None:
    """Entry point of the `ntk` executable."""
    # Until work begins (then `StopFlag` takes over) there is nothing to flush: a stop just ends with its exit code.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    from pipeline.cli.app import app

    app()


def _end(number: int, frame: FrameType | None) -> None:
    from pipeline.errors import Interrupted, Stopped

    sys.exit((Interrupted if number == signal.SIGINT else Stopped).exit_code)
