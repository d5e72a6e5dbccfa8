"""A Dask cluster that somebody else keeps: we bring tasks, and judge who may have them."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.config.cluster import AddressCluster
from pipeline.errors import InputError
from pipeline.runtime import tls
from pipeline.runtime.dask_settings import CONFIG, quiet_logs, without_route
from pipeline.runtime.loop import LoopThread, quietly
from pipeline.runtime.rendezvous import differences, own_versions

if TYPE_CHECKING:
    from distributed import Client

    from pipeline.runtime.dask_executor import DaskExecutor

_LOOK_SECONDS = 1.0
# A scheduler that is there answers much sooner.
_CONNECT_SECONDS = "20s"


class AddressCrew:
    """The workers of a foreign scheduler, as it tells us. Lives in the event loop's thread.

    A worker whose versions differ from ours is given nothing.

    Args:
        address: of the scheduler, for messages.
        threads: of a worker, for the record.
        patience: seconds without a worker that may have tasks before we give up.
    """

    def __init__(self, address: str, threads: int, patience: float):
        self._address = address
        self._threads = threads
        self._patience = patience
        self._on_change: Callable[[], None] = lambda: None
        self._there: dict[str, dict[str, Any]] = {}
        self._unfit: dict[str, str] = {}
        self._last_seen = time.monotonic()
        self._looking: asyncio.Task[None] | None = None

    async def begin(self, client: Client) -> None:
        """Looks at the workers now, and again for as long as the client is open."""
        await self._look(client)
        self._looking = asyncio.create_task(self._keep_looking(client))

    async def _keep_looking(self, client: Client) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            with contextlib.suppress(OSError, TimeoutError):
                await self._look(client)

    async def _look(self, client: Client) -> None:
        try:
            answer: Any = client.scheduler
            found: dict[str, dict[str, Any]] = (await answer.identity())["workers"]
        except OSError:
            found = {}
        new = [address for address in found if address not in self._there and address not in self._unfit]
        if new:
            await self._judge(client, new)
        before, self._there = self._there, {a: w for a, w in found.items() if a not in self._unfit}
        if self._there:
            self._last_seen = time.monotonic()
        if before.keys() != self._there.keys():
            self._on_change()

    async def _judge(self, client: Client, addresses: list[str]) -> None:
        answers: Any = client.run(own_versions, workers=addresses, on_error="return")
        ours = own_versions()
        for address, theirs in (await answers).items():
            if isinstance(theirs, dict):
                reasons = [line.replace("on the coordinator", "there") for line in differences(theirs, ours)]
            else:
                reasons = [f"{type(theirs).__name__}: {theirs}"]
            if reasons:
                self._unfit[address] = "; ".join(reasons)

    @property
    def expected(self) -> int:
        return len(self._there)

    @property
    def dashboard_link(self) -> str | None:
        return None

    def workers(self) -> list[dict[str, object]]:
        return [
            {
                "name": str(worker["name"]),
                "label": str(worker["name"]),
                "host": str(worker["host"]),
                "pid": 0,  # of another machine it says nothing
                "address": address,
                "threads": self._threads,
                "given": (),
                "silent": round(max(time.time() - float(worker.get("last_seen", 0)), 0.0), 1),
            }
            for address, worker in list(self._there.items())
        ]

    def lost(self) -> str | None:
        if self._there or (time.monotonic() - self._last_seen < self._patience and not self._unfit):
            return None
        unfit = [f"{address} does not fit: {reason}" for address, reason in self._unfit.items()]
        return "; ".join([f"{self._address} has no worker for us", *unfit])

    def usable(self) -> list[str] | None:
        return list(self._there)

    def on_change(self, callback: Callable[[], None]) -> None:
        self._on_change = callback

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()


def is_loopback(address: str) -> bool:
    """Whether a `tcp://HOST:PORT` stays on this machine."""
    host = urlsplit(address).hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def settings(where: AddressCluster, *, insecure: bool) -> dict[str, object]:
    """Dask's configuration for a client of this cluster.

    Raises:
        InputError: plain TCP that leaves this machine, unless `insecure`.
    """
    if where.address.startswith("tls://"):
        return tls.settings_of(str(where.ca), str(where.certificate), str(where.key))
    if not (insecure or is_loopback(where.address)):
        raise InputError(
            f"{where.address} is plain TCP: everybody on the way can read along, and run code here and there",
            hint="give the scheduler TLS (docs/clusters.md) and name its certificates; or accept it with --insecure",
        )
    return {}


@contextlib.contextmanager
def open_address(where: AddressCluster, *, insecure: bool = False) -> Iterator[DaskExecutor]:
    """The workers of a scheduler that is there already.

    Raises:
        InputError: it does not answer, refuses our certificate, or is reached in plain TCP (unless `insecure`).
    """
    secured = settings(where, insecure=insecure)
    loop = LoopThread("dask")
    with contextlib.ExitStack() as stack:
        stack.callback(loop.stop)
        from dask import config

        from pipeline.runtime.dask_executor import DaskExecutor

        patience = {"distributed.comm.timeouts.connect": _CONNECT_SECONDS}
        stack.enter_context(config.set(CONFIG | patience | secured))
        stack.enter_context(quiet_logs())
        crew = AddressCrew(where.address, where.cpus, where.ready_seconds)
        stack.callback(quietly, lambda: loop.call(crew.close()))
        try:
            with without_route():
                executor = DaskExecutor(loop, crew, where.address)
        except (OSError, TimeoutError) as error:
            raise InputError(
                f"{where.address}: no Dask scheduler lets us in: {error}",
                hint="is it up, and are ca, certificate and key those of this cluster?",
            ) from None
        stack.callback(quietly, executor.close)
        loop.call(crew.begin(executor.client))
        yield executor
