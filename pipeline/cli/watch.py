"""`ntk status --watch`: the state of a run, again and again while somebody works on it."""

from __future__ import annotations

import sys
import time

from pipeline.cli.output import say
from pipeline.stages.status import status, to_text
from pipeline.store.place import Place

TERMINAL_SECONDS = 1.0
"""Between two looks on a terminal, where the text is replaced."""

LINES_SECONDS = 5.0
"""Between two looks elsewhere, where it is appended."""


def watch(directory: Place) -> None:
    """Show a run's state on stderr until no process is at work on it.

    Raises:
        InputError: not a run directory.
    """
    if sys.stderr.isatty():
        _replace(directory)
        return
    while (document := status(directory))["running"]:
        say(to_text(document))
        time.sleep(LINES_SECONDS)


def _replace(directory: Place) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        while (document := status(directory))["running"]:
            live.update(Text(to_text(document)), refresh=True)
            time.sleep(TERMINAL_SECONDS)
