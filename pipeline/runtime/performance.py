"""Dask's performance report of a run: what each worker did when, the scheduler's load, bandwidths, as one HTML page."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

from distributed import Client, performance_report

from pipeline.runtime.loop import LoopThread

# Workers are asked for what they know; one whose task holds the interpreter's lock does not answer, and a job that was
# told to stop has little time.
_GATHER_SECONDS = 10.0


class PerformanceReport:
    """A report on all that happens between `begin` and `finish`.

    Args:
        client: asynchronous; its loop is another thread's.
        write: takes the page.
    """

    def __init__(self, client: Client, write: Callable[[str], object]):
        self._client = client
        self._write = write
        # Everything that the page needs is in it: where runs are looked at there may be no internet.
        self._report = performance_report(mode="inline")

    async def begin(self) -> None:
        with self._client.as_current():
            await self._report.__aenter__()

    def finish(self, loop: LoopThread) -> None:
        """Gather and write it; one that cannot be had is done without, and said so. In the coordinator's thread."""
        with tempfile.TemporaryDirectory(prefix="ntk-report-") as folder:
            self._report.filename = str(Path(folder) / "report.html")
            try:
                loop.call(self._gather(), _GATHER_SECONDS)
                self._write(Path(self._report.filename).read_text(encoding="utf-8"))
            except Exception as error:
                logging.getLogger(__name__).warning(
                    "no performance report: %s: %s", type(error).__name__, error
                )

    async def _gather(self) -> None:
        with self._client.as_current():
            await self._report.__aexit__(
                None, None, None, code="stages of a run; a bar is a bundle of its tasks"
            )
