"""An asyncio event loop in a thread of its own: the place where everything of Dask's lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """A running event loop, from construction until ``stop``."""

    def __init__(self, name: str):
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()
        self._started.wait()

    def _main(self) -> None:
        with asyncio.Runner() as runner:  # on leaving it cancels what is left and closes the loop
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._started.set()
        await self._ended.wait()

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Runs a coroutine in the loop and waits for its result here.

        Raises:
            TimeoutError: it took longer than ``timeout`` seconds; it is cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()
            raise

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Calls a function in the loop soon; without effect once the loop has stopped."""
        # A RuntimeError says that the loop is closed.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def stop(self) -> None:
        """Ends the loop. May be called twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join()


def quietly(close: Callable[[], object]) -> None:
    """Close without raising: workers end with their connections whatever goes wrong here, and an error while tearing
    down must not take the place of the one that ended the run."""
    try:
        close()
    except Exception:
        logging.getLogger(__name__).debug("while closing", exc_info=True)
