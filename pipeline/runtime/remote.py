"""Workers on other machines: the scheduler here, with the run's keys, and whoever comes with the same ones."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.runtime import tls
from pipeline.runtime.dask_settings import CONFIG, LOOPBACK, quiet_logs, without_route
from pipeline.runtime.loop import LoopThread, quietly
from pipeline.runtime.rendezvous import Rendezvous, own_address, own_versions

if TYPE_CHECKING:
    from distributed import Scheduler

    from pipeline.runtime.dask_executor import DaskExecutor


class Fetcher(Protocol):
    """Who fetches the workers, where they do not come by themselves."""

    def hopeless(self) -> bool:
        """Nobody will ever come."""
        ...

    def problems(self) -> list[str]:
        """What keeps workers away, a line for each cause."""
        ...


class RemoteCrew:
    """A scheduler that workers come to and leave as they like. Lives in the event loop's thread.

    Args:
        meeting: file that tells workers where to come.
        workers: how many there should be.
        threads: of BLAS and XLA in each, for the record.
        ready_seconds: how long they may take to come, also after all were lost.
        fetcher: who fetches them, if anybody does.
    """

    def __init__(
        self, meeting: Path, workers: int, threads: int, ready_seconds: float, fetcher: Fetcher | None = None
    ):
        self._meeting = meeting
        self._wanted = workers
        self._threads = threads
        self._patience = ready_seconds
        self._fetcher = fetcher
        self._on_change: Callable[[], None] = lambda: None
        self._scheduler: Scheduler | None = None
        self._address = ""
        self._began = self._last_seen = time.monotonic()

    async def start(self, address: str, keys: Path | None, dashboard_port: int = 0) -> str:
        """Starts the scheduler and says where it is; without keys in plain TCP. The address for our own client."""
        from distributed import Scheduler

        from pipeline.runtime.crew import Watcher

        self._address = address
        options: dict[str, Any] = {
            "protocol": ["tcp" if keys is None else "tls", "inproc"],
            "host": [address, None],
            "port": 0,
            "dashboard": True,
            "dashboard_address": f"{LOOPBACK}:{dashboard_port}",  # it has no authentication, not even under TLS
            "allowed_failures": 0,
        }
        self._scheduler = await Scheduler(**options)
        self._scheduler.add_plugin(Watcher(lambda name: self._changed(), self._changed))
        listening = [str(listener.contact_address) for listener in self._scheduler.listeners]
        outside = next(address for address in listening if not address.startswith("inproc"))
        Rendezvous(outside, "" if keys is None else str(keys), own_versions()).write(self._meeting)
        return next(address for address in listening if address.startswith("inproc"))

    def _changed(self) -> None:
        self._last_seen = time.monotonic()
        self._on_change()

    def _present(self) -> list[Any]:
        return [] if self._scheduler is None else list(self._scheduler.workers.values())

    def on_change(self, callback: Callable[[], None]) -> None:
        self._on_change = callback

    @property
    def expected(self) -> int:
        present = len(self._present())
        return max(present, self._wanted) if time.monotonic() - self._began < self._patience else present

    @property
    def dashboard_link(self) -> str | None:
        if self._scheduler is None or "dashboard" not in self._scheduler.services:
            return None
        return f"http://{LOOPBACK}:{self._scheduler.services['dashboard'].port}/status"

    def workers(self) -> list[dict[str, object]]:
        from pipeline.runtime.crew import present_state

        return [
            {
                "name": str(worker.name),
                # An attendant names its workers after its host.
                "label": f"{str(worker.name).rpartition('-')[0]}:{worker.pid}",
                "host": str(worker.host),
                # Of another machine it says nothing.
                "pid": worker.pid if worker.host == self._address else 0,
                "threads": self._threads,
                **present_state(worker),
            }
            for worker in self._present()
        ]

    def lost(self) -> str | None:
        silence = time.monotonic() - self._last_seen
        hopeless = self._fetcher is not None and self._fetcher.hopeless()
        if self._present() or (silence < self._patience and not hopeless):
            return None
        late = "" if hopeless else f" within {self._patience:g} s"
        causes = [] if self._fetcher is None else self._fetcher.problems()
        where = f"their logs are beside {self._meeting}"
        return "; ".join([f"none of {self._wanted} came{late}", *causes, where])

    def usable(self) -> list[str] | None:
        return None

    async def close(self) -> None:
        # First: whoever loses us now must not wait for us to come back.
        self._meeting.unlink(missing_ok=True)
        if self._scheduler is not None:
            with contextlib.suppress(Exception):
                await self._scheduler.close(reason="the run is over")


@contextlib.contextmanager
def open_remote(
    meeting: Path,
    workers: int,
    threads: int,
    ready_seconds: float,
    interface: str | None,
    *,
    toward: str | None = None,
    insecure: bool = False,
    fetcher: Fetcher | None = None,
    dashboard_port: int = 0,
) -> Iterator[DaskExecutor]:
    """A scheduler on this machine's address for the workers that `pipeline.runtime.attendant` keeps elsewhere.

    Returns before the workers have come: tasks may be submitted at once. Everything that leaves this process is
    encrypted, with keys made here and now, in a folder beside the meeting file; nothing is if `insecure`.

    Args:
        toward: a host that leads to the workers, for the address to listen on where no interface is named.
        fetcher: who fetches the workers, if anybody does.
        dashboard_port: of the dashboard, on loopback, if it is free; 0: any.

    Raises:
        InputError: no such network interface.
    """
    address = own_address(interface, toward)
    keys = None if insecure else meeting.parent / "keys"
    loop = LoopThread("dask")
    with contextlib.ExitStack() as stack:
        if keys is not None:
            stack.callback(shutil.rmtree, keys, ignore_errors=True)
            tls.issue(keys)
        stack.callback(loop.stop)
        from dask import config

        from pipeline.runtime.dask_executor import DaskExecutor

        stack.enter_context(config.set(CONFIG | ({} if keys is None else tls.dask_settings(keys))))
        stack.enter_context(quiet_logs())
        crew = RemoteCrew(meeting, workers, threads, ready_seconds, fetcher)
        stack.callback(quietly, lambda: loop.call(crew.close()))
        with without_route():
            executor = DaskExecutor(loop, crew, loop.call(crew.start(address, keys, dashboard_port)))
        stack.callback(quietly, executor.close)
        yield executor
