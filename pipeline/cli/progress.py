"""Progress of a stage: a bar with rate and time left on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from pipeline.cli.output import say
from pipeline.config.sizes import human_bytes, human_seconds
from pipeline.runtime.events import Finished, Retried, Started, TaskDone, TaskFailed
from pipeline.stages.session import Progress

LINE_EVERY = 5.0
"""Seconds between plain lines."""


class ProgressDisplay:
    """A listener for a session; use it as a context manager so that the terminal is left clean."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._bar: Any = None
        self._task: Any = None
        self._began = self._printed = 0.0
        self._bytes = self._retries = 0

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, progress: Progress) -> None:
        event = progress.event
        if isinstance(event, Started):
            self._start(progress)
        elif isinstance(event, TaskDone):
            self._bytes += sum(record.nbytes for record in event.records)
            for record in event.records:
                if "pieces" in record.note:
                    say(
                        f"{progress.label}: tile {record.key} did not fit the memory of {record.worker}, computed in "
                        f"{record.note['pieces']} pieces"
                    )
            self._advance(progress)
        elif isinstance(event, Retried):
            self._retries += 1
            say(f"{progress.label}: {event.key} lost with its worker, tried again ({event.error})")
        elif isinstance(event, TaskFailed):
            say(f"{progress.label}: {event.key} failed: {event.error}")
        elif isinstance(event, Finished):
            self._finish(progress)

    def _start(self, progress: Progress) -> None:
        self._began = self._printed = time.monotonic()
        self._bytes = self._retries = 0
        if self._terminal:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"), TextColumn("left"), TimeRemainingColumn(compact=True),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(progress.label, total=progress.total, rate="")
            self._bar.start()

    def _advance(self, progress: Progress) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=progress.done, rate=self._rate(progress))
        elif time.monotonic() - self._printed >= LINE_EVERY:
            self._printed = time.monotonic()
            elapsed = self._printed - self._began
            left = elapsed * (progress.total - progress.done) / max(progress.done, 1)
            share = 100 * progress.done // max(progress.total, 1)
            say(
                f"{progress.label}: {progress.done}/{progress.total} ({share} %), {self._rate(progress)}, "
                f"about {human_seconds(left)} left"
            )

    def _rate(self, progress: Progress) -> str:
        elapsed = max(time.monotonic() - self._began, 1e-3)
        retries = f", {self._retries} retried" if self._retries else ""
        return f"{progress.done / elapsed:.3g}/s, {human_bytes(self._bytes / elapsed)}/s{retries}"

    def _finish(self, progress: Progress) -> None:
        self._close()
        took = human_seconds(time.monotonic() - self._began)
        say(f"{progress.label}: {progress.done} of {progress.total} chunks in {took}, {self._rate(progress)}")

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
