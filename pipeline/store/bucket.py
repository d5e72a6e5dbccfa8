"""A bucket of an S3 store: whole objects, written in one request each; what fails for a moment is tried again.

Credentials, region and endpoint come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`,
`AWS_ENDPOINT_URL`, …) and stay there: no message, file or pickle has them.
"""

from __future__ import annotations

import functools
import os
import random
import re
import time
from collections.abc import Buffer, Callable, Iterable
from typing import Any

from pipeline.store.faults import StoreRefused, StoreUnreachable

PATIENCE_SECONDS = 20.0
"""How long a store may give no sound answer before that is an error; how long one request may take, too."""

QUICK_SECONDS = 3.0
"""How long a request may take that is not worth waiting for: a heartbeat, or any to a store known to be down."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds before a request is tried again, doubling between the two, each shortened or not by chance."""

TIMEOUT_VARIABLE = "AWS_TIMEOUT"
"""Names the longest time of one request instead, as `2min`."""

_STATUS = re.compile(r"status code: (\d{3})[ \w]*")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_CAUSE = re.compile(r"HTTP error: (.*)")
_PASSING = {408, 429}
"""What a client did wrong (4xx), and yet may try again."""


class Bucket:
    """Objects by key; safe to share between threads.

    Every method raises `StoreUnreachable` when the store gives no sound answer for `PATIENCE_SECONDS`, and
    `StoreRefused` when it says no: no such bucket, no right to it, no credentials.
    """

    def __init__(self, name: str):
        self.name = name
        self._store = connect(name)
        self._quick = connect(name, f"{QUICK_SECONDS:g}s")
        self._failing_since: float | None = None

    def get(self, key: str, start: int = 0) -> Buffer:
        """The object from byte `start` on.

        Raises:
            FileNotFoundError: there is none.
        """
        import obstore

        # A range that begins at the end is an error to the server.
        options: Any = {"range": {"offset": start}} if start else None
        return self._persist(key, "read", lambda store: obstore.get(store, key, options=options).bytes())

    def size(self, key: str) -> int | None:
        """Bytes in the object; None when there is none."""
        import obstore

        try:
            return self._persist(key, "look at", lambda store: obstore.head(store, key)["size"])
        except FileNotFoundError:
            return None

    def put(self, key: str, data: Buffer, *, quick: bool = False) -> None:
        """Write the object, whole or not at all, whatever was there; `quick`: try once, and not for long."""
        import obstore

        self._persist(
            key, "write", lambda store: obstore.put(store, key, data, use_multipart=False), quick=quick
        )

    def create(self, key: str, data: Buffer) -> bool:
        """Write the object unless there is one (`If-None-Match: *`).

        Returns:
            False when there is one: perhaps from an attempt of this very call whose answer was lost.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError

        def attempt(store: Any) -> bool:
            try:
                obstore.put(store, key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

        return self._persist(key, "create", attempt)

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; one that is not there is no error."""
        import obstore

        keys = list(keys)
        if keys:
            self._persist(keys[0], "remove", lambda store: obstore.delete(store, keys))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Key and bytes of every object below `prefix/`; a request for every thousand of them."""
        import obstore

        found = self._persist(prefix, "list", lambda store: obstore.list(store, prefix).collect())
        return {entry["path"]: entry["size"] for entry in found}

    def below(self, prefix: str) -> set[str]:
        """The names one level below `prefix/`."""
        import obstore

        found = self._persist(prefix, "list", lambda store: obstore.list_with_delimiter(store, prefix))
        paths = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return {path.removeprefix(prefix).strip("/") for path in paths}

    def _persist[Found](
        self, key: str, doing: str, attempt: Callable[[Any], Found], *, quick: bool = False
    ) -> Found:
        """What the attempt finds, tried again while the store is merely busy or gone.

        The store counts as down when it has failed everybody in this process for as long as one caller may wait: then
        each is told after one attempt, and a run that has to end does so at once.
        """
        from obstore.exceptions import BaseError

        where, began, pause = f"s3://{self.name}/{key}", time.monotonic(), FIRST_PAUSE
        while True:
            try:
                found = attempt(self._quick if quick or self._is_down() else self._store)
            except FileNotFoundError as error:
                self._failing_since = None
                if "NoSuchBucket" in str(error):
                    raise _refusal(where, doing, error) from None
                raise FileNotFoundError(f"{where}: no such object") from None
            except BaseError as error:
                if not _is_passing(error):
                    raise _refusal(where, doing, error) from None
                now = time.monotonic()
                if self._failing_since is None:
                    self._failing_since = now
                if quick or self._is_down() or now + pause - began > PATIENCE_SECONDS:
                    raise StoreUnreachable(
                        f"{where}: cannot {doing} it: {_story(error)} (tried for {now - began:.0f} s)",
                        hint="what is stored is kept; when the store answers again, the same command resumes",
                    ) from None
                time.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._failing_since = None
                return found

    def _is_down(self) -> bool:
        since = self._failing_since
        return since is not None and time.monotonic() - since > PATIENCE_SECONDS


def bucket(name: str) -> Bucket:
    """The bucket of that name, opened once per process and endpoint."""
    return _bucket(name, os.environ.get("AWS_ENDPOINT_URL"))


@functools.lru_cache
def _bucket(name: str, endpoint: str | None) -> Bucket:
    return Bucket(name)


def connect(name: str, timeout: str = "", prefix: str | None = None) -> Any:
    """A client of obstore's; `timeout` of one request as `3s`, `PATIENCE_SECONDS` by default.

    Raises:
        StoreRefused: obstore is not installed.
    """
    try:
        from obstore.store import S3Store
    except ImportError:
        raise StoreRefused(
            f"s3://{name}: object stores need obstore, which is not installed",
            hint='pip install "ntk-pipeline[object-store]"',
        ) from None
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    timeout = timeout or os.environ.get(TIMEOUT_VARIABLE) or f"{PATIENCE_SECONDS:g}s"
    options: Any = {"timeout": timeout, "connect_timeout": f"{QUICK_SECONDS:g}s"}
    if endpoint.startswith("http://"):
        options["allow_http"] = True
    # Tried again here: obstore's own retries leave out what may have been written, and answers cut off in the middle.
    return S3Store(name, prefix=prefix, client_options=options, retry_config={"max_retries": 0})


def _is_passing(error: Exception) -> bool:
    """Whether the same request may do better a little later."""
    from obstore.exceptions import GenericError

    if not isinstance(error, GenericError) or _lacks_credentials(error):
        return False
    status = _STATUS.search(str(error))
    return status is None or int(status[1]) >= 500 or int(status[1]) in _PASSING


def _lacks_credentials(error: Exception) -> bool:
    """Without any in the environment they are looked for in the metadata of a machine of Amazon's."""
    return "http://169.254." in str(error)


def _refusal(where: str, doing: str, error: Exception) -> StoreRefused:
    if _lacks_credentials(error):
        return StoreRefused(
            f"{where}: cannot {doing} it: there are no credentials",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, here and on every worker",
        )
    return StoreRefused(
        f"{where}: cannot {doing} it: {_story(error)}",
        hint="check the bucket's name, AWS_ENDPOINT_URL, AWS_REGION, and what these credentials may do",
    )


def _story(error: Exception) -> str:
    """What the server said, or what became of the connection; not the whole answer, which may name the access key."""
    text = str(error)
    status = _STATUS.search(text)
    if status is None:
        cause = _CAUSE.search(text)
        return f"the connection failed ({cause[1].strip()})" if cause else text.split("\n")[0][:200]
    said = [match[1] for match in (_CODE.search(text), _MESSAGE.search(text)) if match]
    return " ".join([f"the server answered {status[1]}", *([f"({': '.join(said)})"] if said else [])])
