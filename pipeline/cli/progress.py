"""Progress of a stage: a bar, rates and the workers on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from pipeline.cli.output import say
from pipeline.config.sizes import human_seconds
from pipeline.runtime.events import Finished, Retried, Started, TaskDone, TaskFailed, WorkersChanged
from pipeline.stages.board import Board, left_text, rate_text, worker_lines
from pipeline.stages.session import Progress

LINE_EVERY = 5.0
"""Seconds between plain lines."""


class ProgressDisplay:
    """A listener for a session; use it as a context manager so that the terminal is left clean.

    Args:
        board: that keeps count; told of every event first.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._terminal = sys.stderr.isatty()
        self._bar: Any = None
        self._task: Any = None
        self._printed = 0.0

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, progress: Progress) -> None:
        event = progress.event
        self._board(progress)
        if isinstance(event, Started):
            self._start(progress)
        elif isinstance(event, TaskDone):
            for record in event.records:
                if "pieces" in record.note:
                    say(
                        f"{progress.label}: tile {record.key} did not fit the memory of {record.worker}, computed in "
                        f"{record.note['pieces']} pieces"
                    )
            self._advance(progress)
        elif isinstance(event, WorkersChanged):
            self._advance(progress)
        elif isinstance(event, Retried):
            say(f"{progress.label}: {event.key} is tried again: {event.error}")
        elif isinstance(event, TaskFailed):
            say(f"{progress.label}: {event.key} failed: {event.error}")
        elif isinstance(event, Finished):
            self._finish(progress)

    def _start(self, progress: Progress) -> None:
        self._printed = time.monotonic()
        if self._terminal:
            from pipeline.cli.bars import Bars

            self._bar = Bars(self._lines)
            self._task = self._bar.add_task(progress.label, total=progress.total, rate="")
            self._bar.start()

    def _lines(self) -> list[str]:
        """What stands below the bar."""
        lines = worker_lines(self._board.document())
        return lines + ([f"dashboard: {self._board.dashboard}"] if self._board.dashboard else [])

    def _advance(self, progress: Progress) -> None:
        document = self._board.document()
        if self._bar is not None:
            self._bar.update(self._task, completed=progress.done, rate=rate_text(document))
        elif time.monotonic() - self._printed >= LINE_EVERY:
            self._printed = time.monotonic()
            share = 100 * progress.done // max(progress.total, 1)
            busy = sum(worker["task"] is not None for worker in document["workers"])
            workers = f", {busy} of {len(document['workers'])} workers busy" if document["workers"] else ""
            say(
                f"{progress.label}: {progress.done}/{progress.total} ({share} %), {rate_text(document)}"
                f"{left_text(document)}{workers}"
            )

    def _finish(self, progress: Progress) -> None:
        self._close()
        took = human_seconds(self._board.elapsed)
        rate = rate_text(self._board.document())
        say(f"{progress.label}: {progress.done} of {progress.total} chunks in {took}, {rate}")

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
