"""The lease: at most one run writes a run directory at a time, and a dead run's lease passes on by itself."""

from __future__ import annotations

import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from pipeline.errors import InputError
from pipeline.store.faults import disk_error
from pipeline.store.layout import RunLayout
from pipeline.store.place import Place, place
from pipeline.store.process import home, own_start
from pipeline.store.register import Holder, Register, State

PATIENCE_SECONDS = 30.0
BEAT_SECONDS = 1.0


class Lease:
    """Leave to write a run directory, held inside a ``with`` block.

    ``run`` excludes everybody else; ``shard-K-of-M`` leases exclude ``run`` and themselves only. A lease is
    taken over at once when its holder was a process of this machine that is there no more, otherwise when its
    heartbeat has stood still for ``patience`` seconds of this process's own monotonic clock. No wall clock is
    compared.

    A process that slept past its patience cannot know it: it asks ``still_ours`` (or has ``check`` called)
    before it writes the next record. Chunks that it writes all the same are harmless: they are the same bits,
    or they fail the digest of the record that counts.

    Args:
        directory: the run directory.
        name: ``run`` or ``shard-K-of-M``.
        patience: seconds without a heartbeat after which a holder counts as dead; the same for all processes.
        beat: seconds between heartbeats; at most a few percent of the patience.
        waiting: called once with a message when it must watch a holder before it can tell.
    """

    def __init__(
        self,
        directory: Place | str,
        name: str = "run",
        *,
        patience: float = PATIENCE_SECONDS,
        beat: float = BEAT_SECONDS,
        waiting: Callable[[str], None] | None = None,
    ):
        self.directory = place(directory)
        self.name = name
        self.patience = patience
        self.beat = beat
        self._waiting = waiting
        self._register = Register(RunLayout(self.directory).leases)
        self._token = ""
        self._over = threading.Event()
        self._heart: threading.Thread | None = None

    def __enter__(self) -> Lease:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lease.

        Raises:
            InputError: someone alive holds it (the message names them), or the directory cannot be written.
            StoreRefused: an object store that would let two runs hold it.
        """
        me = Holder(
            name=self.name,
            host=socket.gethostname(),
            home=home(),
            pid=os.getpid(),
            start=own_start(),
            token=secrets.token_hex(16),
            since=round(time.time(), 3),
        )
        try:
            self._register.open(me.token)
            self._register.beat(me.token, 0)
            while not (state := self._register.read()).holds(me.token):
                dead = {holder.token for holder in state.holders if holder.is_gone()}
                rivals = [h for h in state.holders if h.token not in dead and h.excludes(self.name)]
                if rivals:
                    dead |= self._watch(state, rivals)
                    if any(rival.token not in dead for rival in rivals):
                        continue  # The register changed meanwhile.
                others = tuple(holder for holder in state.holders if holder.token not in dead)
                self._settle(state, (*others, me), me.token)
        except BaseException as error:
            with suppress(OSError):
                self._register.forget(me.token)
            if isinstance(error, OSError):
                raise disk_error(error, RunLayout(self.directory).leases, "write a lease") from error
            raise
        self._token = me.token
        self._over.clear()
        self._heart = threading.Thread(target=self._live, args=(me.token,), name="ntk-lease", daemon=True)
        self._heart.start()

    def release(self) -> None:
        """Give the lease back; nothing happens when it is no longer ours."""
        token, self._token = self._token, ""
        if not token:
            return
        self._over.set()
        if self._heart is not None:
            self._heart.join()
        # A disk that refuses now must not hide the error that ended the run: a dead process's lease passes on
        # by itself.
        with suppress(InputError, OSError):
            while (state := self._register.read()).holds(token):
                others = tuple(holder for holder in state.holders if holder.token != token)
                self._settle(state, others, token)
            self._register.forget(token)

    def still_ours(self) -> bool:
        """Whether nobody took the lease over; a directory listing and one small read.

        Raises:
            InputError: the directory cannot be read.
        """
        # A listing may miss files that come and go meanwhile: only a second look makes a no.
        return bool(self._token) and any(self._register.read().holds(self._token) for _ in range(2))

    def check(self) -> None:
        """Raise unless the lease is still ours: the guard of a journal writer.

        Raises:
            InputError: another process took over, or the lease was never taken.
        """
        if not self.still_ours():
            raise InputError(
                f"{self.directory}: this process lost its lease on the run (it stood still for more than "
                f"{self.patience:g} s, or never took it); it writes no more",
                hint="rerun when the process that took over is finished: a rerun resumes",
            )

    def _settle(self, state: State, holders: tuple[Holder, ...], token: str) -> None:
        if not self._register.replace(state, holders, token):
            time.sleep(random.uniform(0.0, 0.01))  # Many shards may start in the same moment.

    def _live(self, token: str) -> None:
        count = 0
        while not self._over.wait(self.beat):
            count += 1
            # A disk that is full for a while costs beats, not the run.
            with suppress(OSError):
                self._register.beat(token, count)

    def _watch(self, state: State, rivals: list[Holder]) -> set[str]:
        """Tokens of the rivals that are dead, as far as can be told; raises when one is alive."""
        first = {rival.token: self._register.pulse(rival.token) for rival in rivals}
        step = min(self.beat, self.patience) / 4
        waited = 0.0
        told = False
        last = time.monotonic()
        while waited < self.patience:
            time.sleep(step)
            now = time.monotonic()
            # When this process itself was stopped, the time is not the rival's silence.
            waited += min(now - last, 2 * step)
            last = now
            if self._register.read().generation != state.generation:
                return set()
            for rival in rivals:
                # A counter that vanished was swept away with its holder: no sign of life.
                if self._register.pulse(rival.token) not in (None, first[rival.token]):
                    raise self._held(rival)
            if all(rival.is_gone() for rival in rivals):
                break
            if self._waiting is not None and not told and waited > 2 * self.beat:
                self._waiting(f"{self._story(rivals[0])}; watching its heartbeat for {self.patience:g} s")
                told = True
        return {rival.token for rival in rivals}

    def _held(self, holder: Holder) -> InputError:
        return InputError(
            self._story(holder),
            hint=f"wait until it has finished, or stop it (kill {holder.pid} on {holder.host}); "
            "the lease of a run that died passes on by itself",
        )

    def _story(self, holder: Holder) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
        return (
            f"{self.directory} is in use: lease '{holder.name}' is held by process {holder.pid} "
            f"on {holder.host} since {since}"
        )
