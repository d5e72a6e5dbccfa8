"""Keeping one worker alive on another machine: ``python -m pipeline.runtime.attendant``, started there by the batch
system, or through ssh.

It waits for the file that says where the scheduler is, sends a worker there, and another when that one ends: a worker
that loses its scheduler, by a cut cable or because a coordinator starts again, ends by itself and never comes back.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from pipeline.errors import PipelineError
from pipeline.runtime.dask_settings import CONFIG, LOOPBACK
from pipeline.runtime.environment import worker_environment
from pipeline.runtime.rendezvous import (
    NAME_VARIABLE,
    THREADS_VARIABLE,
    Rendezvous,
    differences,
    own_address,
    own_versions,
    place,
)
from pipeline.runtime.supervisor import WorkerProcess
from pipeline.runtime.tls import dask_settings

_POLL_SECONDS = 0.3
# A worker that ends sooner than this did not work; the next one waits, each time longer.
_SHORT_LIFE_SECONDS = 10.0
_LONGEST_WAIT_SECONDS = 30.0

ATTACHED = "--attached"
"""Argument with which an attendant lives as long as it is written to: to the end of its standard input, or to a silence
of `SILENCE_SECONDS`, which is what a cut cable leaves."""

SILENCE_SECONDS = 120.0

MISFIT = 3
"""Exit code of an attendant whose installation does not fit the coordinator's."""


class Attendant:
    """Starts workers one after the other until told to stop.

    SIGTERM does not end a worker that is with its scheduler: what it computes shall be stored, and it ends with the
    scheduler. There will only be no other.
    """

    def __init__(self, meeting: Path, interface: str | None):
        self._meeting = meeting
        self._interface = interface
        number = os.environ.get(NAME_VARIABLE) or os.environ.get("SLURM_PROCID", os.getpid())
        self._name = f"{socket.gethostname()}-{number}"
        self._environment = worker_environment(int(os.environ.get(THREADS_VARIABLE, "1")))
        self._stopping = False
        self._process: WorkerProcess | None = None

    def attach(self) -> None:
        """Live as long as somebody writes to standard input."""
        threading.Thread(target=self._watch_input, name="input-watch", daemon=True).start()

    def _watch_input(self) -> None:
        while select.select([sys.stdin.fileno()], [], [], SILENCE_SECONDS)[0] and os.read(
            sys.stdin.fileno(), 64
        ):
            pass
        self._stopping = True
        if self._process is not None:
            self._process.close()  # which ends it, whatever it is doing

    def stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def serve(self) -> int:
        """Exit code: 0, or `MISFIT`."""
        _say(f"{self._name}: CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')}")
        wait, count, met = 0.0, 0, False
        while not self._stopping:
            process = self._process = WorkerProcess(
                self._environment
            )  # it imports while we look for the scheduler
            try:
                # A coordinator that leaves in peace takes the file away, for good: another attempt has another.
                meeting = Rendezvous.read(self._meeting) if met else self._find()
                if meeting is None:
                    break
                met = True
                if different := differences(meeting.versions, own_versions()):
                    _say(f"{self._name}: this worker does not fit the run: {'; '.join(different)}")
                    return MISFIT
                began = time.monotonic()
                process.order(self._orders(meeting, count))
                status = process.wait_thawed()
            finally:
                process.close()
                process.kill()
                process.wait()
            count += 1
            _say(f"{self._name}: worker ended with exit code {status}")
            short = time.monotonic() - began < _SHORT_LIFE_SECONDS
            wait = min(max(2 * wait, 0.5), _LONGEST_WAIT_SECONDS) if short else 0.0
            time.sleep(wait)
        return 0

    def _find(self) -> Rendezvous | None:
        while not self._stopping:
            if meeting := Rendezvous.read(self._meeting):
                return meeting
            time.sleep(_POLL_SECONDS)
        return None

    def _orders(self, meeting: Rendezvous, count: int) -> dict[str, object]:
        host = urlsplit(meeting.address).hostname
        options = {
            "scheduler_ip": meeting.address,
            # New with each worker, so that the scheduler never takes it for the one before.
            "name": f"{self._name}.{os.getpid()}.{count}",
            "nthreads": 2,  # one computes, the other stores
            "host": own_address(self._interface, host),
            "dashboard": False,
            "dashboard_address": f"{LOOPBACK}:0",
            "memory_limit": 0,
        }
        keys = dask_settings(Path(meeting.keys)) if meeting.keys else {}
        return {"config": CONFIG | keys, "options": options}


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Arguments: `ATTACHED`, if so, and the network interface, if any."""
    attached = ATTACHED in sys.argv[1:]
    interface = [word for word in sys.argv[1:] if word != ATTACHED]
    try:
        if folder := os.environ.get("TMPDIR"):
            Path(folder).mkdir(parents=True, exist_ok=True)
        attendant = Attendant(place(), interface[0] if interface else None)
        signal.signal(signal.SIGTERM, attendant.stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if attached:
            attendant.attach()
        sys.exit(attendant.serve())
    except PipelineError as error:
        _say(f"error: {error}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
