"""Who holds leases on a run directory: a register that changes by compare-and-swap on plain files or objects.

State g is the file ``leases/{g:08d}.json``, complete when it appears and never changed. The state that counts
is the highest; it is replaced by creating g + 1, which succeeds for one process only. So takeover, release
and entry are one operation, without locks, and an object store that refuses to overwrite
(``If-None-Match: *``) does the same.

A holder shows that it lives by a counter in a file of its own, ``leases/{token}.beat``, which nobody else
writes: a process that slept past its lease can thus never disturb the next holder.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass

from pipeline.errors import InputError
from pipeline.store.faults import disk_error
from pipeline.store.folder import folder_at
from pipeline.store.place import Place
from pipeline.store.process import home, is_running

_STATE = re.compile(r"(\d{8})\.json")


@dataclass(frozen=True, slots=True)
class Holder:
    """One lease: its name and whose it is.

    Attributes:
        name: ``run``, or ``shard-3-of-16``.
        host: for people.
        home: where ``pid`` means something (``process.home``).
        pid: process number.
        start: when that process started (``process.own_start``).
        token: random, names this lease and no other.
        since: Unix time, for people only.
    """

    name: str
    host: str
    home: str
    pid: int
    start: int
    token: str
    since: float

    def excludes(self, name: str) -> bool:
        """Shards exclude only themselves; ``run`` excludes everybody."""
        return self.name == name or "run" in (self.name, name)

    def is_gone(self) -> bool:
        """Its process is known to be dead: it was one of this machine's and is there no more."""
        return self.home != "" and self.home == home() and not is_running(self.pid, self.start)


@dataclass(frozen=True, slots=True)
class State:
    """Generation of the register and the leases in it."""

    generation: int
    holders: tuple[Holder, ...]

    def holds(self, token: str) -> bool:
        return any(holder.token == token for holder in self.holders)


class Register:
    """The files of the register.

    Every method raises InputError (of an object store `ObjectStoreError`) when the file system refuses.

    Args:
        path: the ``leases`` directory; made when it is not there.
    """

    def __init__(self, path: Place):
        self._path = path
        self._folder = folder_at(path)

    def open(self, token: str) -> None:
        """Make the directory where there is none, and sure that a state can be created once only; raises OSError."""
        self._folder.require_creation(_draft(token))

    def read(self) -> State:
        """The state that counts; generation 0 without holders when nobody ever held a lease."""
        while True:
            try:
                generation = self._highest()
                if generation == 0:
                    return State(0, ())
                text = self._folder.read(_state(generation))
            except FileNotFoundError:
                continue  # Superseded and swept away between the two calls.
            except OSError as error:
                raise disk_error(error, self._path, "read the leases") from error
            try:
                holders = tuple(Holder(**holder) for holder in json.loads(text)["holders"])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{self._path / _state(generation)}: not a lease file of this version",
                    hint=f"when no run is active there, remove the directory {self._path}",
                ) from error
            return State(generation, holders)

    def replace(self, state: State, holders: tuple[Holder, ...], token: str) -> bool:
        """Make ``holders`` the successor of ``state``, unless another process came first.

        Args:
            token: of the caller's lease, for a name of its own for the temporary file.

        Returns:
            Whether the file was created. The caller reads the register again to know where it stands: a
            generation that was already superseded *and* swept away can be created once more, to no effect.
        """
        text = json.dumps({"holders": [asdict(holder) for holder in holders]})
        try:
            if not self._folder.create(_state(state.generation + 1), text, _draft(token)):
                return False
            self._sweep(state, holders)
        except OSError as error:
            raise disk_error(error, self._path, "write a lease") from error
        return True

    def beat(self, token: str, count: int) -> None:
        """Set a holder's counter; raises OSError."""
        self._folder.write(_beat(token), str(count))

    def pulse(self, token: str) -> str | None:
        """A holder's counter as it stands; None when it has none."""
        try:
            return self._folder.read(_beat(token))
        except OSError:
            return None

    def forget(self, token: str) -> None:
        """Remove a holder's files."""
        self._folder.remove(_beat(token))
        self._folder.remove(_draft(token))

    def _generations(self) -> list[int]:
        return [int(match[1]) for name in self._folder.names() if (match := _STATE.fullmatch(name))]

    def _highest(self) -> int:
        return max(self._generations(), default=0)

    def _sweep(self, old: State, holders: tuple[Holder, ...]) -> None:
        """Remove what the new state made useless; the state before it stays for slow readers."""
        kept = {holder.token for holder in holders}
        for holder in old.holders:
            if holder.token not in kept:
                self.forget(holder.token)
        generations = self._generations()
        for generation in generations:
            if generation < min(old.generation, max(generations) - 1):
                self._folder.remove(_state(generation))


def _state(generation: int) -> str:
    return f"{generation:08d}.json"


def _beat(token: str) -> str:
    return f"{token}.beat"


def _draft(token: str) -> str:
    return f"{token}.draft"
