"""Turning SIGTERM and SIGINT into a request that work ends cleanly."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from pipeline.errors import Interrupted, Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopFlag:
    """Set by SIGTERM or SIGINT while it is entered; a second signal: do not even wait for running tasks.

    Signals only reach a program's main thread; entered elsewhere, the flag installs nothing and is set by
    ``set``.
    """

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._urgent = False
        self._wakers: list[Callable[[], None]] = []
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            # None: a handler that was not installed from Python, which Python cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.set(signal.Signals(number))

    def set(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Asks for a stop, as the signal would."""
        self._urgent = self._signal is not None
        self._signal = self._signal or number
        for wake in list(self._wakers):
            wake()

    @property
    def is_set(self) -> bool:
        return self._signal is not None

    @property
    def urgent(self) -> bool:
        """Asked twice: do not wait for running tasks."""
        return self._urgent

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Within, ``wake`` is called when the flag is set, by the signal handler: it must not take locks."""
        self._wakers.append(wake)
        try:
            yield
        finally:
            self._wakers.remove(wake)

    def error(self, progress: str) -> Stopped:
        """What to raise once all is flushed: ``Interrupted`` (exit 130) for SIGINT, else ``Stopped`` (75)."""
        kind = Interrupted if self._signal is signal.SIGINT else Stopped
        name = self._signal.name if self._signal else "request"
        return kind(f"stopped by {name}: {progress}", hint="the same command again continues from here")
