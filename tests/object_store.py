"""An S3 server for tests, on loopback, and a proxy before it that breaks what it is told to.

Fixtures: `server` (its port; of moto, or of what $NTK_TEST_S3 names), `bucket` (a fresh one, the environment set for
it), `proxy` (the same bucket through the proxy).
"""

from __future__ import annotations

import http.client
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline.store.place import ObjectPath

KEY, SECRET = "access-key-of-tests", "secret-of-tests"

BUSY = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def server() -> Iterator[int]:
    """Port of an S3 server."""
    if "NTK_TEST_S3" in os.environ:
        yield int(os.environ["NTK_TEST_S3"])
        return
    port = free_port()
    command = [
        os.path.join(os.path.dirname(sys.executable), "moto_server"),
        "-H",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, "moto_server does not start"
                time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def bucket(server: int, monkeypatch: pytest.MonkeyPatch) -> ObjectPath:
    """A place in a new bucket of the server, named by the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", os.environ.get("NTK_TEST_S3_KEY", KEY))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", os.environ.get("NTK_TEST_S3_SECRET", SECRET))
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server}")
    name = f"ntk-{uuid.uuid4().hex}"
    make_bucket(name)
    return ObjectPath(name, "runs/a")


def make_bucket(name: str) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=os.environ["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=name)
    client.close()


@pytest.fixture
def proxy(bucket: ObjectPath, server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the server, through which `bucket` is reached from now on."""
    with Proxy(server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        yield proxy


def contents(place: ObjectPath) -> dict[str, bytes]:
    """Every stored chunk below a place."""
    store = place / "store.zarr"
    return {key: (store / key).read_bytes() for key in store.sizes() if key.rsplit("/", 1)[-1].isdecimal()}


@dataclass
class Trouble:
    """What befalls the requests of a method whose path contains a text: after `skip` of them, so many `times`.

    `what`: `busy` (503, unread), `cut request` (half of it is read), `lost answer` (it is done, and not answered), `cut
    answer` (half of the answer is sent), `silence` (nothing is ever answered), `gone` (so are all from then on),
    `unconditional` (done, whatever If-None-Match says).
    """

    what: str
    method: str
    path: str = ""
    skip: int = 0
    times: float = 1
    met: int = field(default=0, init=False)

    def befalls(self, method: str, path: str) -> bool:
        if method not in self.method.split() or self.path not in path:
            return False
        self.met += 1
        return self.skip < self.met <= self.skip + self.times


class Proxy:
    """Forwards HTTP to a port of this machine, except for what is in `troubles`; `happened` counts those by kind."""

    def __init__(self, upstream: int):
        self.upstream = upstream
        self.troubles: list[Trouble] = []
        self.happened: dict[str, int] = {}
        self.gone = False
        self.requests: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._over = threading.Event()

    def __enter__(self) -> Proxy:
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with _quietly():
                    while proxy.serve(self.rfile, self.wfile):
                        pass

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def trouble(self, method: str, path: str) -> str:
        with self._lock:
            self.requests.append((method, path))
            for trouble in self.troubles:
                if trouble.befalls(method, path):
                    self.happened[trouble.what] = self.happened.get(trouble.what, 0) + 1
                    self.gone = self.gone or trouble.what == "gone"
                    return trouble.what
        return "gone" if self.gone else ""

    def serve(self, source: Any, answer: Any) -> bool:
        """One request; whether another may follow on this connection."""
        line = source.readline()
        if not line.strip():
            return False
        method, path, _ = line.decode().split(" ")
        headers: list[tuple[str, str]] = []
        while (text := source.readline().decode().strip()) != "":
            name, _, value = text.partition(":")
            headers.append((name.strip(), value.strip()))
        length = int(next((value for name, value in headers if name.lower() == "content-length"), 0))
        what = self.trouble(method, path)
        if what == "cut request":
            source.read(length // 2)
            return False
        body = source.read(length)
        if what in ("silence", "gone"):
            self._over.wait()
            return False
        if what == "busy":
            head = f"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: {len(BUSY)}\r\n\r\n"
            answer.write(head.encode() + (b"" if method == "HEAD" else BUSY))
            return True
        if what == "unconditional":
            headers = [header for header in headers if header[0].lower() != "if-none-match"]
        found, whole = self._forward(method, path, headers, body)
        if what == "lost answer":
            return False
        if what == "cut answer":
            answer.write(found + whole[: len(whole) // 2])
            return False
        answer.write(found + whole)
        return True

    def _forward(
        self, method: str, path: str, headers: list[tuple[str, str]], body: bytes
    ) -> tuple[bytes, bytes]:
        """Head and body of the server's answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders(body or None)
        response = connection.getresponse()
        whole = response.read()
        connection.close()
        kept = [
            (name, value)
            for name, value in response.getheaders()
            if name.lower() not in {"connection", "transfer-encoding", "content-length"}
        ]
        size = response.getheader("Content-Length") if method == "HEAD" else str(len(whole))
        lines = [
            f"HTTP/1.1 {response.status} {response.reason}",
            *(f"{name}: {value}" for name, value in kept),
        ]
        lines.append(f"Content-Length: {size or 0}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode(), whole


class _quietly:
    """Connections end as the other side likes."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> bool:
        return kind is not None and issubclass(kind, (OSError, http.client.HTTPException))


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
