"""Keeping worker processes alive: restarts the ones that die, gives up on ones that cannot start."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import psutil

from pipeline.runtime.loop import LoopThread

# A worker that dies before it ever reported for duty is not tried more often than this in a row.
_MAX_FALSE_STARTS = 3
# From asking the workers to end to killing them.
_CLOSE_SECONDS = 0.8
# A process found frozen twice, so long apart, is killed and replaced. Twice: Ctrl-Z and fg freeze all of us.
FROZEN_SECONDS = 5.0


class WorkerProcess:
    """One operating-system process that runs ``pipeline.runtime.worker``.

    It starts importing at once; ``order`` tells it where to go. It ends when ``close`` closes its standard
    input, and with this process however this process ends.
    """

    def __init__(self, environment: Mapping[str, str]):
        paths = [os.path.abspath(path) for path in sys.path]
        self._process = subprocess.Popen(
            # -P: the directory a person happens to be in must not shadow modules.
            [sys.executable, "-P", "-m", "pipeline.runtime.worker"],
            stdin=subprocess.PIPE,
            bufsize=0,
            stdout=2,  # standard output is for our own results
            env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
        )
        assert self._process.stdin is not None
        self._stdin = self._process.stdin

    @property
    def pid(self) -> int:
        return self._process.pid

    def order(self, orders: dict[str, Any]) -> None:
        # A process that died already is no error here: whoever waits for it will learn.
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(json.dumps(orders).encode() + b"\n")

    def close(self) -> None:
        """Asks it to end, which takes it half a second at most."""
        self._stdin.close()

    def kill(self) -> None:
        self._process.kill()

    def is_frozen(self) -> bool:
        """Stopped by SIGSTOP: it keeps its connections open and says nothing."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        return False

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, as ``subprocess`` gives it.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        return self._process.wait(timeout)

    def wait_thawed(self) -> int:
        """As `wait`, but a process that stays frozen is killed."""
        frozen = False
        while True:
            try:
                return self._process.wait(FROZEN_SECONDS)
            except subprocess.TimeoutExpired:
                was, frozen = frozen, self.is_frozen()
                if was and frozen:
                    self.kill()


class Slot:
    """A place for one worker: holds a living process, and a new one whenever that dies.

    Lives in the event loop's thread; only the waiting happens elsewhere.

    Attributes:
        gone: why the slot was given up, or None.
        has_reported: the scheduler knows, or knew, the present worker.
    """

    def __init__(self, name: str, environment: Mapping[str, str], post: Callable[..., None]):
        self._name = name
        self._environment = environment
        self._post = post
        self._orders: Callable[[str], dict[str, Any]] = lambda name: {}
        self._on_gone: Callable[[], None] = lambda: None
        self._restarts = 0
        self._false_starts = 0
        self._closing = False
        self.has_reported = False
        self.gone: str | None = None
        self.process = WorkerProcess(environment)

    @property
    def worker_name(self) -> str:
        """New with each restart, so that the scheduler never takes a new worker for the dead one."""
        return f"{self._name}.{self._restarts}" if self._restarts else self._name

    def begin(self, orders: Callable[[str], dict[str, Any]], on_gone: Callable[[], None]) -> None:
        """Sends the process to work, as its successors will be: ``orders`` makes a worker's orders from its name."""
        self._orders = orders
        self._on_gone = on_gone
        self._send()

    def reported(self) -> None:
        """The scheduler knows the worker."""
        self.has_reported = True
        self._false_starts = 0

    def close(self) -> None:
        self._closing = True
        self.process.close()

    def _send(self) -> None:
        self.process.order(self._orders(self.worker_name))
        threading.Thread(target=self._watch, args=(self.process,), name="worker-watch", daemon=True).start()

    def _watch(self, process: WorkerProcess) -> None:
        status = process.wait()
        self._post(self._ended, status)

    def _ended(self, status: int) -> None:
        if self._closing:
            return
        if not self.has_reported:
            self._false_starts += 1
        if self._false_starts >= _MAX_FALSE_STARTS:
            times = f"{self._false_starts} times"
            self.gone = f"worker {self._name} ended {times} while starting, {_cause(status)}"
            self._on_gone()
            return
        self.process.close()
        self.has_reported = False
        self._restarts += 1
        self.process = WorkerProcess(self._environment)
        self._send()


@contextlib.contextmanager
def supervised(environments: Sequence[Mapping[str, str]], loop: LoopThread) -> Iterator[list[Slot]]:
    """A slot for each environment, its process starting; on leaving all have ended, if need be by force."""
    slots: list[Slot] = []

    async def start() -> None:
        for number, environment in enumerate(environments):
            slots.append(Slot(str(number), environment, loop.post))

    try:
        # In the loop's thread, as all restarts: a worker dies with the thread that started it.
        loop.call(start())
        yield slots
    finally:
        for slot in slots:
            slot.close()
        for slot in slots:
            try:
                slot.process.wait(_CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                slot.process.kill()
                slot.process.wait()


def _cause(status: int) -> str:
    if status >= 0:
        return f"last with exit code {status}"
    try:
        return f"last by {signal.Signals(-status).name}"
    except ValueError:
        return f"last by signal {-status}"
